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

constexpr Work work_of(const Grid& g) {
  return {.m = g.m,
          .clusters = g.grid / static_cast<uint32_t>(g.config.cluster),
          .order = TileOrder::make(g.config, g.n, g.raster),
          .by_band = Divisor::make(std::min(g.raster, ceil_div(g.n, g.config.tile_n * cluster_n(g.config))) *
                                   units_m(g.config, g.m)),
          .last_row = ~0u,
          .last_col = ~0u,
          .by_group = {},
          .groups = 1,
          .alignment = 1,
          .zero_padding = false,
          .layout = nullptr};
}

constexpr uint32_t tiles_m(const Grid& g) { return ceil_div(g.m, static_cast<uint32_t>(g.config.tile_m)); }
constexpr uint32_t tiles_n(const Grid& g) { return ceil_div(g.n, static_cast<uint32_t>(g.config.tile_n)); }

constexpr GemmConfig split_config(int tile_m, int tile_n, int cluster) {
  return {.tile_m = tile_m, .tile_n = tile_n, .cluster = cluster, .split_k = true};
}
constexpr GemmConfig config_of(int tile_m, int tile_n, Multicast multicast) {
  return {.tile_m = tile_m, .tile_n = tile_n, .cluster = multicast == Multicast::none ? 1 : 2, .multicast = multicast};
}

/// For at most 64 tiles.
constexpr bool visits_each_tile_once(const Grid& g) {
  uint32_t visits[64] = {};
  const Work work = work_of(g);
  for (uint32_t cta = 0; cta < g.grid; ++cta) {
    DenseScheduler tiles(g.config, work, cta);
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
  const Work work = work_of(g);
  for (uint32_t first = 0; first < g.grid; first += cluster) {
    std::vector<DenseScheduler> ctas;
    for (uint32_t rank = 0; rank < cluster; ++rank) ctas.emplace_back(g.config, work, first + rank);
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
        const bool shares_b = g.config.multicast == Multicast::b;
        ASSERT_EQ(tile.row, tiles[0].row + (shares_b ? rank * tile_m : 0)) << text(g);
        ASSERT_EQ(tile.col, tiles[0].col + (shares_a ? rank * tile_n : 0)) << text(g);
      }
    }
  }
  // Once, or by all CTAs of a cluster that split k.
  const int times = g.config.split_k ? g.config.cluster : 1;
  ASSERT_TRUE(std::all_of(visits.begin(), visits.end(), [&](int count) { return count == times; }))
      << text(g) << ": a tile is visited " << *std::min_element(visits.begin(), visits.end()) << " to "
      << *std::max_element(visits.begin(), visits.end()) << " times";
}

/// The same tiles with those at the edges moved up: they still reach the edge, none reaches a step beyond it, and all else
/// stays where it was.
void expect_moved_up(const Grid& g) {
  const auto tile_m = static_cast<uint32_t>(g.config.tile_m), tile_n = static_cast<uint32_t>(g.config.tile_n);
  const uint32_t step = scale_offset_step(g.config);
  const Work plain = work_of(g);
  Work work = plain;
  work.last_row = last_start(g.config, g.m, tile_m, kRowStep);
  work.last_col = last_start(g.config, g.n, tile_n, step);
  const auto expect = [&](uint32_t moved, uint32_t unmoved, uint32_t length, uint32_t tile, uint32_t multiple) {
    if (length < tile || unmoved + tile <= length) {
      ASSERT_EQ(moved, unmoved) << text(g);
    } else {
      ASSERT_TRUE(moved + tile >= length && moved + tile < length + multiple && moved <= unmoved) << text(g);
      ASSERT_EQ(moved % multiple, 0u) << text(g);
    }
  };
  for (uint32_t cta = 0; cta < g.grid; ++cta) {
    DenseScheduler moved(g.config, work, cta), unmoved(g.config, plain, cta);
    for (Tile tile{}, at_first{}; unmoved.pop(at_first);) {
      ASSERT_TRUE(moved.pop(tile)) << text(g);
      expect(tile.row, at_first.row, g.m, tile_m, kRowStep);
      expect(tile.col, at_first.col, g.n, tile_n, step);
    }
  }
}

