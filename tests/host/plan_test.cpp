// The choice of a kernel: legal, deterministic, few kernels, and explained.
#include "gemm/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include <deep_gemm/gemm/layout.cuh>

#include "gemm/kernel_source.h"
#include "gemm_support.h"

namespace deep_gemm {
namespace {

/// A GPU that does not exist: everything about it differs from the presets.
DeviceInfo made_up() {
  return {.name = "made up",
          .num_sms = 20,
          .smem_bytes = 100 * 1024,
          .l2_bytes = 4 << 20,
          .clock_ghz = 0.9,
          .hbm_gbytes_per_s = 300,
          .max_clusters_of_2 = 7,
          .max_clusters_of_4 = 3};  // and none of 8
}
std::vector<DeviceInfo> devices() { return {DeviceInfo::h100(), DeviceInfo::h200(), DeviceInfo::h800(), made_up()}; }

/// All small m, then ever sparser ones with their neighbours, up to 16384.
std::vector<int64_t> row_counts() {
  std::vector<int64_t> counts;
  for (int64_t m = 1; m < 40; ++m) counts.push_back(m);
  for (int64_t m = 40; m < 16384; m += m / 8) counts.push_back(m);
  for (int64_t m = 64; m <= 16384; m *= 4)
    for (const int64_t near : {m - 1, m, m + 1}) counts.push_back(near);
  return counts;
}

std::string text(const Problem& p, const DeviceInfo& device) {
  return fmt::format("{} x {} x {} on {}, num_sms {}", p.m, p.n, p.k, device.name, p.num_sms);
}

void expect_launchable(const GemmPlan& plan, const Problem& p, const DeviceInfo& device) {
  const std::string where = text(p, device) + ": " + kernel_name(plan.config);
  EXPECT_EQ(why_illegal(plan.config, p, device), nullptr) << where;
  const int sms = p.num_sms > 0 ? std::min(p.num_sms, device.num_sms) : device.num_sms;
  EXPECT_LE(plan.grid, sms * plan.config.ctas_per_sm) << where;
  EXPECT_EQ(plan.grid % plan.config.cluster, 0) << where;
  const int fit = plan.config.cluster == 1   ? sms
                  : plan.config.cluster == 2 ? device.max_clusters_of_2
                  : plan.config.cluster == 4 ? device.max_clusters_of_4
                                             : device.max_clusters_of_8;
  EXPECT_LE(plan.grid / plan.config.cluster, fit * plan.config.ctas_per_sm) << where;
  EXPECT_EQ(plan.grid > 0, p.m > 0 && p.n > 0) << where;
  EXPECT_EQ(plan.block_threads, static_cast<int>(num_threads(plan.config))) << where;
  EXPECT_EQ(plan.smem_bytes, static_cast<int>(smem_layout(plan.config).bytes)) << where;
  EXPECT_LE(plan.smem_bytes, device.smem_bytes) << where;
  EXPECT_GE(plan.raster_tiles, 1) << where;
  EXPECT_FALSE(plan.reason.empty()) << where;
  EXPECT_EQ(plan.reason.find('\n'), std::string::npos) << where;
  EXPECT_TRUE(std::isfinite(plan.estimate_us) && plan.estimate_us >= 0) << where;
}

TEST(Plan, AtMostEightKernelsForALayerOverAllRows) {
  for (const DeviceInfo& device : devices())
    for (const test::LayerShape& layer : test::kDeepSeekLayers) {
      Problem p{.n = layer.n, .k = layer.k};
      const std::vector<GemmConfig> kernels = kernels_for(p, device);
      EXPECT_GE(kernels.size(), 1u) << text(p, device);
      EXPECT_LE(kernels.size(), 8u) << text(p, device);
      for (const int64_t m : row_counts()) {
        p.m = m;
        const GemmPlan chosen = plan(p, device);
        expect_launchable(chosen, p, device);
        EXPECT_NE(std::find(kernels.begin(), kernels.end(), chosen.config), kernels.end())
            << text(p, device) << ": " << kernel_name(chosen.config) << " is not one of kernels_for";
      }
    }
}

TEST(Plan, DoesNotDependOnRowsAskedBefore) {
  for (const int64_t m : {1, 64, 4096}) {
    Problem p{.m = m, .n = 4096, .k = 7168};
    const std::vector<GemmConfig> kernels = kernels_for(p, DeviceInfo::h100());
    p.m = 0;
    EXPECT_EQ(kernels_for(p, DeviceInfo::h100()), kernels) << m;
  }
}

TEST(Plan, TheSameArgumentsGiveTheSamePlan) {
  for (const DeviceInfo& device : devices())
    for (const int64_t m : {1, 77, 4096}) {
      const Problem p{.m = m, .n = 7168, .k = 2048};
      const GemmPlan first = plan(p, device), second = plan(p, device);
      EXPECT_EQ(first.config, second.config);
      EXPECT_EQ(first.reason, second.reason);
      EXPECT_EQ(first.grid, second.grid);
      EXPECT_EQ(first.raster_tiles, second.raster_tiles);
      ASSERT_EQ(first.runners_up.size(), second.runners_up.size());
      for (std::size_t i = 0; i < first.runners_up.size(); ++i)
        EXPECT_EQ(first.runners_up[i].config, second.runners_up[i].config);
    }
}

TEST(Plan, RunnersUpAreTheOtherKernelsFromBestToWorst) {
  for (const DeviceInfo& device : devices())
    for (const int64_t m : {1, 64, 300, 4096}) {
      const Problem p{.m = m, .n = 2112, .k = 7168};
      const GemmPlan chosen = plan(p, device);
      EXPECT_EQ(chosen.runners_up.size() + 1, kernels_for(p, device).size()) << text(p, device);
      double last = chosen.estimate_us;
      for (const PlanCandidate& other : chosen.runners_up) {
        EXPECT_GE(other.estimate_us, last) << text(p, device);
        EXPECT_FALSE(other.config == chosen.config) << text(p, device);
        last = other.estimate_us;
      }
    }
}

TEST(Plan, StrangeExtentsHavePlansToo) {
  constexpr int64_t kMost = 2147483647;
  for (const DeviceInfo& device : devices())
    for (const int64_t m : {int64_t{0}, int64_t{1}, int64_t{17}, kMost})
      for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{129}, kMost})
        for (const int64_t k : {int64_t{0}, int64_t{1}, int64_t{130}, kMost}) {
          if ((m == kMost) + (n == kMost) + (k == kMost) > 1) continue;
          const Problem p{.m = m, .n = n, .k = k};
          expect_launchable(plan(p, device), p, device);
        }
}

