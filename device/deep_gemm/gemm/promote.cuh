// Two-level accumulation: the partial sums of 128 of k leave the tensor core, are scaled and added in FP32.
#pragma once

#include <deep_gemm/gemm/layout.cuh>

namespace deep_gemm {

/// sum += scale_a · scale_b · partial for one wave of a warpgroup. A thread's accumulator i holds row
/// `lane / 4 + 8 · (i / 2 % 2)` and column `i / 4 · 8 + lane % 4 · 2 + i % 2` (PTX ISA, "Register fragments",
/// m64nNk32). kOffset: the tile's first column within its block of 128 columns of B's scales.
template <GemmConfig C, uint32_t kOffset>
DG_DEVICE void promote_at(float (&sum)[C.tile_n / 2], const float (&partial)[C.tile_n / 2], const float (&scale_a)[2],
                          const float (&scale_b)[scale_b_rows(C)]) {
  constexpr uint32_t kRows = ceil_div(kOffset + C.tile_n, kScaleRows);
  float scale[2][kRows];
#pragma unroll
  for (uint32_t r = 0; r < kRows; ++r) {
    scale[0][r] = scale_a[0] * scale_b[r];
    scale[1][r] = scale_a[1] * scale_b[r];
  }
#pragma unroll
  for (uint32_t i = 0; i < C.tile_n / 2; ++i)
    sum[i] += scale[i / 2 % 2][(kOffset + i / 4 * 8) / kScaleRows] * partial[i];
}

/// The same for an offset known at run time: a tile whose width does not divide 128 (or is no multiple of it) starts at
/// different places in the blocks of scales. One uniform branch a step is cheaper than selecting a scale per column.
template <GemmConfig C, uint32_t kOffset = 0>
DG_DEVICE void promote(uint32_t offset, float (&sum)[C.tile_n / 2], const float (&partial)[C.tile_n / 2],
                       const float (&scale_a)[2], const float (&scale_b)[scale_b_rows(C)]) {
  constexpr uint32_t kNext = kOffset + scale_offset_step(C);
  if constexpr (scale_b_rows(C) == 1 || kNext >= kScaleRows) {
    promote_at<C, kOffset>(sum, partial, scale_a, scale_b);
  } else {
    if (offset == kOffset) {
      promote_at<C, kOffset>(sum, partial, scale_a, scale_b);
    } else {
      promote<C, kNext>(offset, sum, partial, scale_a, scale_b);
    }
  }
}

}  // namespace deep_gemm
