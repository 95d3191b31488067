// Two-level accumulation: the partial sums of 128 of k leave the tensor core, are scaled and added in FP32.
#pragma once

#include <deep_gemm/gemm/layout.cuh>

namespace deep_gemm {

/// sum += scale_a · scale_b · partial for one wave of a warpgroup. A thread's accumulator i holds row
/// `lane / 4 + 8 · (i / 2 % 2)` and column `i / 4 · 8 + lane % 4 · 2 + i % 2` (PTX ISA, "Register fragments", m64nNk32).
/// `offset`: the tile's first column within its block of 128 columns of B's scales, a multiple of scale_offset_step. A tile
/// whose width does not divide 128 starts at different places in those blocks, so groups of that many columns select
/// their scale: two selects for 8 to 32 FFMA. (A branch a step to code for each offset cost 20 % more time, H100.)
template <GemmConfig C>
DG_DEVICE void promote(uint32_t offset, float (&sum)[C.tile_n / 2], const float (&partial)[C.tile_n / 2],
                       const float (&scale_a)[2], const float (&scale_b)[scale_b_rows(C)]) {
  constexpr uint32_t kRows = scale_b_rows(C), kStep = scale_offset_step(C);
  float scale[2][kRows];
#pragma unroll
  for (uint32_t r = 0; r < kRows; ++r) {
    scale[0][r] = scale_a[0] * scale_b[r];
    scale[1][r] = scale_a[1] * scale_b[r];
  }
  if constexpr (kStep == kScaleRows || kRows == 1) offset = 0;
#pragma unroll
  for (uint32_t group = 0; group < C.tile_n / kStep; ++group) {
    float top = scale[0][0], bottom = scale[1][0];
#pragma unroll
    for (uint32_t r = 1; r < kRows; ++r) {
      if (offset + group * kStep >= r * kScaleRows) top = scale[0][r], bottom = scale[1][r];
    }
#pragma unroll
    for (uint32_t i = group * kStep / 2; i < (group + 1) * kStep / 2; ++i)
      sum[i] += (i / 2 % 2 ? bottom : top) * partial[i];
  }
}

}  // namespace deep_gemm
