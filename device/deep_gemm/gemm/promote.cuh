// Two-level accumulation: the partial sums of 128 of k leave the tensor core, are scaled and added in FP32.
#pragma once

#include <deep_gemm/gemm/layout.cuh>

namespace deep_gemm {

/// Scales of B that a math thread holds for a step: one for each block of 128 rows of B that the tile can touch, or those of
/// its own columns of D.
DG_HD constexpr uint32_t scales_b(const GemmConfig& c) {
  return c.scale_rows_b == 1 ? c.tile_n / 4 : scale_blocks_b(c);
}

/// sum += scale_a · scale_b · partial for one wave of a warpgroup. A thread's accumulator i holds row
/// `lane / 4 + 8 · (i / 2 % 2)` and column `i / 4 · 8 + lane % 4 · 2 + i % 2` (PTX ISA, "Register fragments", m64nNk32).
/// `is_first`: sum = instead. `first_col`: of the wave within the tile.
/// `offset`: the tile's first column within its block of 128 columns of B's scales, a multiple of scale_offset_step. A tile
/// whose width does not divide 128 starts at different places in those blocks, so groups of that many columns select
/// their scale: two selects, or four of three scales, for 8 to 32 FFMA. (A branch a step to code for each offset cost 20 % more time, H100.)
template <GemmConfig C>
DG_DEVICE void promote(bool is_first, uint32_t offset, uint32_t first_col, float* sum,
                       const float (&partial)[wave_cols(C) / 2], const float (&scale_a)[2],
                       const float (&scale_b)[scales_b(C)]) {
  constexpr uint32_t kCols = wave_cols(C);
  const auto add = [&](uint32_t i, float scale) {
    float& to = sum[first_col / 2 + i];
    to = is_first ? scale * partial[i] : to + scale * partial[i];
  };
  if constexpr (C.scale_rows_b == 1) {
#pragma unroll
    for (uint32_t i = 0; i < kCols / 2; ++i) add(i, scale_a[i / 2 % 2] * scale_b[(first_col / 2 + i) / 4 * 2 + i % 2]);
  } else {
    constexpr uint32_t kBlocks = scale_blocks_b(C), kStep = gcd(scale_offset_step(C), kCols);
    float scale[2][kBlocks];
#pragma unroll
    for (uint32_t b = 0; b < kBlocks; ++b) {
      scale[0][b] = scale_a[0] * scale_b[b];
      scale[1][b] = scale_a[1] * scale_b[b];
    }
    if constexpr (scale_offset_step(C) == kScaleRows || kBlocks == 1) offset = 0;
#pragma unroll
    for (uint32_t group = 0; group < kCols / kStep; ++group) {
      float top = scale[0][0], bottom = scale[1][0];
#pragma unroll
      for (uint32_t b = 1; b < kBlocks; ++b) {
        if (offset + first_col + group * kStep >= b * kScaleRows) top = scale[0][b], bottom = scale[1][b];
      }
#pragma unroll
      for (uint32_t i = group * kStep / 2; i < (group + 1) * kStep / 2; ++i) add(i, i / 2 % 2 ? bottom : top);
    }
  }
}

}  // namespace deep_gemm
