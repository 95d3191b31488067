// Scales [groups, mn, blocks] of any strides to MN-major with zeros up to a multiple of four: what TMA reads. A 32×32 tile goes
// through shared memory, so that both sides are read and written along their contiguous dimension.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm {

struct TransposeScalesArgs {
  const float* in;
  float* out;  ///< element (g, i, j) at g · out_group_stride + i + j · out_pitch
  int64_t in_row_stride, in_block_stride, out_pitch;
  int64_t in_group_stride, out_group_stride;
  int64_t mn, padded_mn, blocks;
};

inline constexpr uint32_t kTransposeTile = 32;
inline constexpr uint32_t kTransposeThreads = 256;

#ifdef __CUDACC__

/// Grid: ceil(padded_mn / 32) · ceil(blocks / 32) CTAs along x, groups along y.
DG_DEVICE void transpose_scales(const TransposeScalesArgs& args) {
  __shared__ float tile[kTransposeTile][kTransposeTile + 1];  // [block][row]; one more against bank conflicts
  const uint32_t tiles_along_blocks = static_cast<uint32_t>((args.blocks + kTransposeTile - 1) / kTransposeTile);
  const int64_t row0 = int64_t(blockIdx.x / tiles_along_blocks) * kTransposeTile;
  const int64_t block0 = int64_t(blockIdx.x % tiles_along_blocks) * kTransposeTile;
  const uint32_t fast = threadIdx.x % 32, slow = threadIdx.x / 32;
  const float* in = args.in + blockIdx.y * args.in_group_stride;
  float* out = args.out + blockIdx.y * args.out_group_stride;
  const bool blocks_are_contiguous = args.in_block_stride < args.in_row_stride;

#pragma unroll
  for (uint32_t s = slow; s < kTransposeTile; s += kTransposeThreads / 32) {
    const uint32_t i = blocks_are_contiguous ? s : fast, j = blocks_are_contiguous ? fast : s;
    const int64_t row = row0 + i, block = block0 + j;
    const bool inside = row < args.mn && block < args.blocks;
    tile[j][i] = inside ? in[row * args.in_row_stride + block * args.in_block_stride] : 0.0f;
  }
  __syncthreads();
#pragma unroll
  for (uint32_t s = slow; s < kTransposeTile; s += kTransposeThreads / 32) {
    const int64_t row = row0 + fast, block = block0 + s;
    if (row < args.padded_mn && block < args.blocks) out[row + block * args.out_pitch] = tile[s][fast];
  }
}

#endif

}  // namespace deep_gemm