TEST(Plan, EveryVariantHasItsKernels) {
  for (const DeviceInfo& device : devices())
    for (const DType type : {DType::bf16, DType::f32})
      for (const bool scaled : {true, false})
        for (const bool accumulate : {true, false}) {
          const Problem p{.m = 300, .n = 520, .k = 700, .d_type = type, .scaled_a = scaled, .accumulate = accumulate};
          const GemmPlan chosen = plan(p, device);
          expect_launchable(chosen, p, device);
          EXPECT_EQ(chosen.config.d_type, type);
          EXPECT_EQ(chosen.config.scaled_a, scaled);
          EXPECT_EQ(chosen.config.accumulate, accumulate);
        }
}

TEST(Plan, EveryOperandFormHasItsKernels) {
  for (const DeviceInfo& device : devices())
    for (const Layout layout : {Layout::dense, Layout::contiguous, Layout::offsets, Layout::masked, Layout::k_grouped})
      for (const DType a_type : {DType::e4m3, DType::e5m2})
        for (const int scale_rows_b : {1, 128}) {
          const bool experts = layout != Layout::dense && layout != Layout::k_grouped;
          if (experts && scale_rows_b == 1) continue;
          Problem p{.m = 300, .n = 520, .k = 700, .a_type = a_type, .scale_rows_b = scale_rows_b, .layout = layout};
          if (layout != Layout::dense) p.groups = 3, p.expected_m = 100;
          if (layout == Layout::k_grouped) p.accumulate = true, p.d_type = DType::f32;
          const GemmPlan chosen = plan(p, device);
          expect_launchable(chosen, p, device);
          EXPECT_EQ(chosen.config.layout, layout);
          EXPECT_EQ(chosen.config.a_type, a_type);
          EXPECT_EQ(chosen.config.b_type, DType::e4m3);
          EXPECT_EQ(chosen.config.scale_rows_b, scale_rows_b);
        }
}

