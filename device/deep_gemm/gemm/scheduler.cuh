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
  uint32_t units_m, units_n, raster;          // in clusters
  uint32_t unit_rows, unit_cols;              // of D
  uint32_t own_row, own_col;                  // of this CTA inside its cluster
  uint32_t step;                              // clusters in the grid
  uint32_t width;                             // of the current band: `raster`, or less for the last one
  uint32_t band, row, col;                    // the next unit; row and column inside the band
  uint32_t step_bands, step_rows, step_cols;  // `step` units further: so many bands, rows and columns

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
        step(grid / c.cluster) {
    const uint32_t first = cta / c.cluster, band_size = min(raster, units_n) * units_m;
    band = first / band_size;
    enter(min(raster, units_n), first % band_size);
    enter_narrower();
  }

  /// The next tile of this CTA; false where there is none left. Divides nothing but on entering a narrower band: four
  /// divisions take 500 clocks, and between two tiles the tensor cores have nothing to do (H100, 2026-11-22).
  DG_HD constexpr bool pop(Tile& tile) {
    if (band * raster >= units_n) return false;
    tile.row = row * unit_rows + own_row;
    tile.col = (band * raster + col) * unit_cols + own_col;
    band += step_bands;
    row += step_rows;
    col += step_cols;
    if (col >= width) col -= width, ++row;
    if (row >= units_m) row -= units_m, ++band;
    enter_narrower();
    return true;
  }

 private:
  /// Unit `index` of a band that is `new_width` wide.
  DG_HD constexpr void enter(uint32_t new_width, uint32_t index) {
    width = new_width;
    row = index / width;
    col = index % width;
    const uint32_t rest = step % (width * units_m);
    step_bands = step / (width * units_m);
    step_rows = rest / width;
    step_cols = rest % width;
  }
  DG_HD constexpr void enter_narrower() {
    const uint32_t left = units_n - min(band * raster, units_n);
    if (left == 0 || left >= width) return;
    enter(left, row * width + col);
    if (row >= units_m) ++band;  // beyond the last band: pop ends
  }
};

}  // namespace deep_gemm
