// Which CTA computes which tile, and when. Host and device, so that tests can walk millions of tiles without a GPU.
#pragma once

#include <deep_gemm/gemm/layout.cuh>

namespace deep_gemm {

/// An output tile: first row and column. Rows and columns beyond m and n are not stored.
struct Tile {
  uint32_t row, col;
};

/// The order in which a persistent grid walks a dense product, for all CTAs the same: the host works it out once. A unit is
/// what a cluster computes at a time. `width` units along n form a band that is walked down m, row by row, so that the
/// tiles in flight at any time form a compact rectangle whose operands fit L2.
struct TileOrder {
  uint32_t units_m, units_n;
  uint32_t width;                             // of a band; the last one may be narrower
  uint32_t step;                              // clusters in the grid: a cluster's next unit is so many further
  uint32_t step_bands, step_rows, step_cols;  // the same in full bands, rows and columns

  static DG_HD constexpr TileOrder make(const GemmConfig& c, uint32_t m, uint32_t n, uint32_t band_width,
                                        uint32_t grid) {
    TileOrder o{};
    o.units_m = ceil_div(m, c.tile_m * cluster_m(c));
    o.units_n = ceil_div(n, c.tile_n * cluster_n(c));
    o.step = grid / c.cluster;
    o.narrow(min(band_width, o.units_n));
    return o;
  }
  /// Sets the width and what follows from it.
  DG_HD constexpr void narrow(uint32_t new_width) {
    width = new_width;
    step_bands = step / (width * units_m);
    step_rows = step % (width * units_m) / width;
    step_cols = step % (width * units_m) % width;
  }
};

/// One CTA's way through a dense product. The CTAs of a cluster take neighbouring tiles (side by side along n when they
/// share A, along m when they share B) and so go through the same number of steps; at an edge one of them may own a tile
/// that lies outside altogether, which it computes on zeros and does not store.
/// Divides once, and again only on entering a narrower last band: four divisions for each tile took 500 clocks, and
/// between two tiles the tensor cores have nothing to do (H100, 2026-11-22).
struct DenseScheduler {
  TileOrder order;
  uint32_t unit_rows, unit_cols;  // of D
  uint32_t own_row, own_col;      // of this CTA inside its cluster
  uint32_t first_col = 0;         // of the current band, in units
  uint32_t row, col;              // the next unit, inside the band

  DG_HD constexpr DenseScheduler(const GemmConfig& c, const TileOrder& tile_order, uint32_t cta)
      : order(tile_order),
        unit_rows(c.tile_m * cluster_m(c)),
        unit_cols(c.tile_n * cluster_n(c)),
        own_row(c.multicast == Multicast::b ? cta % c.cluster * c.tile_m : 0),
        own_col(c.multicast == Multicast::a ? cta % c.cluster * c.tile_n : 0),
        row(cta / c.cluster / order.width),
        col(cta / c.cluster % order.width) {
    while (row >= order.units_m && first_col < order.units_n) next_band();
    enter_narrower();
  }

  /// The next tile of this CTA; false where there is none left.
  DG_HD constexpr bool pop(Tile& tile) {
    if (first_col >= order.units_n) return false;
    tile.row = row * unit_rows + own_row;
    tile.col = (first_col + col) * unit_cols + own_col;
    first_col += order.step_bands * order.width;
    row += order.step_rows;
    col += order.step_cols;
    if (col >= order.width) col -= order.width, ++row;
    if (row >= order.units_m) next_band();
    enter_narrower();
    return true;
  }

 private:
  DG_HD constexpr void next_band() {
    row -= order.units_m;
    first_col += order.width;
  }
  DG_HD constexpr void enter_narrower() {
    const uint32_t left = order.units_n - min(first_col, order.units_n);
    if (left == 0 || left >= order.width) return;
    const uint32_t unit = row * order.width + col;
    order.narrow(left);
    row = unit / left;
    col = unit % left;
    if (row >= order.units_m) first_col = order.units_n;  // beyond the last band
  }
};

}  // namespace deep_gemm
