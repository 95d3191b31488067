// Which CTA computes which tile, and when. Host and device, so that tests can walk millions of tiles without a GPU.
#pragma once

#include <deep_gemm/gemm/layout.cuh>

namespace deep_gemm {

/// An output tile: first row and column. Rows and columns beyond m and n are not stored.
struct Tile {
  uint32_t row, col;
};

/// The order in which a persistent grid walks a dense product, for all CTAs the same: the host works it out once. A unit is
/// what a cluster computes at a time. A band of units along n is walked down m, row by row, so that the tiles in flight at
/// any time form a compact rectangle whose operands fit L2. A cluster's next unit is as many units further as there are
/// clusters in the grid.
struct TileOrder {
  /// Units side by side in a band, and the way to a cluster's next unit in rows and columns of it.
  struct Band {
    uint32_t width, step_rows, step_cols;
  };
  uint32_t units_m, units_n;
  Band full, last;      // the last band may be narrower
  uint32_t step_bands;  // full bands that a step leaves behind

  static DG_HD constexpr TileOrder make(const GemmConfig& c, uint32_t m, uint32_t n, uint32_t band_width,
                                        uint32_t grid) {
    TileOrder o{};
    o.units_m = ceil_div(m, c.tile_m * cluster_m(c));
    o.units_n = ceil_div(n, c.tile_n * cluster_n(c));
    const uint32_t step = grid / c.cluster, width = min(band_width, o.units_n);
    const uint32_t rest = step % (width * o.units_m), left = o.units_n % width == 0 ? width : o.units_n % width;
    o.full = {width, rest / width, rest % width};
    o.last = {left, step / left, step % left};
    o.step_bands = step / (width * o.units_m);
    return o;
  }
};

/// One CTA's way through a dense product. The CTAs of a cluster take neighbouring tiles (side by side along n when they
/// share A, along m when they share B) and so go through the same number of steps; at an edge one of them may own a tile
/// that lies outside altogether, which it computes on zeros and does not store.
/// Divides at the start and on entering a narrower band only: four divisions for each tile took 500 clocks, and between
/// two tiles the tensor cores have nothing to do (H100, 2026-11-22).
struct DenseScheduler {
  TileOrder order;
  TileOrder::Band band;
  uint32_t unit_rows, unit_cols;  // of D
  uint32_t own_row, own_col;      // of this CTA inside its cluster
  uint32_t first_col = 0;         // of the current band, in units
  uint32_t row, col;              // the next unit, inside the band

  DG_HD constexpr DenseScheduler(const GemmConfig& c, const TileOrder& tile_order, uint32_t cta)
      : order(tile_order),
        band(tile_order.full),
        unit_rows(c.tile_m * cluster_m(c)),
        unit_cols(c.tile_n * cluster_n(c)),
        own_row(c.multicast == Multicast::b ? cta % c.cluster * c.tile_m : 0),
        own_col(c.multicast == Multicast::a ? cta % c.cluster * c.tile_n : 0),
        row(cta / c.cluster / band.width),
        col(cta / c.cluster % band.width) {
    wrap();
  }

  /// The next tile of this CTA; false where there is none left.
  DG_HD constexpr bool pop(Tile& tile) {
    if (first_col >= order.units_n) return false;
    tile.row = row * unit_rows + own_row;
    tile.col = (first_col + col) * unit_cols + own_col;
    first_col += order.step_bands * band.width;
    row += band.step_rows;
    col += band.step_cols;
    if (col >= band.width) col -= band.width, ++row;
    wrap();
    return true;
  }

 private:
  /// From below a band to the next ones.
  DG_HD constexpr void wrap() {
    while (row >= order.units_m && first_col < order.units_n) row -= order.units_m, first_col += band.width;
    if (band.width == order.last.width || first_col + band.width <= order.units_n || first_col >= order.units_n) return;
    const uint32_t unit = row * band.width + col;
    band = order.last;
    row = unit / band.width;
    col = unit % band.width;
    if (row >= order.units_m) first_col = order.units_n;  // nothing follows the last band
  }
};

}  // namespace deep_gemm
