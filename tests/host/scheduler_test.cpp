// The order of tiles: every tile once, and the CTAs of a cluster in step.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include <fmt/format.h>

#include <deep_gemm/gemm/scheduler.cuh>

namespace deep_gemm {
namespace {

/// All that decides who computes what.
struct Grid {
  GemmConfig config;
  uint32_t m, n, raster, grid;
};

std::string text(const Grid& g) {
  return fmt::format("{} x {} in tiles of {} x {}, cluster {} (multicast {}), raster {}, grid {}", g.m, g.n,
                     g.config.tile_m, g.config.tile_n, g.config.cluster, static_cast<int>(g.config.multicast), g.raster,
                     g.grid);
}

constexpr DenseScheduler scheduler(const Grid& g, uint32_t cta) {
  return DenseScheduler(g.config, TileOrder::make(g.config, g.m, g.n, g.raster, g.grid), cta);
}

constexpr uint32_t tiles_m(const Grid& g) { return ceil_div(g.m, static_cast<uint32_t>(g.config.tile_m)); }
constexpr uint32_t tiles_n(const Grid& g) { return ceil_div(g.n, static_cast<uint32_t>(g.config.tile_n)); }

constexpr GemmConfig config_of(int tile_m, int tile_n, Multicast multicast) {
  return {.tile_m = tile_m, .tile_n = tile_n, .cluster = multicast == Multicast::none ? 1 : 2, .multicast = multicast};
}

/// For at most 64 tiles.
constexpr bool visits_each_tile_once(const Grid& g) {
  uint32_t visits[64] = {};
  for (uint32_t cta = 0; cta < g.grid; ++cta) {
    DenseScheduler tiles = scheduler(g, cta);
    for (Tile tile{}; tiles.pop(tile);)
      if (tile.row < g.m && tile.col < g.n)
        ++visits[tile.row / g.config.tile_m * tiles_n(g) + tile.col / g.config.tile_n];
  }
  for (uint32_t i = 0; i < tiles_m(g) * tiles_n(g); ++i)
    if (visits[i] != 1) return false;
  return true;
}
// 5 × 7 tiles, neither even, in bands of 2 clusters.
static_assert(visits_each_tile_once({config_of(64, 48, Multicast::none), 300, 330, 2, 6}));
static_assert(visits_each_tile_once({config_of(64, 48, Multicast::a), 300, 330, 2, 6}));
static_assert(visits_each_tile_once({config_of(64, 48, Multicast::b), 300, 330, 2, 6}));

/// What every grid must satisfy. `visits` is scratch memory.
void expect_sound(const Grid& g, std::vector<int>& visits) {
  const auto tile_m = static_cast<uint32_t>(g.config.tile_m), tile_n = static_cast<uint32_t>(g.config.tile_n);
  const auto cluster = static_cast<uint32_t>(g.config.cluster);
  // With the tiles outside of D that complete the clusters at the edges.
  const uint32_t rows = align_up(tiles_m(g), cluster_m(g.config)), cols = align_up(tiles_n(g), cluster_n(g.config));
  visits.assign(rows * cols, 0);
  for (uint32_t first = 0; first < g.grid; first += cluster) {
    std::vector<DenseScheduler> ctas;
    for (uint32_t rank = 0; rank < cluster; ++rank) ctas.push_back(scheduler(g, first + rank));
    for (bool more = true; more;) {
      std::vector<Tile> tiles(cluster);
      more = ctas[0].pop(tiles[0]);
      for (uint32_t rank = 1; rank < cluster; ++rank)
        ASSERT_EQ(ctas[rank].pop(tiles[rank]), more) << text(g) << ": the CTAs of a cluster differ in steps";
      if (!more) break;
      for (uint32_t rank = 0; rank < cluster; ++rank) {
        const Tile& tile = tiles[rank];
        ASSERT_TRUE(tile.row % tile_m == 0 && tile.col % tile_n == 0) << text(g);
        ASSERT_TRUE(tile.row / tile_m < rows && tile.col / tile_n < cols)
            << text(g) << ": tile " << tile.row << ", " << tile.col;
        ++visits[tile.row / tile_m * cols + tile.col / tile_n];
        const bool shares_a = g.config.multicast == Multicast::a;
        ASSERT_EQ(tile.row, tiles[0].row + (shares_a ? 0 : rank * tile_m)) << text(g);
        ASSERT_EQ(tile.col, tiles[0].col + (shares_a ? rank * tile_n : 0)) << text(g);
      }
    }
  }
  ASSERT_TRUE(std::all_of(visits.begin(), visits.end(), [](int count) { return count == 1; }))
      << text(g) << ": a tile is visited " << *std::min_element(visits.begin(), visits.end()) << " to "
      << *std::max_element(visits.begin(), visits.end()) << " times";
}

TEST(Scheduler, VisitsEveryTileOnceForTenThousandGrids) {
  std::mt19937 random(1);
  const auto between = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  std::vector<int> visits;
  for (int i = 0; i < 10'000 && !HasFatalFailure(); ++i) {
    Grid g{};
    g.config = config_of(64 << between(0, 2), between(1, 16) * 16, static_cast<Multicast>(between(0, 2)));
    // Up to 20 tiles either way, the last ones full, one short, one over, or cut off anywhere.
    const auto extent = [&](int tile) {
      const int most = 20 * tile, at_edge = between(0, 20) * tile + between(-1, 1);
      return static_cast<uint32_t>(between(0, 1) ? between(1, most) : std::max(1, at_edge));
    };
    g.m = extent(g.config.tile_m), g.n = extent(g.config.tile_n);
    g.raster = static_cast<uint32_t>(between(1, between(0, 3) ? 6 : 40));
    g.grid = static_cast<uint32_t>(between(1, between(0, 1) ? 8 : 100) * g.config.cluster);
    expect_sound(g, visits);
  }
}

TEST(Scheduler, WalksDownTheRowsOfABandBeforeTheNextBand) {
  const Grid g{config_of(64, 128, Multicast::none), 256, 1024, 3, 1};
  DenseScheduler tiles = scheduler(g, 0);
  std::vector<uint32_t> bands;
  for (Tile tile{}; tiles.pop(tile);) bands.push_back(tile.col / 128 / g.raster);
  EXPECT_EQ(bands.size(), 32u);
  EXPECT_TRUE(std::is_sorted(bands.begin(), bands.end()));
}

TEST(Scheduler, TheLargestExtentsDoNotOverflow) {
  constexpr uint32_t kMost = std::numeric_limits<int32_t>::max(), kGrid = 1024;
  for (const bool tall : {true, false}) {
    const Grid g{config_of(64, 16, tall ? Multicast::b : Multicast::a), tall ? kMost : 1, tall ? 1 : kMost, 64, kGrid};
    uint32_t last = 0;
    uint64_t count = 0;
    for (uint32_t cta = kGrid - 32; cta < kGrid; ++cta) {
      DenseScheduler tiles = scheduler(g, cta);
      for (Tile tile{}; tiles.pop(tile); ++count) last = std::max(last, tall ? tile.row : tile.col);
    }
    const uint32_t tile = tall ? 64 : 16;
    EXPECT_EQ(count, align_up(ceil_div(kMost, tile), 2) / (kGrid / 32));
    EXPECT_EQ(last, align_up(ceil_div(kMost, tile), 2) * tile - tile);
  }
}

}  // namespace
}  // namespace deep_gemm
