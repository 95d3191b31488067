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
/// `offset`: the tile's first column within its block of 128 columns of B's scales, a multiple of scale_offset_step. A tile
/// whose width does not divide 128 starts at different places in those blocks, so groups of that many columns select
/// their scale: two selects for 8 to 32 FFMA. (A branch a step to code for each offset cost 20 % more time, H100.)
template <GemmConfig C>
DG_DEVICE void promote(uint32_t offset, float (&sum)[C.tile_n / 2], const float (&partial)[C.tile_n / 2],
                       const float (&scale_a)[2], const float (&scale_b)[scales_b(C)]) {
  if constexpr (C.scale_rows_b == 1) {
#pragma unroll
    for (uint32_t i = 0; i < C.tile_n / 2; ++i) sum[i] += scale_a[i / 2 % 2] * scale_b[i / 4 * 2 + i % 2] * partial[i];
  } else {
    constexpr uint32_t kBlocks = scale_blocks_b(C), kStep = scale_offset_step(C);
    float scale[2][kBlocks];
#pragma unroll
    for (uint32_t b = 0; b < kBlocks; ++b) {
      scale[0][b] = scale_a[0] * scale_b[b];
      scale[1][b] = scale_a[1] * scale_b[b];
    }
    if constexpr (kStep == kScaleRows || kBlocks == 1) offset = 0;
#pragma unroll
    for (uint32_t group = 0; group < C.tile_n / kStep; ++group) {
      float top = scale[0][0], bottom = scale[1][0];
#pragma unroll
      for (uint32_t b = 1; b < kBlocks; ++b) {
        if (offset + group * kStep >= b * kScaleRows) top = scale[0][b], bottom = scale[1][b];
      }
#pragma unroll
      for (uint32_t i = group * kStep / 2; i < (group + 1) * kStep / 2; ++i)
        sum[i] += (i / 2 % 2 ? bottom : top) * partial[i];
    }
  }
}

}  // namespace deep_gemm