TEST(Plan, BatchInvariantProductsAreNeverSplit) {
  for (const DeviceInfo& device : devices())
    for (const test::LayerShape& layer : test::kDeepSeekLayers) {
      bool splits = false;
      for (const int64_t m : row_counts()) {
        Problem p{.m = m, .n = layer.n, .k = layer.k};
        splits |= plan(p, device).config.split_k;
        p.batch_invariant = true;
        EXPECT_FALSE(plan(p, device).config.split_k) << text(p, device);
      }
      EXPECT_TRUE(splits || device.name != DeviceInfo::h100().name || layer.n != 2112) << "the rule has no effect";
    }
}

TEST(Plan, KGroupedProductsOfAnyDepthShareAKernel) {
  Problem p{.m = 7168, .n = 4096, .d_type = DType::f32, .accumulate = true, .scale_rows_b = 1};
  p.layout = Layout::k_grouped, p.groups = 4, p.k = 128;
  const GemmConfig config = plan(p, DeviceInfo::h100()).config;
  for (p.k = 0; p.k < 20000; p.k += 777) EXPECT_EQ(plan(p, DeviceInfo::h100()).config, config) << p.k;
}

TEST(Plan, AHintForSeveralGroupsIsTheirMean) {
  const GemmConfig tall{.layout = Layout::masked, .tile_m = 256, .stages = 3};
  const auto cost_of_filling = [&](int64_t groups) {
    Problem p{.m = 4096, .n = 4096, .k = 7168, .layout = Layout::masked};
    p.groups = groups;
    p.expected_m = 190;  // 1.3 times that still fits one tile
    const double below = estimate_us(tall, p, DeviceInfo::h100());
    p.expected_m = 256;
    return estimate_us(tall, p, DeviceInfo::h100()) / below;
  };
  EXPECT_LT(cost_of_filling(1), 1.05);
  EXPECT_GT(cost_of_filling(8), 1.3);
}

TEST(Plan, AHintOfAnyNumberOfRowsIsEstimatedAtOnce) {
  Problem p{.m = INT32_MAX, .n = 4096, .k = 7168, .layout = Layout::masked, .groups = 256, .expected_m = INT32_MAX};
  const DeviceInfo device = DeviceInfo::h100();
  const double all = estimate_us({.layout = Layout::masked}, p, device);
  p.expected_m /= 2;
  EXPECT_NEAR(estimate_us({.layout = Layout::masked}, p, device) / all, 0.5, 0.01);
}

TEST(Plan, TilesThatShareRowsOfBRunAtTheSameTime) {
  const DeviceInfo h100 = DeviceInfo::h100();
  const auto raster = [&](const Problem& p, int tile_m) {
    return plan(p, h100, GemmConfig{.layout = p.layout, .tile_m = tile_m, .stages = 3}).raster_tiles;
  };
  Problem experts{.m = 4096, .n = 4096, .k = 7168, .layout = Layout::masked};
  experts.groups = 4, experts.expected_m = 256;
  EXPECT_EQ(raster(experts, 128), 1);
  experts.layout = Layout::offsets, experts.m = 4 * 256;
  EXPECT_EQ(raster(experts, 128), 1);
  experts.layout = Layout::contiguous, experts.groups = 8;  // a tile each
  EXPECT_EQ(raster(experts, 128), 4096 / 128);
  EXPECT_EQ(raster({.m = 4096, .n = 24576, .k = 1536}, 256), 132 / 16);  // A stays in L2: whole columns of 16 tiles
}

