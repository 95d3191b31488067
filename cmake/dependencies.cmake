# What the project stands on, all of it packaged: on Debian and Ubuntu libfmt-dev, libeigen3-dev, nlohmann-json3-dev,
# libcli11-dev and libgtest-dev (tools/setup.sh installs them). bench/ takes Google Benchmark, libbenchmark-dev, where it is there.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(nlohmann_json 3.11 REQUIRED)
if(DEEP_GEMM_BUILD_CLI)
  find_package(CLI11 REQUIRED)
endif()
if(DEEP_GEMM_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
