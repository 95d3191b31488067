// bench/host_time.cpp, on the fake driver and without any.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include <nlohmann/json.hpp>

#include "cuda/driver.h"
#include "fake_nvcc.h"
#include "jit/process.h"

namespace deep_gemm {
namespace {

#ifdef DG_HOST_TIME

TEST(HostTime, BatchesOfCallsBesideTheLaunch) {
  const test::FakeNvcc nvcc;
  const jit::TemporaryDirectory scratch;
  const std::string out = (scratch.path() / "out.json").string();
  const jit::ProcessResult result = jit::run_process(
      {"/usr/bin/env", "LD_LIBRARY_PATH=" DG_FAKE_DRIVER_DIR, "DG_JIT_USE_NVRTC=0",
       "DG_JIT_NVCC_COMPILER=" + nvcc.path().string(), "DG_JIT_CACHE_DIR=" + (scratch.path() / "cache").string(),
       DG_HOST_TIME, "--benchmark_out=" + out});
  ASSERT_EQ(result.status, 0) << result.output;
  const nlohmann::json report = nlohmann::json::parse(test::read_text(out));
  EXPECT_EQ(report["context"]["gpu"], "Fake GPU");
  int batches = 0;
  for (const nlohmann::json& run : report["benchmarks"]) {
    if (run["run_type"] != "iteration") continue;
    ++batches;
    EXPECT_GT(run["launch_us"], 0) << run;
    EXPECT_NEAR(run["above_launch_us"], run["real_time"].get<double>() - run["launch_us"].get<double>(), 1e-6) << run;
  }
  EXPECT_EQ(batches, 20);
}

TEST(HostTime, WithoutGpuIsAnErrorOfOneLine) {
  if (cuda::device_count() > 0) GTEST_SKIP() << "this machine has a GPU";
  const jit::ProcessResult result = jit::run_process({DG_HOST_TIME});
  EXPECT_EQ(result.status, 1);
  EXPECT_TRUE(result.output.starts_with("deep_gemm_host_time: the NVIDIA driver")) << result.output;
  EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
}

#else
TEST(HostTime, BatchesOfCallsBesideTheLaunch) { GTEST_SKIP() << "NOT TESTED: BUILT WITHOUT GOOGLE BENCHMARK"; }
#endif

}  // namespace
}  // namespace deep_gemm