TEST(Scheduler, NoTileIsMovedUpWhereThatWouldCountTwice) {
  GemmConfig c{.tile_m = 128, .tile_n = 96};
  EXPECT_EQ(last_start(c, 300, 128, kRowStep), 172u);
  EXPECT_EQ(last_start(c, 301, 128, kRowStep), 176u);
  EXPECT_EQ(last_start(c, 128, 128, kRowStep), 0u);
  EXPECT_EQ(last_start(c, 127, 128, kRowStep), ~0u);
  EXPECT_EQ(last_start(c, 336, 96, 32), 256u);
  c.accumulate = true;
  EXPECT_EQ(last_start(c, 300, 128, kRowStep), ~0u);
}

TEST(Scheduler, VisitsEveryTileOnceForTenThousandGrids) {
  std::mt19937 random(1);
  const auto between = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  std::vector<int> visits;
  for (int i = 0; i < 10'000 && !HasFatalFailure(); ++i) {
    Grid g{};
    g.config = config_of(64 << between(0, 2), between(1, 16) * 16, static_cast<Multicast>(between(0, 2)));
    if (!between(0, 3)) g.config = split_config(64 << between(0, 1), 32 << between(0, 2), 2 << between(0, 2));
    // Up to 20 tiles either way, the last ones full, one short, one over, or cut off anywhere.
    const auto extent = [&](int tile) {
      const int most = 20 * tile, at_edge = between(0, 20) * tile + between(-1, 1);
      return static_cast<uint32_t>(between(0, 1) ? between(1, most) : std::max(1, at_edge));
    };
    g.m = extent(g.config.tile_m), g.n = extent(g.config.tile_n);
    g.raster = static_cast<uint32_t>(between(1, between(0, 3) ? 6 : 40));
    g.grid = static_cast<uint32_t>(between(1, between(0, 1) ? 8 : 100) * g.config.cluster);
    expect_sound(g, visits);
    expect_moved_up(g);
  }
}

TEST(Scheduler, ACtaStaysWithItsRowsWhereTheGridIsABand) {
  // 12 × 40 tiles in bands of 5, and a last one of 5 as well; then one of 3, where rows change once.
  for (const uint32_t n : {40u * 128, 38u * 128}) {
    const Grid g{config_of(128, 128, Multicast::none), 12 * 128, n, 5, 60};
    const Work work = work_of(g);
    for (uint32_t cta = 0; cta < g.grid; ++cta) {
      DenseScheduler tiles(g.config, work, cta);
      std::vector<uint32_t> rows;
      for (Tile tile{}; tiles.pop(tile);) rows.push_back(tile.row);
      if (n % (5 * 128) != 0 && rows.size() == 8) rows.pop_back();
      EXPECT_TRUE(std::all_of(rows.begin(), rows.end(), [&](uint32_t row) { return row == cta / 5 * 128; })) << cta;
    }
  }
}

TEST(Scheduler, WalksDownTheRowsOfABandBeforeTheNextBand) {
  const Grid g{config_of(64, 128, Multicast::none), 256, 1024, 3, 1};
  const Work work = work_of(g);
  DenseScheduler tiles(g.config, work, 0);
  std::vector<uint32_t> bands, rows;
  for (Tile tile{}; tiles.pop(tile);) bands.push_back(tile.col / 128 / g.raster), rows.push_back(tile.row / 64);
  EXPECT_EQ(bands.size(), 32u);
  EXPECT_TRUE(std::is_sorted(bands.begin(), bands.end()));
  EXPECT_TRUE(std::is_sorted(rows.begin(), rows.begin() + 12));
}

TEST(Scheduler, TheLargestExtentsDoNotOverflow) {
  constexpr uint32_t kMost = std::numeric_limits<int32_t>::max(), kGrid = 1024;
  for (const bool tall : {true, false}) {
    const Grid g{config_of(64, 16, tall ? Multicast::b : Multicast::a), tall ? kMost : 1, tall ? 1 : kMost, 64, kGrid};
    const Work work = work_of(g);
    uint32_t last = 0;
    uint64_t count = 0;
    for (uint32_t cta = kGrid - 32; cta < kGrid; ++cta) {
      DenseScheduler tiles(g.config, work, cta);
      for (Tile tile{}; tiles.pop(tile); ++count) last = std::max(last, tall ? tile.row : tile.col);
    }
    const uint32_t tile = tall ? 64 : 16;
    EXPECT_EQ(count, align_up(ceil_div(kMost, tile), 2) / (kGrid / 32));
    EXPECT_EQ(last, align_up(ceil_div(kMost, tile), 2) * tile - tile);
  }
}