TEST(Plan, StreamsBWhereThoseWhoNeedItAskAtOnce) {
  const auto streams = [](Problem p, GemmConfig c, int num_sms = 0) {
    p.num_sms = num_sms;
    c.layout = p.layout, c.d_type = p.d_type, c.accumulate = p.accumulate;
    return plan(p, DeviceInfo::h100(), c).stream_b;
  };
  const GemmConfig square{.tile_m = 128, .tile_n = 128, .stages = 3};
  EXPECT_TRUE(streams({.m = 512, .n = 4096, .k = 7168}, square));       // 128 tiles for 132 SMs
  EXPECT_TRUE(streams({.m = 1024, .n = 4096, .k = 7168}, square));      // two rounds
  EXPECT_FALSE(streams({.m = 1152, .n = 4096, .k = 7168}, square));     // three
  EXPECT_FALSE(streams({.m = 512, .n = 4096, .k = 7168}, square, 60));  // on fewer SMs
  EXPECT_TRUE(streams({.m = 128, .n = 24576, .k = 1536}, square, 60));  // each tile has a B of its own
  EXPECT_TRUE(streams({.m = 128, .n = 7168, .k = 16384}, square));
  EXPECT_FALSE(streams({.m = 128, .n = 129280, .k = 7168}, square));  // 18 times as large as L2
  Problem experts{.m = 1024, .n = 4096, .k = 7168, .layout = Layout::masked, .groups = 4, .expected_m = 128};
  EXPECT_TRUE(streams(experts, square));
  experts.expected_m = 320;
  EXPECT_TRUE(streams(experts, square));  // some twelve rows of 32 tiles, but those of a column together
  experts.m = experts.expected_m = 16384;
  EXPECT_FALSE(streams(experts, square));
  experts.expected_m = 20, experts.groups = 32;
  EXPECT_FALSE(streams(experts, square));
  EXPECT_FALSE(streams(
      {.m = 128, .n = 128, .k = 512, .d_type = DType::f32, .accumulate = true, .layout = Layout::k_grouped}, square));
}

TEST(Plan, KeepsAWhereKIsShortAndRowsAreMany) {
  const DeviceInfo h100 = DeviceInfo::h100();
  const GemmPlan kept = plan({.m = 8192, .n = 32768, .k = 512}, h100);
  EXPECT_EQ(kept.config.kept_blocks, 4);
  EXPECT_EQ(kept.grid, kept.raster_tiles * 8192 / kept.config.tile_m)
      << "the grid is one band: a CTA stays with its rows";
  EXPECT_LE(kept.grid, 132);
  EXPECT_EQ(plan({.m = 4096, .n = 32768, .k = 400}, h100).config.kept_blocks, 4);
  EXPECT_EQ(plan({.m = 64, .n = 32768, .k = 512}, h100).config.kept_blocks, 0);
  for (const GemmConfig& c : candidates({.m = 8192, .n = 32768, .k = 513}, h100)) EXPECT_EQ(c.kept_blocks, 0);
  // More rows of tiles than SMs, and fewer SMs than a band has tiles.
  for (const auto& [m, num_sms] : {std::pair{int64_t{20000}, 0}, std::pair{int64_t{8192}, 20}}) {
    const GemmPlan few = plan({.m = m, .n = 32768, .k = 512, .num_sms = num_sms}, h100, kept.config);
    EXPECT_EQ(few.grid, num_sms > 0 ? num_sms : 132);
  }
}

TEST(Plan, AsksMemoryForNoMoreThanAStreamedLineLivesFor) {
  const auto bytes = [](int64_t m, int64_t n, int64_t k, const GemmConfig& c) {
    return plan({.m = m, .n = n, .k = k}, DeviceInfo::h100(), c).b_fetch_bytes;
  };
  EXPECT_EQ(bytes(64, 4096, 7168, {.tile_m = 64, .tile_n = 64, .stages = 3, .ctas_per_sm = 2}), 256);
  EXPECT_EQ(bytes(64, 4096, 7168, {.tile_m = 64, .tile_n = 128, .stages = 3, .ctas_per_sm = 2}), 128);
  EXPECT_EQ(bytes(256, 4096, 7168, {.tile_m = 64, .tile_n = 64, .stages = 3}), 128);
  EXPECT_EQ(bytes(64, 129280, 7168, {.tile_m = 64, .tile_n = 128, .stages = 3, .ctas_per_sm = 2}),
            256);  // not streamed
}

