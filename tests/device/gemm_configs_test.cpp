// Every kind of kernel, not only those that the plan chooses.
#include <bit>

#include "gemm/plan.h"
#include "gemm_support.h"

namespace deep_gemm::test {
namespace {

class GemmConfigsTest : public BackendTest {
 protected:
  GemmConfigsTest() : BackendTest(DeviceType::cuda) {}

  std::vector<GemmConfig> all(const Case& c) { return candidates(c.problem(), context().impl().plan_device); }

  /// Every tile_m × tile_n, with the ways to multicast in turn so that each meets each tile_m and each tile_n.
  std::vector<GemmConfig> sample(const Case& c) {
    std::vector<GemmConfig> chosen;
    for (const GemmConfig& config : all(c)) {
      const int column = std::bit_width(static_cast<unsigned>(config.tile_m));  // 7, 8, 9
      if (static_cast<int>(config.multicast) == (column + config.tile_n / 16) % 3) chosen.push_back(config);
    }
    return chosen;
  }
  void check(const std::vector<GemmConfig>& configs, const std::vector<Case>& cases) {
    compile_ahead(context(), configs);
    for (const GemmConfig& config : configs)
      for (const Case& c : cases) Product(context(), c).check({.config = config});
  }
};

/// In a grid of `c`'s tiles over m × n, one CTA of a cluster gets a tile beyond the edge.
bool has_outside_tile(const GemmConfig& config, const Case& c) {
  const auto tiles = [](int64_t extent, int tile) { return (extent + tile - 1) / tile; };
  return (config.multicast == Multicast::b && tiles(c.m, config.tile_m) % 2 == 1) ||
         (config.multicast == Multicast::a && tiles(c.n, config.tile_n) % 2 == 1);
}

TEST_F(GemmConfigsTest, EveryTile) {
  const std::vector<Case> cases = {{.m = 300, .n = 520, .k = 700, .seed = 1},
                                   {.m = 641, .n = 401, .k = 1000, .seed = 2}};
  const std::vector<GemmConfig> configs = sample(cases[0]);
  EXPECT_GE(configs.size(), 25u);
  for (const GemmConfig& config : configs)
    EXPECT_TRUE(config.cluster == 1 || has_outside_tile(config, cases[0]) || has_outside_tile(config, cases[1]))
        << kernel_name(config) << " never has a tile outside of D: change the shapes of this test";
  check(configs, cases);
}

TEST_F(GemmConfigsTest, EveryMulticastWithOneTileOfTwoOutside) {
  const Case tiny{.m = 17, .n = 9, .k = 300, .scale_a = ScaleLayout::k_major};
  std::vector<GemmConfig> configs;
  for (const GemmConfig& config : all(tiny))
    if (config.cluster > 1 && (config.tile_n == 32 || config.tile_n == 112)) configs.push_back(config);
  check(configs, {tiny});
}

TEST_F(GemmConfigsTest, F32AccumulateAndUnscaled) {
  const Case f32{.m = 300, .n = 520, .k = 700, .d_type = DType::f32};
  Case odd = f32, accumulate = f32, unscaled = f32, both{.m = 300, .n = 520, .k = 700};
  odd.d = {.pitch = 523, .offset = 1};
  accumulate.accumulate = Accumulate::in_place;
  unscaled.scale_a = ScaleLayout::none;
  both.accumulate = Accumulate::out_of_place, both.scale_a = both.scale_b = ScaleLayout::none;
  for (const std::vector<Case>& cases : {std::vector<Case>{f32, odd}, {accumulate}, {unscaled}, {both}}) {
    std::vector<GemmConfig> configs;
    for (const GemmConfig& config : sample(cases[0]))
      // The widths of a store's box: 128, 64 and 32 bytes.
      if (config.tile_n == 64 || config.tile_n == 80 || config.tile_n == 96) configs.push_back(config);
    check(configs, cases);
  }
}

TEST_F(GemmConfigsTest, PlainStoresOfEveryBox) {
  Case odd{.m = 300, .n = 520, .k = 200, .d = {.pitch = 521, .offset = 3}};
  std::vector<GemmConfig> configs;
  for (const GemmConfig& config : sample(odd))
    if (config.tile_n == 64 || config.tile_n == 80 || config.tile_n == 96) configs.push_back(config);
  check(configs, {odd});
}

TEST_F(GemmConfigsTest, FewStagesAndUnrolledLoops) {
  // Steps that are fewer than the stages, as many, and no multiple of them nor of the unrolling.
  std::vector<Case> cases;
  for (const int64_t k : {int64_t{128}, int64_t{256}, int64_t{257}, int64_t{1500}})
    cases.push_back({.m = 300, .n = 520, .k = k});
  std::vector<GemmConfig> configs;
  for (const int stages : {2, 3, 4})
    for (const int unroll : {1, 2, 4})
      configs.push_back({.tile_m = 128,
                         .tile_n = 112,
                         .stages = stages,
                         .cluster = unroll == 2 ? 2 : 1,
                         .multicast = unroll == 2 ? Multicast::b : Multicast::none,
                         .unroll = unroll});
  check(configs, cases);
}

TEST_F(GemmConfigsTest, ManyRoundsOfTiles) {
  // Small tiles on few SMs: rings wrap many times across tiles, rasters have several bands with a narrow last one.
  const Case c{.m = 1500, .n = 1900, .k = 300};
  std::vector<GemmConfig> configs;
  for (const GemmConfig& config : all(c))
    if (config.tile_m == 64 && config.tile_n == 48) configs.push_back(config);
  compile_ahead(context(), configs);
  for (const GemmConfig& config : configs)
    for (const int num_sms : {2, 10, 0}) Product(context(), c).check({.num_sms = num_sms, .config = config});
}

}  // namespace
}  // namespace deep_gemm::test
