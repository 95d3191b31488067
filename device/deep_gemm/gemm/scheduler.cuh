// Which CTA computes which tile, and when: one type for each layout, all with `bool pop(Tile&)`. Host and device, so that
// tests can walk millions of tiles without a GPU.
#pragma once

#include <deep_gemm/core/lanes.cuh>
#include <deep_gemm/gemm/layout.cuh>

namespace deep_gemm {

/// An output tile. Rows count from the first row of A and D, in the masked layout from the group's first row.
struct Tile {
  uint32_t row, col;
  uint32_t group;      // of B; k-grouped: of the launch
  uint32_t end;        // rows from here on are not stored
  uint32_t valid_end;  // rows from here on are stored as zeros; a tile without others has no steps
};

/// x / value by a multiplication; a division takes 120 clocks, and between two tiles the tensor cores have nothing to do.
/// Exact for x < 2^31.   Granlund and Montgomery, "Division by invariant integers using multiplication", 1994
struct Divisor {
  uint32_t value, multiplier, shift;

  static DG_HD constexpr Divisor make(uint32_t value) {
    uint32_t bits = 0;
    while (uint64_t(1) << bits < value) ++bits;
    const uint64_t one = uint64_t(1) << (31 + bits);
    return {value, uint32_t((one + value - 1) / value), 31 + bits};
  }
  DG_HD constexpr uint32_t quotient(uint32_t x) const { return uint32_t(uint64_t(x) * multiplier >> shift); }
};

/// The order of the units of a product; a unit is what a cluster computes at a time. A band of `width` units along n is
/// walked down m, row by row, so that the units in flight at any time form a compact rectangle whose operands fit L2 and
/// write rows of D together. (Walked column by column, 4096×32768×512 took 15 % longer: H100, 2026-11-22.)
struct TileOrder {
  uint32_t units_n;
  Divisor by_width, by_last_width;  // the last band may be narrower

  static DG_HD constexpr TileOrder make(const GemmConfig& c, uint32_t n, uint32_t band_width) {
    const uint32_t units_n = ceil_div(n, c.tile_n * cluster_n(c)), width = min(band_width, units_n);
    const uint32_t last = units_n % width == 0 ? width : units_n % width;
    return {units_n, Divisor::make(width), Divisor::make(last)};
  }
  DG_HD constexpr uint32_t width() const { return by_width.value; }
  /// Row and column, in units, of the unit that comes after `inside` others in its band.
  DG_HD constexpr void locate(uint32_t band, uint32_t inside, uint32_t& row, uint32_t& col) const {
    const uint32_t first = band * width();
    const Divisor& by = first + width() <= units_n ? by_width : by_last_width;
    row = by.quotient(inside);
    col = first + inside - row * by.value;
  }
};

/// All that the CTAs of a launch share. The host makes it. What a first tile is found with comes first: see GemmArgs.
struct Work {
  uint32_t m;         // rows of A; in the masked layout, of a group of A
  uint32_t clusters;  // in the grid
  TileOrder order;
  Divisor by_band;    // units of a whole band; where the host knows its height
  uint32_t last_row;  // dense: a tile begins here at the latest; see last_start
  uint32_t last_col;
  Divisor by_group;  // k-grouped: units of a group
  uint32_t groups;
  uint32_t alignment;  // offsets: a group starts at a multiple of this
  bool zero_padding;   // offsets: rows between a group's end and that multiple are stored as zeros
  const int32_t*
      layout;  // contiguous: the group of each row; offsets: the end of each group; masked: its number of rows
};

/// Where the last of the tiles along m or n begins. One that would reach beyond `length` is moved up, as far as a start that is
/// a multiple of `step` allows, and computes some rows or columns a second time, with the same bits: TMA takes far longer to
/// fill rows outside of a tensor with zeros than to load some. 192×4096×7168 took 23.0 µs with 128×128 tiles, 256 rows 19.0;
/// so it takes 18.6 (H100, 2026-11-24). ~0: none is moved, since there are fewer rows than a tile has, or sums would be added
/// twice.
DG_HD constexpr uint32_t last_start(const GemmConfig& c, uint32_t length, uint32_t tile, uint32_t step) {
  return c.accumulate || length < tile ? ~0u : align_up(length - tile, step);
}
/// TMA reads A's scales from multiples of 16 bytes on.
inline constexpr uint32_t kRowStep = 4;

/// The CTAs of a cluster take neighbouring tiles (side by side along n when they share A, along m when they share B) and so
/// go through the same number of steps; at an edge one of them may own a tile that lies outside altogether, which is moved
/// up (last_start), or computed on zeros and not stored. A cluster's next unit is as many units further as there are clusters.
struct DenseScheduler {
  const Work& work;
  uint32_t unit_rows, unit_cols, own_row, own_col;  // of D
  uint32_t units_m;
  uint32_t unit;

