// Which CTA computes which tile, and when. Host and device, so that tests can walk millions of tiles without a GPU.
#pragma once

#include <deep_gemm/gemm/layout.cuh>

namespace deep_gemm {

/// An output tile: first row and column. Rows and columns beyond m and n are not stored.
struct Tile {
  uint32_t row, col;
};

/// A persistent grid over a dense product. The CTAs of a cluster take neighbouring tiles (side by side along n when
/// they share A, along m when they share B) and so go through the same number of steps; at an edge one of them may own
/// a tile that lies outside altogether, which it computes on zeros and does not store.
///
/// Order: `raster` clusters' widths along n are walked down m together, so that the tiles in flight at any time form a
/// compact rectangle whose operands fit L2.
struct DenseScheduler {
  uint32_t units_m, units_n, raster;  // in clusters
  uint32_t unit_rows, unit_cols;      // of D
  uint32_t own_row, own_col;          // of this CTA inside its cluster
  uint32_t next, step;

  /// CTA `cta` of a grid of `grid`, both counted in CTAs.
  DG_HD constexpr DenseScheduler(const GemmConfig& c, uint32_t m, uint32_t n, uint32_t raster_tiles, uint32_t cta,
                                 uint32_t grid)
      : units_m(ceil_div(m, c.tile_m * cluster_m(c))),
        units_n(ceil_div(n, c.tile_n * cluster_n(c))),
        raster(raster_tiles),
        unit_rows(c.tile_m * cluster_m(c)),
        unit_cols(c.tile_n * cluster_n(c)),
        own_row(c.multicast == Multicast::b ? cta % c.cluster * c.tile_m : 0),
        own_col(c.multicast == Multicast::a ? cta % c.cluster * c.tile_n : 0),
        next(cta / c.cluster),
        step(grid / c.cluster) {}

  /// The next tile of this CTA; false where there is none left.
  DG_HD constexpr bool pop(Tile& tile) {
    if (next >= units_m * units_n) return false;
    const uint32_t band = next / (raster * units_m), in_band = next % (raster * units_m);
    const uint32_t width = min(raster, units_n - band * raster);
    tile.row = in_band / width * unit_rows + own_row;
    tile.col = (band * raster + in_band % width) * unit_cols + own_col;
    next += step;
    return true;
  }
};

}  // namespace deep_gemm