TEST(Scheduler, DivisorsAreExact) {
  std::mt19937 random(1);
  constexpr uint32_t kMost = std::numeric_limits<int32_t>::max();
  for (int i = 0; i < 100'000; ++i) {
    const auto any = [&] { return static_cast<uint32_t>(random() & kMost); };
    const uint32_t value = std::max(1u, any() >> any() % 31), multiple = kMost / value * value;
    const Divisor divisor = Divisor::make(value);
    for (const uint32_t x : {any(), value - 1, value, kMost, multiple, multiple - 1, 0u})
      ASSERT_EQ(divisor.quotient(x), x / value) << x << " / " << value;
  }
}

/// The rows of a group as its tensor tells them: [begin, valid_end) with values, [valid_end, end) with zeros.
struct GroupRange {
  uint32_t begin, valid_end, end;
};

struct Groups {
  Layout layout;
  GemmConfig config;
  uint32_t m, n, raster, grid, alignment;
  bool zero_padding;
  std::vector<int32_t> numbers;

  Work work() const {
    return {
        .m = m,
        .clusters = grid / static_cast<uint32_t>(config.cluster),
        .order = TileOrder::make(config, n, raster),
        .by_band = Divisor::make(std::min(raster, ceil_div(n, config.tile_n * cluster_n(config))) * units_m(config, m)),
        .last_row = ~0u,
        .last_col = ~0u,
        .by_group = {},
        .groups = static_cast<uint32_t>(numbers.size()),
        .alignment = alignment,
        .zero_padding = zero_padding,
        .layout = numbers.data()};
  }
  /// A second statement of the rules of gemm.h.
  std::vector<GroupRange> ranges() const {
    std::vector<GroupRange> all;
    int64_t begin = 0;
    for (const int32_t number : numbers) {
      const int64_t end = std::clamp<int64_t>(number, 0, m);
      if (layout == Layout::masked) {
        all.push_back({0, uint32_t(end), uint32_t(end)});
        continue;
      }
      const auto aligned = [&](int64_t row) {
        return std::min<int64_t>((row + alignment - 1) / alignment * alignment, m);
      };
      const int64_t stored = zero_padding ? aligned(end) : end;
      if (end > begin) {
        all.push_back({uint32_t(begin), uint32_t(end), uint32_t(stored)});
      } else {
        all.push_back({});
      }
      begin = aligned(end);
    }
    return all;
  }
};

template <Layout kLayout>
void expect_sound(const Groups& g) {
  const Work work = g.work();
  const auto tile_m = static_cast<uint32_t>(g.config.tile_m), tile_n = static_cast<uint32_t>(g.config.tile_n);
  const auto cluster = static_cast<uint32_t>(g.config.cluster);
  const std::vector<GroupRange> ranges = g.ranges();
  const uint32_t cols = align_up(ceil_div(g.n, tile_n), cluster_n(g.config));
  const int times = g.config.split_k ? g.config.cluster : 1;  // by all CTAs of a cluster that split k
  std::vector<std::vector<int>> visits;
  for (const GroupRange& range : ranges) visits.emplace_back(ceil_div(range.end - range.begin, tile_m) * cols);
  for (uint32_t cta = 0; cta < g.grid; ++cta) {
    GroupScheduler<kLayout> tiles(g.config, work, cta);
    uint32_t last_group = 0;
    for (Tile tile{}; tiles.pop(tile); last_group = tile.group) {
      ASSERT_LT(tile.group, ranges.size());
      ASSERT_GE(tile.group, last_group);
      const GroupRange& range = ranges[tile.group];
      ASSERT_TRUE(tile.row >= range.begin && tile.row < range.end && (tile.row - range.begin) % tile_m == 0)
          << tile.row;
      ASSERT_EQ(tile.end, range.end);
      ASSERT_EQ(tile.valid_end, range.valid_end);
      ASSERT_TRUE(tile.col % tile_n == 0 && tile.col / tile_n < cols) << tile.col;
      ASSERT_TRUE(g.config.split_k || tile.col / tile_n % cluster == cta % cluster);
      ++visits[tile.group][(tile.row - range.begin) / tile_m * cols + tile.col / tile_n];
    }
  }
  for (std::size_t group = 0; group < visits.size(); ++group)
    ASSERT_TRUE(std::all_of(visits[group].begin(), visits[group].end(), [&](int count) { return count == times; }))
        << "group " << group << " of " << visits.size() << ", rows " << ranges[group].begin << " to "
        << ranges[group].end;
}

