// The shared-memory map and the other numbers that follow from a config, for every legal config.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include <deep_gemm/gemm/layout.cuh>

#include "gemm/kernel_source.h"

namespace deep_gemm {
namespace {

/// Every legal combination, with the fewest and the most stages and all between.
const std::vector<GemmConfig>& legal_configs() {
  static const std::vector<GemmConfig> kConfigs = [] {
    std::vector<GemmConfig> configs;
    for (const DType type : {DType::bf16, DType::f32})
      for (const bool scaled : {true, false})
        for (const int tile_m : {64, 128, 256})
          for (int tile_n = 8; tile_n <= 264; tile_n += 8)
            for (const Multicast multicast : {Multicast::none, Multicast::a, Multicast::b})
              for (int stages = 1; stages <= 33; ++stages) {
                const GemmConfig c{.d_type = type,
                                   .scaled_a = scaled,
                                   .tile_m = tile_m,
                                   .tile_n = tile_n,
                                   .stages = stages,
                                   .cluster = multicast == Multicast::none ? 1 : 2,
                                   .multicast = multicast};
                if (why_illegal(c) == nullptr) configs.push_back(c);
                // The rarer kinds with one type of D each.
                GemmConfig other = c;
                other.scale_rows_b = 1;
                if (type == DType::f32 && why_illegal(other) == nullptr) configs.push_back(other);
                other = c;
                other.ctas_per_sm = 2;
                if (type == DType::bf16 && why_illegal(other) == nullptr) configs.push_back(other);
                other.split_k = true;
                for (const int cluster : {2, 4, 8})
                  for (const int ctas_per_sm : {1, 2}) {
                    other.cluster = cluster, other.ctas_per_sm = ctas_per_sm;
                    if (scaled && why_illegal(other) == nullptr) configs.push_back(other);
                  }
              }
    return configs;
  }();
  return kConfigs;
}

TEST(Layout, ManyConfigsAreLegal) {
  std::set<std::pair<int, int>> tiles;
  for (const GemmConfig& c : legal_configs()) tiles.insert({c.tile_m, c.tile_n});
  EXPECT_GE(tiles.size(), 30u);
  for (const int tile_n : {112, 144, 160, 192}) EXPECT_TRUE(tiles.contains({128, tile_n})) << tile_n;
}

TEST(Layout, IllegalConfigsSayWhy) {
  const auto why = [](const GemmConfig& c) {
    const char* reason = why_illegal(c);
    return std::string(reason ? reason : "legal");
  };
  const GemmConfig good{};
  EXPECT_EQ(why(good), "legal");
  const auto with = [&](auto change) {
    GemmConfig c = good;
    change(c);
    return why(c);
  };
  using C = GemmConfig;
  EXPECT_NE(with([](C& c) { c.d_type = DType::f16; }).find("d_type"), std::string::npos);
  for (const int tile_m : {0, 32, 96, 192, 512, -64})
    EXPECT_NE(with([&](C& c) { c.tile_m = tile_m; }).find("tile_m"), std::string::npos) << tile_m;
  for (const int tile_n : {0, 8, 24, 272, -16})
    EXPECT_NE(with([&](C& c) { c.tile_n = tile_n; }).find("tile_n"), std::string::npos) << tile_n;
  for (const int stages : {-1, 0, 1, 33})
    EXPECT_NE(with([&](C& c) { c.stages = stages; }).find("stages"), std::string::npos) << stages;
  for (const int unroll : {-1, 0, 9})
    EXPECT_NE(with([&](C& c) { c.unroll = unroll; }).find("unroll"), std::string::npos);
  for (const int cluster : {-1, 0, 3, 4, 16})
    EXPECT_NE(with([&](C& c) { c.cluster = cluster; }).find("cluster"), std::string::npos) << cluster;
  EXPECT_NE(with([](C& c) { c.cluster = 2; }).find("multicast"), std::string::npos);
  EXPECT_NE(with([](C& c) { c.multicast = Multicast::a; }).find("multicast"), std::string::npos);
  const auto split = [](C& c) { c.cluster = 4, c.split_k = true; };
  EXPECT_EQ(with(split), "legal");
  EXPECT_NE(with([](C& c) { c.split_k = true; }).find("split_k"), std::string::npos);
  EXPECT_NE(with([&](C& c) { split(c), c.multicast = Multicast::a; }).find("split_k"), std::string::npos);
  EXPECT_NE(with([&](C& c) { split(c), c.tile_n = 32; }).find("16 columns"), std::string::npos);
  EXPECT_NE(with([&](C& c) { split(c), c.cluster = 3; }).find("cluster"), std::string::npos);
  for (const int ctas : {0, 3})
    EXPECT_NE(with([&](C& c) { c.ctas_per_sm = ctas; }).find("ctas_per_sm"), std::string::npos);
  EXPECT_NE(with([](C& c) { c.ctas_per_sm = 2, c.tile_m = 256; }).find("ctas_per_sm"), std::string::npos);
  for (const int rows : {0, 2, 64})
    EXPECT_NE(with([&](C& c) { c.scale_rows_b = rows; }).find("scale_rows_b"), std::string::npos);
  EXPECT_NE(with([](C& c) { c.a_type = DType::bf16; }).find("a_type"), std::string::npos);
  EXPECT_NE(with([](C& c) { c.b_type = DType::bf16; }).find("b_type"), std::string::npos);
  EXPECT_NE(with([](C& c) { c.layout = Layout::k_grouped; }).find("k_grouped"), std::string::npos);
  EXPECT_NE(with([](C& c) { c.layout = Layout::masked, c.scale_rows_b = 1; }).find("experts"), std::string::npos);
  EXPECT_NE(with([](C& c) { c.tile_m = 256, c.tile_n = 160; }).find("registers"), std::string::npos);
  EXPECT_NE(with([](C& c) { c.stages = 32; }).find("shared memory"), std::string::npos);
  EXPECT_NE(why_illegal(good, 100 * 1024), nullptr);
}

TEST(Layout, RegionsAreDisjointAlignedAndFit) {
  for (const GemmConfig& c : legal_configs()) {
    const SmemLayout s = smem_layout(c);
    const auto stages = static_cast<uint32_t>(c.stages);
    struct Region {
      uint32_t begin, bytes;
    };
    std::vector<Region> regions = {{s.a, stages * a_stage_bytes(c)},
                                   {s.b, stages * b_stage_bytes(c)},
                                   {s.d, panel_slots(c) * panel_bytes(c)},
                                   {s.parts, parts_bytes(c)},
                                   {s.scale_a, stages * scale_a_stage_bytes(c)},
                                   {s.scale_b, stages * scale_b_stage_bytes(c)},
                                   {s.full, stages * 8},
                                   {s.empty, stages * 8},
                                   {s.d_full, panel_slots(c) * 8},
                                   {s.d_empty, panel_slots(c) * 8},
                                   {s.parts_full, 8},
                                   {s.parts_empty, 8}};
    std::sort(regions.begin(), regions.end(), [](const Region& x, const Region& y) {
      return std::pair(x.begin, x.bytes) < std::pair(y.begin, y.bytes);
    });
    for (std::size_t i = 0; i < regions.size(); ++i)
      ASSERT_LE(regions[i].begin + regions[i].bytes, i + 1 < regions.size() ? regions[i + 1].begin : s.bytes)
          << kernel_name(c) << " region " << i;
    ASSERT_LE(c.ctas_per_sm * (s.bytes + kSmemBytesReserved), kSmemBytesOfSm) << kernel_name(c);
    ASSERT_EQ(s.parts % 16, 0u) << kernel_name(c);
    for (uint32_t stage = 0; stage < stages; ++stage) {
      ASSERT_EQ((s.a + stage * a_stage_bytes(c)) % 1024, 0u) << kernel_name(c) << " stage " << stage;
      ASSERT_EQ((s.b + stage * b_stage_bytes(c)) % 1024, 0u) << kernel_name(c) << " stage " << stage;
      // TMA writes them.
      ASSERT_EQ((s.scale_a + stage * scale_a_stage_bytes(c)) % 128, 0u) << kernel_name(c) << " stage " << stage;
      ASSERT_EQ((s.scale_b + stage * scale_b_stage_bytes(c)) % 128, 0u) << kernel_name(c) << " stage " << stage;
    }
    for (const uint32_t barriers : {s.full, s.empty, s.d_full, s.d_empty, s.parts_full, s.parts_empty})
      ASSERT_EQ(barriers % 8, 0u) << kernel_name(c);
  }
}

TEST(Layout, PanelsDivideTheTileAndKeepTheSwizzlesPeriod) {
  for (const GemmConfig& c : legal_configs()) {
    const uint32_t pitch = panel_pitch(c);
    ASSERT_TRUE(pitch == 32 || pitch == 64 || pitch == 128) << kernel_name(c);
    ASSERT_EQ(panel_bytes(c), static_cast<uint32_t>(c.tile_m) * pitch) << kernel_name(c);
    ASSERT_EQ(panels(c) * panel_cols(c) * splits(c), static_cast<uint32_t>(c.tile_n)) << kernel_name(c);
    ASSERT_GE(panel_slots(c), 1u) << kernel_name(c);
    ASSERT_LE(panel_slots(c), panels(c)) << kernel_name(c);
    // The pattern repeats after 8 rows: each panel and each warp's rows in it must start at such a multiple.
    for (uint32_t slot = 0; slot < panel_slots(c); ++slot)
      ASSERT_EQ((smem_layout(c).d + slot * panel_bytes(c)) % 1024, 0u) << kernel_name(c) << " slot " << slot;
  }
}

TEST(Layout, TilesTouchAsManyRowsOfScalesAsTheConfigSays) {
  for (const GemmConfig& c : legal_configs()) {
    const auto tile_n = static_cast<uint32_t>(c.tile_n);
    uint32_t most = 0;
    for (uint32_t start = 0; start < 128 * tile_n; start += tile_n) {
      ASSERT_EQ(start % kScaleRows % scale_offset_step(c), 0u) << kernel_name(c);
      most = std::max(most, (start + tile_n - 1) / kScaleRows - start / kScaleRows + 1);
    }
    ASSERT_EQ(scale_blocks_b(c), most) << kernel_name(c);
  }
}

TEST(Layout, ThreadsAndPartsFitTheHardware) {
  for (const GemmConfig& c : legal_configs()) {
    ASSERT_EQ(math_warpgroups(c) * 64 * row_waves(c), static_cast<uint32_t>(c.tile_m)) << kernel_name(c);
    ASSERT_EQ(num_threads(c), math_threads(c) + kLoadThreads) << kernel_name(c);
    ASSERT_EQ(sharers(c) * splits(c), static_cast<uint32_t>(c.cluster)) << kernel_name(c);
    // Registers come in eights; what setmaxnreg gives to the math warps the load warpgroup must have given away.
    const uint32_t threads = num_threads(c), launched = 65536 / (threads * c.ctas_per_sm) / 8 * 8;
    ASSERT_LE(math_threads(c) * math_registers(c) + kLoadThreads * load_registers(c), threads * launched)
        << kernel_name(c);
    // What a wgmma of a wave needs, and whole groups of 8 rows of B before a wave's first column.
    ASSERT_EQ(wave_cols(c) % 8, 0u) << kernel_name(c);
    ASSERT_EQ(wave_cols(c) * col_waves(c), static_cast<uint32_t>(c.tile_n)) << kernel_name(c);
    ASSERT_EQ(c.tile_m % store_rows(c), 0u) << kernel_name(c);
    // What one CTA loads of a shared operand: whole groups of 8 rows (a swizzle's period), at most a TMA box.
    for (const uint32_t part : {c.tile_m / cluster_n(c), c.tile_n / cluster_m(c)}) {
      ASSERT_EQ(part % 8, 0u) << kernel_name(c);
      ASSERT_LE(part, 256u) << kernel_name(c);
    }
    // A barrier counts at most 2^20 - 1 bytes of one phase.
    ASSERT_LT(loaded_stage_bytes(c, 1 << 20), 1u << 20) << kernel_name(c);
    ASSERT_LT(parts_bytes(c), 1u << 20) << kernel_name(c);
  }
}

TEST(Layout, NamesTellConfigsApart) {
  std::set<std::string> names;
  for (const GemmConfig& c : legal_configs()) {
    for (const int unroll : {1, 2})
      for (const bool accumulate : {false, true}) {
        GemmConfig variant = c;
        variant.unroll = unroll, variant.accumulate = accumulate;
        const std::string name = kernel_name(variant);
        ASSERT_TRUE(names.insert(name).second) << name << " names two configs";
        ASSERT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_0123456789"), std::string::npos) << name;
      }
  }
}

}  // namespace
}  // namespace deep_gemm
