// Every kind of kernel, not only those that the plan chooses.
#include <bit>

#include <deep_gemm/gemm/layout.cuh>

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
      if (config.split_k || config.ctas_per_sm > 1) continue;                   // below
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
    if (config.multicast != Multicast::none && (config.tile_n == 32 || config.tile_n == 112)) configs.push_back(config);
  check(configs, {tiny});
}

TEST_F(GemmConfigsTest, EverySplitOfKAndTwoCtasAnSm) {
  // Fewer steps than CTAs that split them, no multiple of them, none; rows that are fewer than a box has.
  const std::vector<Case> cases = {{.m = 130, .n = 520, .k = 1700, .seed = 1},
                                   {.m = 1, .n = 300, .k = 300, .seed = 2},
                                   {.m = 17, .n = is_fast() ? 2112 : 112, .k = 7168, .seed = 3},
                                   {.m = 65, .n = 40, .k = 0, .seed = 4},
                                   {.m = 64, .n = 300, .k = 900, .d = {.pitch = 301, .offset = 3}, .seed = 5}};
  std::vector<GemmConfig> configs;
  for (const GemmConfig& config : all(cases[0]))
    if (config.split_k || config.ctas_per_sm > 1) configs.push_back(config);
  EXPECT_GE(configs.size(), 25u);
  check(configs, cases);
}

TEST_F(GemmConfigsTest, EverySplitOfKInTheOtherForms) {
  Case f32{.m = 130, .n = 520, .k = 1700, .d_type = DType::f32}, accumulate = f32, in_place = f32, rows = f32;
  accumulate.accumulate = Accumulate::out_of_place;
  in_place.accumulate = Accumulate::in_place;
  rows.scale_rows_b = 1;
  for (const Case& c : {f32, accumulate, in_place, rows}) {
    std::vector<GemmConfig> configs;
    for (const GemmConfig& config : all(c))
      if (config.split_k && config.tile_n == 64) configs.push_back(config);
    EXPECT_GE(configs.size(), 4u);
    check(configs, {c});
  }
}

TEST_F(GemmConfigsTest, EveryTileWithScalesOfRowsOfB) {
  for (const DType type : {DType::bf16, DType::f32}) {
    Case c{.m = 300, .n = 520, .k = 700, .d_type = type, .scale_rows_b = 1};
    if (type == DType::f32) c.accumulate = Accumulate::in_place, c.scale_b = ScaleLayout::mn_aligned;
    std::vector<GemmConfig> configs;
    for (const GemmConfig& config : sample(c))
      if (type == DType::bf16 || config.tile_n % 48 == 0) configs.push_back(config);
    check(configs, {c});
  }
}

TEST_F(GemmConfigsTest, BatchInvariantRowsHaveTheSameBitsInAnyBatch) {
  // The first rows of the same operands, ever more of them: all kernels of this n and k meet; multicast, tiles and rounds
  // change.
  constexpr int64_t kRows = 8;
  for (const test::LayerShape& layer : {test::LayerShape{2112, 7168}, test::LayerShape{4096, 1536}}) {
    const int64_t most = is_fast() ? 4096 : 65;
    // BF16 hides the order of a few sums: few rows may not show it.
    const DType type = is_fast() ? DType::bf16 : DType::f32;
    Product product(context(), {.m = most, .n = layer.n, .k = layer.k, .d_type = type, .seed = 11});
    const auto first_rows = [&](int64_t m, const GemmOptions& options) {
      product.prepare();
      const Fp8Tensor a{product.tensor_a().data.rows(0, m), product.tensor_a().scale.rows(0, m)};
      fp8_gemm_nt(context(), a, product.tensor_b(), product.d().view().rows(0, m), options);
      product.finish();
      std::vector<std::vector<uint32_t>> rows(static_cast<std::size_t>(std::min(m, kRows)));
      for (std::size_t row = 0; row < rows.size(); ++row)
        for (int64_t col = 0; col < layer.n; ++col)
          rows[row].push_back(product.d().bits(static_cast<int64_t>(row), col));
      return rows;
    };
    const auto expected = first_rows(kRows, {.batch_invariant = true});
    bool differs_without = false;
    for (const int64_t m : {1, 2, 17, 64, 65, 128, 200, 512, 1000, 2048, 4096}) {
      if (m > most) break;
      const auto rows = first_rows(m, {.num_sms = m == 200 ? 66 : 0, .batch_invariant = true});
      for (std::size_t row = 0; row < rows.size(); ++row) EXPECT_TRUE(rows[row] == expected[row]) << "m " << m;
      differs_without |= first_rows(m, {})[0] != expected[0];
    }
    EXPECT_TRUE(differs_without || layer.n != 2112) << "nothing is split: the test shows nothing";
  }
}

