// The benchmark's instruments on a real GPU: times are plausible, results are checked, the L2 states differ as they should.
#include <gtest/gtest.h>

#include "bench/harness.h"
#include "bench/report.h"
#include "bench/timer.h"
#include "context_impl.h"
#include "cuda/driver.h"

namespace deep_gemm::bench {
namespace {

class BenchOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "NO GPU: the benchmark's instruments are not tested here";
    context_ = std::make_unique<Context>(Device{DeviceType::cuda, 0});
  }
  static void say(const std::string& line) { std::printf("%s\n", line.c_str()); }
  std::unique_ptr<Context> context_;
};

TEST_F(BenchOnGpu, ReadingTakesAsLongAsTheMemoryAllows) {
  const cuda::DeviceContext::Scope scope(*context_->impl().cuda);
  const cuda::OwnedStream stream;
  StreamKernels kernels(*context_, stream);
  Timer timer(*context_, stream);
  say(timer.note());
  constexpr int64_t kBytes = 1 << 30;
  const cuda::DeviceBuffer buffer(kBytes);
  cuda::fill(buffer.data(), 0x5a, kBytes, stream);
  const double peak = context_->impl().cuda->properties().info.hbm_gbytes_per_s;
  for (const StreamKernels::Way way : {StreamKernels::Way::bulk, StreamKernels::Way::vectors}) {
    // 16 bytes short of everything, too, so that the last chunk is a small one.
    for (const int64_t bytes : {kBytes, kBytes - 16, kBytes / 2 + 4096 + 16}) {
      const std::vector<std::function<void()>> calls(3, [&] { kernels.read(way, buffer.data(), bytes); });
      const std::vector<CallTime> times = timer.time(calls, [] {});
      ASSERT_EQ(times.size(), 3u);
      const double gbytes_per_s = static_cast<double>(bytes) / times[2].kernel_us * 1e-3;
      EXPECT_LT(gbytes_per_s, 1.1 * peak);
      EXPECT_GT(gbytes_per_s, 0.5 * peak);
    }
  }
  // A read of nothing ends, and of less than a vector for each thread.
  const std::function<void()> small[] = {[&] { kernels.read(StreamKernels::Way::bulk, buffer.data(), 16); },
                                         [&] { kernels.read(StreamKernels::Way::vectors, buffer.data(), 16); },
                                         [&] { kernels.read(StreamKernels::Way::bulk, buffer.data(), 0); }};
  for (const CallTime& time : timer.time(small, [] {})) EXPECT_LT(time.kernel_us, 100);
}

TEST_F(BenchOnGpu, EveryRegimeChecksAndTimesBothSides) {
  const Shape shape{128, 1536, 2048};
  double warm_us = 0, cool_us = 0;
  for (const Regime regime : kRegimes) {
    HarnessOptions options;
    options.regime = regime;
    options.rival = true;
    options.repeats = 5;
    Harness harness(*context_, options, say);
    harness.compile({shape});
    const ShapeResult result = harness.run(shape);
    SCOPED_TRACE(name_of(regime));
    EXPECT_EQ(result.ours.error, "");
    ASSERT_TRUE(result.ours.check);
    EXPECT_EQ(result.ours.check->elements, shape.m * shape.n);
    EXPECT_EQ(result.ours.check->mismatches, 0);
    EXPECT_GT(result.ours.time_us.min, 1);
    EXPECT_LT(result.ours.time_us.max, 1000);
    EXPECT_GT(result.floor_us, 0.5);
    EXPECT_LE(result.ours.kernels, 1);
    if (result.timer == "cupti") {
      EXPECT_EQ(result.ours.kernel_names, std::vector<std::string>{result.kernel});
    }
    ASSERT_TRUE(result.rival);
    if (harness.machine().rival.empty()) {
      say("no cuBLASLt: the rival is not tested here");
    } else {
      EXPECT_EQ(result.rival->outcome.error, "");
      ASSERT_TRUE(result.rival->outcome.check);
      EXPECT_EQ(result.rival->outcome.check->mismatches, 0);
    }
    if (regime == Regime::warm) warm_us = result.ours.time_us.median;
    if (regime == Regime::cool) cool_us = result.ours.time_us.median;
  }
  EXPECT_LT(warm_us, cool_us);
}

TEST_F(BenchOnGpu, TheRivalsScalesAreRightWhereTheyNeedPadding) {
  // 17 blocks of k: not a multiple of 4. n with a tail in its last block of 128 rows.
  HarnessOptions options;
  options.regime = Regime::warm;
  options.rival = true;
  options.repeats = 2;
  Harness harness(*context_, options, say);
  if (harness.machine().rival.empty()) GTEST_SKIP() << "no cuBLASLt";
  for (const Shape& shape : {Shape{64, 2112, 2176}, Shape{20, 272, 1024}, Shape{256, 512, 640}}) {
    const ShapeResult result = harness.run(shape);
    EXPECT_EQ(result.ours.check->mismatches, 0);
    if (!result.rival->outcome.error.empty()) {
      say(result.rival->outcome.error);
      continue;
    }
    EXPECT_EQ(result.rival->outcome.check->mismatches, 0) << shape.m << "x" << shape.n << "x" << shape.k;
  }
}

TEST_F(BenchOnGpu, OtherConfigsAreTimedAndIllegalOnesSaid) {
  HarnessOptions options;
  options.regime = Regime::warm;
  options.all_configs = true;
  options.max_configs = 4;
  options.repeats = 3;
  GemmConfig illegal;
  illegal.tile_n = 17;
  options.configs = {illegal};
  Harness harness(*context_, options, say);
  const Shape shape{128, 1536, 2048};
  harness.compile({shape});
  const ShapeResult result = harness.run(shape);
  ASSERT_EQ(result.configs.size(), 4u);
  EXPECT_NE(result.configs[0].outcome.error, "");
  for (std::size_t i = 1; i < result.configs.size(); ++i) {
    const Outcome& outcome = result.configs[i].outcome;
    EXPECT_EQ(outcome.error, "") << result.configs[i].name;
    ASSERT_TRUE(outcome.check) << result.configs[i].name;
    EXPECT_EQ(outcome.check->mismatches, 0) << result.configs[i].name;
    EXPECT_GT(outcome.time_us.median, 1);
  }
  EXPECT_EQ(choices({result}).shapes, 1u);
}

}  // namespace
}  // namespace deep_gemm::bench