/// 10,000 vectors: uniform loads, one hot group, many empty ones, all empty, numbers out of range; 1 to 300 groups.
template <Layout kLayout>
void expect_sound_for_random_groups() {
  std::mt19937 random(static_cast<unsigned>(kLayout));
  const auto between = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  for (int i = 0; i < 10'000 && !testing::Test::HasFatalFailure(); ++i) {
    Groups g{};
    g.layout = kLayout;
    g.config = config_of(64 << between(0, 2), between(1, 16) * 16, between(0, 2) ? Multicast::none : Multicast::a);
    if (!between(0, 3)) g.config = split_config(64 << between(0, 1), 32 << between(0, 2), 2 << between(0, 2));
    g.config.layout = kLayout;
    g.n = static_cast<uint32_t>(between(1, 6 * g.config.tile_n));
    g.raster = static_cast<uint32_t>(between(1, 9));
    g.grid = static_cast<uint32_t>(between(1, between(0, 1) ? 8 : 140) * g.config.cluster);
    const int alignments[] = {1, 8, 16, 32, 64, 128};
    g.alignment = static_cast<uint32_t>(kLayout == Layout::masked ? 1 : alignments[between(0, 5)]);
    g.zero_padding = kLayout == Layout::offsets && between(0, 1);
    const int groups = between(0, 3) ? between(1, 40) : between(1, 300), kind = between(0, 4);
    int64_t row = 0;
    for (int group = 0; group < groups; ++group) {
      int rows = kind == 0       ? between(0, 300)
                 : kind == 1     ? between(0, 30)
                 : kind == 2     ? 0
                 : between(0, 5) ? 0
                                 : between(1, 900);
      if (kind == 1 && group == groups / 2) rows = 5000;
      if constexpr (kLayout == Layout::masked) {
        g.numbers.push_back(rows);
      } else {
        row = (row + g.alignment - 1) / g.alignment * g.alignment;
        if (rows == 0 && group > 0) {
          g.numbers.push_back(g.numbers.back());  // an empty group ends where the one before it ended
        } else {
          row += rows;
          g.numbers.push_back(static_cast<int32_t>(row));
        }
      }
    }
    g.m = static_cast<uint32_t>(kLayout == Layout::masked ? between(1, 1000)
                                                          : std::max<int64_t>(1, row + between(0, 200)));
    if (kind == 4) {  // garbage
      for (int32_t& number : g.numbers)
        if (!between(0, 3)) number = static_cast<int32_t>(random());
    }
    expect_sound<kLayout>(g);
  }
}

TEST(Scheduler, VisitsTheTilesOfTenThousandMaskedVectorsOnce) { expect_sound_for_random_groups<Layout::masked>(); }
TEST(Scheduler, VisitsTheTilesOfTenThousandOffsetVectorsOnce) { expect_sound_for_random_groups<Layout::offsets>(); }

