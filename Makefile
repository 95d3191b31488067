# The short way: `make demo` on a fresh machine. Everything else is CMake.
CLI := build/cli/deep_gemm
CCACHE := $(if $(shell command -v ccache),-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)

help:  ## say what the targets do (default)
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup:  ## install what is missing (Debian and Ubuntu packages, a Python environment in .venv)
	@bash tools/setup.sh

configure: setup
	@cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release $(CCACHE) $(CMAKE_FLAGS) >/dev/null

build: configure  ## build the library, the command line and the tests into build/
	@cmake --build build

demo: configure  ## multiply real transformer weights in FP8 and show the error
	@cmake --build build --target deep_gemm_cli
	@bash tools/demo.sh $(CLI)

test: build  ## build and run all tests; those that need a GPU say so and skip
	@. tools/environment.sh && ctest --test-dir build --output-on-failure -j $$(nproc)

wheel: setup  ## build the Python wheel and test it, with torch and without (build/python/dist)
	@bash tests/package/python_wheel.sh

clean:  ## remove what build and demo made
	@rm -rf build

.PHONY: help setup configure build demo test wheel clean