  DG_HD constexpr DenseScheduler(const GemmConfig& c, const Work& shared, uint32_t cta)
      : work(shared),
        unit_rows(c.tile_m * cluster_m(c)),
        unit_cols(c.tile_n * cluster_n(c)),
        own_row(c.multicast == Multicast::b ? cta % c.cluster * c.tile_m : 0),
        own_col(c.multicast == Multicast::a ? cta % c.cluster * c.tile_n : 0),
        units_m(deep_gemm::units_m(c, shared.m)),
        unit(cta / c.cluster) {}

  /// The next tile of this CTA; false where there is none left.
  DG_HD constexpr bool pop(Tile& tile) {
    if (unit >= units_m * work.order.units_n) return false;
    tile = tile_of(unit);
    unit += work.clusters;
    return true;
  }

 protected:
  DG_HD constexpr Tile tile_of(uint32_t which) const {
    uint32_t row = 0, col = 0;
    const uint32_t band = work.by_band.quotient(which);
    work.order.locate(band, which - band * work.by_band.value, row, col);
    return {min(row * unit_rows + own_row, work.last_row), min(col * unit_cols + own_col, work.last_col), 0, work.m,
            ~0u};
  }
};

/// The same tiles for each group, one group after the other.
struct KGroupedScheduler : DenseScheduler {
  using DenseScheduler::DenseScheduler;

  DG_HD constexpr bool pop(Tile& tile) {
    if (unit >= work.by_group.value * work.groups) return false;
    const uint32_t group = work.by_group.quotient(unit);
    tile = tile_of(unit - group * work.by_group.value);
    tile.group = group;
    unit += work.clusters;
    return true;
  }
};

/// Groups lie one after the other and start at multiples of 128 rows: 128 rows belong to the group of the first of them, and
/// are all padding where that is. A tile of 256 whose halves belong to two groups is computed once for each of them.
/// The groups of the tile after the current one are on their way meanwhile.
struct ContiguousScheduler : DenseScheduler {
  static constexpr uint32_t kHalf = 128;
  bool may_split, more = false;
  Tile ahead{}, second{};  // the next tile; half of the current one that is still to be returned, if it has rows
  int32_t groups[2] = {};  // of the halves of `ahead`

  DG_HD constexpr ContiguousScheduler(const GemmConfig& c, const Work& shared, uint32_t cta)
      : DenseScheduler(c, shared, cta), may_split(cuts_tiles(c)) {
    look();
  }

  DG_HD constexpr bool pop(Tile& tile) {
    if (second.end > 0) {
      tile = second;
      second.end = 0;
      return true;
    }
    if (!more) return false;
    tile = ahead;
    const int32_t top = groups[0], bottom = groups[1];
    look();
    if (top != bottom) {
      second = tile;
      tile.end = second.row = tile.row + kHalf;
      second.end = min(second.row + kHalf, work.m);
      assign(second, bottom);
    }
    assign(tile, top);
    return true;
  }