TEST(Scheduler, EveryGroupOfAKGroupedLaunchHasEveryTile) {
  std::mt19937 random(4);
  const auto between = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  for (int i = 0; i < 10'000 && !HasFatalFailure(); ++i) {
    Grid g{};
    g.config = config_of(64 << between(0, 2), between(1, 16) * 16, static_cast<Multicast>(between(0, 2)));
    g.config.layout = Layout::k_grouped;
    const auto cluster = static_cast<uint32_t>(g.config.cluster);
    g.m = static_cast<uint32_t>(between(1, 9 * g.config.tile_m));
    g.n = static_cast<uint32_t>(between(1, 9 * g.config.tile_n));
    g.raster = static_cast<uint32_t>(between(1, 9));
    g.grid = static_cast<uint32_t>(between(1, 100)) * cluster;
    Work work = work_of(g);
    work.groups = static_cast<uint32_t>(between(1, 8));
    work.by_group = Divisor::make(work.order.units_n * units_m(g.config, g.m));
    const uint32_t rows = align_up(tiles_m(g), cluster_m(g.config)), cols = align_up(tiles_n(g), cluster_n(g.config));
    std::vector<int> visits(work.groups * rows * cols);
    for (uint32_t cta = 0; cta < g.grid; ++cta) {
      KGroupedScheduler tiles(g.config, work, cta), leader(g.config, work, cta - cta % cluster);
      uint32_t last = 0;
      Tile first{};
      for (Tile tile{}; tiles.pop(tile); last = tile.group) {
        ASSERT_TRUE(leader.pop(first) && first.group == tile.group) << "a cluster's CTAs differ in steps";
        ASSERT_TRUE(tile.group >= last && tile.group < work.groups) << text(g);
        ASSERT_TRUE(tile.row / g.config.tile_m < rows && tile.col / g.config.tile_n < cols) << text(g);
        ASSERT_EQ(tile.end, g.m);
        ++visits[(tile.group * rows + tile.row / g.config.tile_m) * cols + tile.col / g.config.tile_n];
      }
      ASSERT_FALSE(leader.pop(first)) << text(g);
    }
    ASSERT_TRUE(std::all_of(visits.begin(), visits.end(), [](int count) { return count == 1; })) << text(g);
  }
}

TEST(Scheduler, EveryContiguousRowIsStoredOnceByTheGroupItBelongsTo) {
  std::mt19937 random(3);
  const auto between = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  for (int i = 0; i < 10'000 && !HasFatalFailure(); ++i) {
    Groups g{};
    g.config = config_of(64 << between(0, 2), between(1, 16) * 16, between(0, 1) ? Multicast::none : Multicast::a);
    g.config.layout = Layout::contiguous;
    g.n = static_cast<uint32_t>(between(1, 4 * g.config.tile_n));
    g.raster = static_cast<uint32_t>(between(1, 9));
    g.grid = static_cast<uint32_t>(between(1, 20) * g.config.cluster);
    const int groups = between(1, 20);
    for (int group = 0; group < groups; ++group) {
      const int rows = between(0, 2) ? between(0, 300) : 0, padding = (rows + 127) / 128 * 128 - rows;
      g.numbers.insert(g.numbers.end(), static_cast<std::size_t>(rows), between(0, 30) ? group : 1000);
      g.numbers.insert(g.numbers.end(), static_cast<std::size_t>(padding), -1);
    }
    if (between(0, 1)) g.numbers.resize(g.numbers.size() - std::min<std::size_t>(g.numbers.size(), 60));
    g.numbers.resize(std::max<std::size_t>(g.numbers.size(), 1), -1);
    g.m = static_cast<uint32_t>(g.numbers.size());
    Work work = g.work();
    work.groups = static_cast<uint32_t>(groups);
    const auto tile_m = static_cast<uint32_t>(g.config.tile_m), tile_n = static_cast<uint32_t>(g.config.tile_n);
    const uint32_t cols = align_up(ceil_div(g.n, tile_n), static_cast<uint32_t>(g.config.cluster));
    std::vector<int> visits(g.m * cols);
    std::vector<uint32_t> steps(g.grid);  // of a cluster's CTAs: the same tiles along m
    for (uint32_t cta = 0; cta < g.grid; ++cta) {
      ContiguousScheduler tiles(g.config, work, cta);
      for (Tile tile{}; tiles.pop(tile);) {
        steps[cta] = steps[cta] * 31 + tile.row + (tile.row < tile.valid_end);
        for (uint32_t row = tile.row; row < std::min(tile.end, tile.row + tile_m); ++row) {
          const int32_t group = g.numbers[row], expected = std::clamp(group, 0, groups - 1);
          if (group >= 0) {
            ASSERT_LT(row, tile.valid_end);
            ASSERT_EQ(tile.group, static_cast<uint32_t>(expected));
          }
          ++visits[row * cols + tile.col / tile_n];
        }
      }
      const uint32_t leader = cta - cta % static_cast<uint32_t>(g.config.cluster);
      ASSERT_EQ(steps[cta], steps[leader]) << "the CTAs of a cluster differ in steps";
    }
    ASSERT_TRUE(std::all_of(visits.begin(), visits.end(), [](int count) { return count == 1; }));
  }
}

}  // namespace
}  // namespace deep_gemm
