// The benchmark's statistics, and how CUPTI's records are shared out among calls.
#include <algorithm>
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "bench/regime.h"
#include "bench/stats.h"
#include "bench/timer.h"

namespace deep_gemm::bench {
namespace {

TEST(BenchStats, PercentilesInterpolate) {
  const std::vector<double> sorted{1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(percentile(sorted, 0), 1);
  EXPECT_DOUBLE_EQ(percentile(sorted, 1), 8);
  EXPECT_DOUBLE_EQ(percentile(sorted, 0.5), 3);
  EXPECT_DOUBLE_EQ(percentile(sorted, 1.0 / 3), 2);
  EXPECT_DOUBLE_EQ(percentile(sorted, 0.9), 6.8);
  EXPECT_DOUBLE_EQ(percentile(std::vector{5.0}, 0.9), 5);
}

TEST(BenchStats, SummaryOfKnownSamples) {
  const Stats stats = summarize({5, 1, 3, 2, 100});
  EXPECT_EQ(stats.count, 5);
  EXPECT_DOUBLE_EQ(stats.median, 3);
  EXPECT_DOUBLE_EQ(stats.min, 1);
  EXPECT_DOUBLE_EQ(stats.max, 100);
  EXPECT_DOUBLE_EQ(stats.p10, 1.4);
  EXPECT_DOUBLE_EQ(stats.p90, 62);
  EXPECT_DOUBLE_EQ(stats.mad, 2);
  EXPECT_DOUBLE_EQ(stats.mean, 22.2);
}

TEST(BenchStats, NoSampleIsAllZero) {
  const Stats stats = summarize({});
  EXPECT_EQ(stats.count, 0);
  EXPECT_EQ(stats.median, 0);
  EXPECT_EQ(stats.max, 0);
}

TEST(BenchStats, SummaryDoesNotDependOnOrder) {
  std::mt19937 random(7);
  std::vector<double> samples(101);
  for (double& x : samples) x = std::uniform_real_distribution(1.0, 9.0)(random);
  const Stats one = summarize(samples);
  std::shuffle(samples.begin(), samples.end(), random);
  const Stats two = summarize(samples);
  EXPECT_EQ(one.median, two.median);
  EXPECT_EQ(one.mad, two.mad);
  EXPECT_NEAR(one.mean, two.mean, 1e-12);
  std::sort(samples.begin(), samples.end());
  EXPECT_EQ(one.median, samples[50]);
  EXPECT_EQ(one.p10, samples[10]);
}

TEST(BenchStats, GeometricMean) {
  EXPECT_DOUBLE_EQ(geometric_mean(std::vector{2.0, 8.0}), 4);
  EXPECT_DOUBLE_EQ(geometric_mean(std::vector{1.08}), 1.08);
  EXPECT_EQ(geometric_mean(std::vector<double>{}), 0);
}

TEST(BenchTimer, RecordsAreSplitAtMarkers) {
  // In the order in which CUPTI may hand them over: any. Times in ns.
  std::vector<KernelRecord> records{
      {0, 1000, "before the first marker"}, {2000, 2500, kMarkerKernel},
      {3000, 90000, kFlushKernel},          {90000, 100000, "gemm"},
      {101000, 103000, "reduce"},           {103000, 104000, "reduce"},
      {105000, 105500, kMarkerKernel},      {106000, 116500, "gemm"},
      {120000, 120500, kMarkerKernel},
  };
  std::shuffle(records.begin(), records.end(), std::mt19937(3));
  const std::vector<CallTime> calls = split_at_markers(records);
  ASSERT_EQ(calls.size(), 3u);
  EXPECT_DOUBLE_EQ(calls[0].kernel_us, 13);
  EXPECT_DOUBLE_EQ(calls[0].span_us, 14);
  EXPECT_EQ(calls[0].kernels, 3);
  EXPECT_EQ(calls[0].names, (std::vector<std::string>{"gemm", "reduce"}));
  EXPECT_DOUBLE_EQ(calls[1].kernel_us, 10.5);
  EXPECT_EQ(calls[1].kernels, 1);
  EXPECT_EQ(calls[2].kernels, 0);  // what the timer takes for lost records
  EXPECT_TRUE(split_at_markers({{0, 1, "gemm"}}).empty());
}

TEST(BenchTimer, OverlappingKernelsSpanFromFirstStartToLastEnd) {
  const std::vector<CallTime> calls =
      split_at_markers({{0, 10, kMarkerKernel}, {1000, 9000, "long"}, {2000, 4000, "short"}});
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_DOUBLE_EQ(calls[0].kernel_us, 10);
  EXPECT_DOUBLE_EQ(calls[0].span_us, 8);
}

TEST(BenchRegime, NamesRoundTrip) {
  for (Regime regime : kRegimes) EXPECT_EQ(regime_of(name_of(regime)), regime);
  EXPECT_FALSE(regime_of("hot"));
  EXPECT_FALSE(regime_of(""));
}

}  // namespace
}  // namespace deep_gemm::bench