 private:
  DG_HD constexpr void look() {
    more = DenseScheduler::pop(ahead);
    if (!more) return;
    groups[0] = groups[1] = work.layout[ahead.row];
    if (may_split && ahead.row + kHalf < work.m) groups[1] = work.layout[ahead.row + kHalf];
  }
  DG_HD constexpr void assign(Tile& tile, int32_t group) const {
    tile.group = group < 0 ? 0 : min(uint32_t(group), work.groups - 1);
    if (group < 0) tile.valid_end = 0;
  }
};

/// Groups whose rows only the device knows. 32 groups at a time are looked at, one by each lane of a warp, so `pop` is for
/// whole warps; units of an earlier group come first. Numbers out of range are clamped.
template <Layout kLayout>
struct GroupScheduler {
  const Work& work;
  uint32_t tile_m, unit_cols, own_col;
  uint32_t unit;
  uint32_t group = 0u - Lanes::kCount;  // the first of the 32; before the first look none of them has units
  uint32_t units_before = 0;            // of the groups before it
  Lanes begin{}, end{}, valid_end{}, units_up_to{};

  DG_HD GroupScheduler(const GemmConfig& c, const Work& shared, uint32_t cta)
      : work(shared),
        tile_m(c.tile_m),
        unit_cols(c.tile_n * cluster_n(c)),
        own_col(c.multicast == Multicast::a ? cta % c.cluster * c.tile_n : 0),
        unit(cta / c.cluster) {}

  /// Not to be called again once it has returned false.
  DG_HD bool pop(Tile& tile) {
    uint32_t lane;
    while ((lane = units_up_to.count_at_most(unit - units_before)) == Lanes::kCount) {
      units_before += units_up_to[Lanes::kCount - 1];
      group += Lanes::kCount;
      if (group >= work.groups) return false;
      look();
    }
    const uint32_t first = begin[lane], last = end[lane];
    const uint32_t before = lane == 0 ? 0 : units_up_to[lane - 1];
    uint32_t row = 0, col = 0;
    const uint32_t inside = unit - units_before - before;
    const uint32_t band_units = ceil_div(last - first, tile_m) * work.order.width(), band = inside / band_units;
    work.order.locate(band, inside - band * band_units, row, col);
    tile = {first + row * tile_m, min(col * unit_cols + own_col, work.last_col), group + lane, last, valid_end[lane]};
    unit += work.clusters;
    return true;
  }

 private:
  DG_HD uint32_t clamped(int32_t rows) const { return rows < 0 ? 0 : min(uint32_t(rows), work.m); }
  DG_HD uint32_t aligned(uint32_t row) const { return min(align_up(row, work.alignment), work.m); }

  DG_HD void look() {
    const auto count = [&](uint32_t lane) { return group + lane < work.groups ? work.layout[group + lane] : 0; };
    if constexpr (kLayout == Layout::masked) {
      begin = Lanes::each([](uint32_t) { return 0u; });
      valid_end = end = Lanes::each([&](uint32_t lane) { return clamped(count(lane)); });
    } else {
      begin = Lanes::each([&](uint32_t lane) {
        const uint32_t g = group + lane;
        return g == 0 || g >= work.groups ? 0 : aligned(clamped(work.layout[g - 1]));
      });
      valid_end = Lanes::each([&](uint32_t lane) { return max(clamped(count(lane)), begin.at(lane)); });
      end = Lanes::each([&](uint32_t lane) {
        return work.zero_padding ? max(aligned(valid_end.at(lane)), begin.at(lane)) : valid_end.at(lane);
      });
    }
    units_up_to = Lanes::each([&](uint32_t lane) {
                    return ceil_div(end.at(lane) - begin.at(lane), tile_m) * work.order.units_n;
                  }).running_sum();
  }
};

template <Layout kLayout>
struct SchedulerOf {
  using Type = GroupScheduler<kLayout>;
};
template <>
struct SchedulerOf<Layout::dense> {
  using Type = DenseScheduler;
};
template <>
struct SchedulerOf<Layout::k_grouped> {
  using Type = KGroupedScheduler;
};
template <>
struct SchedulerOf<Layout::contiguous> {
  using Type = ContiguousScheduler;
};

}  // namespace deep_gemm