TEST(Plan, KernelsOfContiguousGroupsSuitEachGroupsRows) {
  const DeviceInfo h100 = DeviceInfo::h100();
  for (const int64_t groups : {4, 8, 64}) {
    const Problem p{.m = groups * 384, .n = 1536, .k = 4096, .layout = Layout::contiguous, .groups = groups};
    double best = plan(p, h100).estimate_us;
    for (const GemmConfig& c : candidates(p, h100)) best = std::min(best, estimate_us(c, p, h100));
    EXPECT_LT(plan(p, h100).estimate_us, 1.02 * best) << groups;
  }
}

TEST(Plan, RespectsTheNumberOfSms) {
  for (const DeviceInfo& device : devices())
    for (const int num_sms : {1, 2, 3, 7, 19, 66, 131, 132, 133, 1000})
      for (const int64_t m : {1, 130, 4096}) {
        const Problem p{.m = m, .n = 4096, .k = 7168, .num_sms = num_sms};
        expect_launchable(plan(p, device), p, device);
      }
}

TEST(Plan, FewerSmsThatHoldAClusterNeedNoOtherKernels) {
  for (const DeviceInfo& device : devices())
    for (const test::LayerShape& layer : test::kDeepSeekLayers) {
      Problem p{.n = layer.n, .k = layer.k};
      const std::vector<GemmConfig> kernels = kernels_for(p, device);
      for (p.num_sms = 2; p.num_sms <= device.num_sms; p.num_sms += 13) {
        EXPECT_EQ(kernels_for(p, device), kernels) << text(p, device);
        for (const int64_t m : {1, 300, 8192}) {
          p.m = m;
          EXPECT_NE(std::find(kernels.begin(), kernels.end(), plan(p, device).config), kernels.end())
              << text(p, device);
        }
      }
    }
}

TEST(Plan, CandidatesAreLegalAndDistinct) {
  for (const DeviceInfo& device : devices()) {
    const Problem p{.m = 300, .n = 520, .k = 700};
    const std::vector<GemmConfig> all = candidates(p, device);
    EXPECT_GE(all.size(), 20u) << device.name;
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(why_illegal(all[i], p, device), nullptr) << kernel_name(all[i]);
      EXPECT_EQ(std::count(all.begin(), all.end(), all[i]), 1) << kernel_name(all[i]);
    }
  }
}

/// Kernels are chosen at some numbers of rows, and those between must not lack one: without 640 and 1280 among them the best of
/// the eight was 10 and 12 % behind, by estimate.
TEST(Plan, TheFewKernelsSuitRowsAsWellAsAnyWould) {
  const DeviceInfo h100 = DeviceInfo::h100();
  for (const int64_t m : {640, 1280}) {
    const Problem p{.m = m, .n = 4096, .k = 14336};
    double best = INFINITY;
    for (const GemmConfig& c : candidates(p, h100)) best = std::min(best, estimate_us(c, p, h100));
    const GemmPlan chosen = plan(p, h100);
    EXPECT_LT(chosen.estimate_us, 1.02 * best) << text(p, h100) << ": " << kernel_name(chosen.config);
  }
}

TEST(Plan, TakesALegalConfigAsGiven) {
  const Problem p{.m = 300, .n = 520, .k = 700};
  for (const GemmConfig& config : candidates(p, made_up())) {
    const GemmPlan given = plan(p, made_up(), config);
    EXPECT_EQ(given.config, config);
    EXPECT_TRUE(given.runners_up.empty());
    expect_launchable(given, p, made_up());
  }
}