TEST_F(GemmConfigsTest, EveryConfigThatDoesNotSplitKGivesTheSameBits) {
  const Case c{.m = 300, .n = 520, .k = 1700};
  std::vector<GemmConfig> configs;
  for (const GemmConfig& config : sample(c))
    if (config.tile_n % 32 == 0) configs.push_back(config);
  compile_ahead(context(), configs);
  Product product(context(), c);
  std::vector<std::byte> expected;
  for (const GemmConfig& config : configs) {
    product.run({.config = config});
    if (expected.empty()) expected = product.d().bytes();
    EXPECT_TRUE(product.d().bytes() == expected) << kernel_name(config);
  }
}

TEST_F(GemmConfigsTest, AThousandRunsOfASplitProductAreBitwiseEqual) {
  for (const Case& c : {Case{.m = 64, .n = 2112, .k = 7168}, Case{.m = 1, .n = 4096, .k = 7168}}) {
    Product product(context(), c);
    product.run();
    const std::vector<std::byte> expected = product.d().bytes();
    const cuda::OwnedStream stream, other;
    Product load(context(), {.m = 512, .n = 4096, .k = 512});
    for (int i = 0; i < 1000; ++i) {
      load.call({.stream = other});
      product.call({.stream = stream});
      if (i % 100 != 99) continue;
      cuda::synchronize(stream);
      product.d().download();
      ASSERT_TRUE(product.d().bytes() == expected) << "run " << i;
      product.d().poison();
    }
    cuda::synchronize(other);
  }
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

TEST_F(GemmConfigsTest, AKeptAmongManyTiles) {
  // CTAs that stay with their rows, and ones that change them with each tile; one block of k, a cut one, none; rows that are fewer
  // than a tile, and tiles moved up.
  const std::vector<Case> cases = {{.m = 1500, .n = 1900, .k = 512, .seed = 1},
                                   {.m = 641, .n = 1401, .k = 300, .seed = 2},
                                   {.m = 17, .n = 3000, .k = 128, .seed = 3},
                                   {.m = 300, .n = 520, .k = 0, .seed = 4},
                                   {.m = 300, .n = 520, .k = 500, .scale_a = ScaleLayout::none, .seed = 5},
                                   {.m = 300, .n = 520, .k = 500, .accumulate = Accumulate::out_of_place, .seed = 6}};
  for (const Case& c : cases) {
    std::vector<GemmConfig> configs;
    for (GemmConfig config : all(c)) {
      if (config.tile_m == 64 || config.split_k || config.ctas_per_sm > 1 || config.multicast == Multicast::a) continue;
      if (config.tile_n % 64 != 0 || (!is_fast() && config.tile_n > 128)) continue;
      config.kept_blocks = 4;
      for (config.stages = 4; config.stages > 2 && why_illegal(config); --config.stages) continue;
      if (!why_illegal(config)) configs.push_back(config);
    }
    EXPECT_GE(configs.size(), is_fast() ? 6u : 3u);
    compile_ahead(context(), configs);
    for (const GemmConfig& config : configs)
      for (const int num_sms : {2, 10, 0}) {
        if (!is_fast() && num_sms != 10) continue;
        Product(context(), c).check({.num_sms = num_sms, .config = config});
      }
  }
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