void expect_rejected(const Problem& p, const DeviceInfo& device, const std::optional<GemmConfig>& config,
                     std::initializer_list<const char*> texts) {
  try {
    plan(p, device, config);
    ADD_FAILURE() << text(p, device) << (config ? kernel_name(*config) : "") << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    for (const char* part : texts) EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Plan, IllegalConfigsAreErrorsThatSayWhy) {
  const Problem p{.m = 300, .n = 520, .k = 700};
  const DeviceInfo h100 = DeviceInfo::h100();
  expect_rejected(p, h100, GemmConfig{.tile_m = 100}, {"plan", "100x128", "300", "520", "700", "tile_m"});
  expect_rejected(p, h100, GemmConfig{.stages = 30}, {"shared memory"});
  expect_rejected(p, h100, GemmConfig{.d_type = DType::f32}, {"d_type"});
  expect_rejected(p, h100, GemmConfig{.scaled_a = false}, {"scaled_a"});
  expect_rejected(p, h100, GemmConfig{.accumulate = true}, {"accumulate"});
  expect_rejected(p, h100, GemmConfig{.cluster = 2}, {"multicast"});
  expect_rejected(p, h100, GemmConfig{.tile_n = 256, .stages = 3, .kept_blocks = 4}, {"kept_blocks"});
  expect_rejected(p, h100, GemmConfig{.a_type = DType::e5m2}, {"a_type"});
  expect_rejected(p, h100, GemmConfig{.scale_rows_b = 1}, {"scale_rows_b"});
  const GemmConfig split{.tile_m = 64, .stages = 2, .cluster = 8, .split_k = true};
  EXPECT_EQ(why_illegal(split, p, h100), nullptr);
  expect_rejected(p, made_up(), split, {"cluster"});
  Problem invariant = p;
  invariant.batch_invariant = true;
  expect_rejected(invariant, h100, split, {"batch"});
  Problem one_sm = p;
  one_sm.num_sms = 1;
  expect_rejected(one_sm, h100, GemmConfig{.cluster = 2, .multicast = Multicast::a}, {"cluster"});
  expect_rejected(p, made_up(), GemmConfig{.stages = 6}, {"shared memory"});
}

TEST(Plan, DevicesWithoutRoomForAnyKernelAreErrors) {
  DeviceInfo tiny = made_up();
  tiny.smem_bytes = 1024;
  expect_rejected({.m = 300, .n = 520, .k = 700}, tiny, {}, {"plan", "made up", "1024", "more shared memory"});
}

TEST(Plan, ProblemsThatNoKernelSolvesAreErrorsThatSayWhy) {
  const DeviceInfo h100 = DeviceInfo::h100();
  const auto rejected = [&](const Problem& p, const char* why) { expect_rejected(p, h100, {}, {"plan", why}); };
  rejected({.m = 1, .n = 2, .k = 3, .a_type = DType::bf16}, "a_type must be e4m3 or e5m2");
  rejected({.m = 1, .n = 2, .k = 3, .d_type = DType::i32}, "d_type must be bf16 or f32");
  rejected({.m = 1, .n = 2, .k = 3, .scale_rows_b = 5}, "scale_rows_b must be 1 or 128");
  rejected({.m = 1, .n = 2, .k = 3, .accumulate = true, .layout = Layout::masked}, "experts");
  rejected({.m = 1, .n = 2, .k = 3, .layout = Layout::k_grouped}, "k_grouped accumulates into f32");
}

TEST(Plan, KnownDevicesGetTheRatesOfTheirPreset) {
  DeviceInfo found = DeviceInfo::h200();
  found.clock_ghz = 1.98, found.hbm_gbytes_per_s = 1, found.max_clusters_of_2 = 1;
  EXPECT_EQ(known_device(found), DeviceInfo::h200());
  found.num_sms = 100;
  EXPECT_EQ(known_device(found), found);
  EXPECT_EQ(known_device(made_up()), made_up());
}

}  // namespace
}  // namespace deep_gemm
