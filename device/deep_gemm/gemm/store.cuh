// The way of a finished tile to memory: (+ C), one rounding, staging in shared memory, TMA.
#pragma once

#include <deep_gemm/gemm/args.cuh>
#include <deep_gemm/gemm/layout.cuh>
#include <deep_gemm/ptx/stmatrix.cuh>
#include <deep_gemm/ptx/tma.cuh>

namespace deep_gemm {

DG_DEVICE float load_c(const GemmArgs& args, DType type, uint32_t row, uint32_t col) {
  const int64_t at = int64_t(row) * args.c_pitch + col;
  if (type == DType::f32) return static_cast<const float*>(args.c)[at];
  return __uint_as_float(uint32_t(static_cast<const uint16_t*>(args.c)[at]) << 16);
}

/// TMA's swizzle inside a store box: the index of a 16-byte chunk within its row (1 to 3 bits, by the width of the
/// atom) is XORed with bits 7 and up of the byte offset.   CUDA driver API, CU_TENSOR_MAP_SWIZZLE_*
template <GemmConfig C>
DG_DEVICE uint32_t swizzled(uint32_t offset) {
  constexpr uint32_t kChunkMask = store_cols(C) * d_bytes(C) / 16 - 1;
  return offset ^ ((offset >> 7 & kChunkMask) << 4);
}

/// sum += C for kCount accumulators of a warp's 16 rows, the first of them in column `col`; what lies outside of D stays as
/// it is.
template <GemmConfig C, uint32_t kCount>
DG_DEVICE void add_c(const GemmArgs& args, uint32_t row, uint32_t col, float* sum) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t i = 0; i < kCount; ++i) {
    const uint32_t r = row + lane / 4 + i / 2 % 2 * 8, c = col + i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (r < args.m && c < args.n) sum[i] += load_c(args, C.d_type, r, c);
    if (i % 8 == 7) asm volatile("" ::: "memory");  // 8 loads in flight: more would spill beside the sums
  }
}

/// A staged box to a D that TMA cannot address, element by element.
template <GemmConfig C>
DG_DEVICE void store_box_plain(const GemmArgs& args, const uint8_t* staging, uint32_t row, uint32_t col) {
  constexpr uint32_t kCols = store_cols(C);
#pragma unroll 1
  for (uint32_t i = threadIdx.x % 32; i < 16 * kCols; i += 32) {
    const uint32_t r = row + i / kCols, c = col + i % kCols;
    if (r >= args.m || c >= args.n) continue;
    const uint8_t* from = staging + swizzled<C>(i * d_bytes(C));
    const int64_t at = int64_t(r) * args.d_pitch + c;
    if constexpr (C.d_type == DType::f32) {
      static_cast<float*>(args.d_data)[at] = *reinterpret_cast<const float*>(from);
    } else {
      static_cast<uint16_t*>(args.d_data)[at] = *reinterpret_cast<const uint16_t*>(from);
    }
  }
}

/// Stores a warp's 16 rows of the tile at (row, col): box by box through the warp's own staging ring, so that no warp
/// waits for another. `ring` is 1024-aligned; `slot` goes on from tile to tile. What lies outside of D is not written.
template <GemmConfig C>
DG_DEVICE void store_rows(const GemmArgs& args, uint8_t* ring, uint32_t& slot, uint32_t row, uint32_t col,
                          float (&sum)[C.tile_n / 2]) {
  constexpr uint32_t kCols = store_cols(C), kPitch = kCols * d_bytes(C), kSlots = store_slots(C);
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t box = 0; box < C.tile_n / kCols; ++box) {
    uint8_t* staging = ring + slot * store_box_bytes(C);
    if constexpr (C.accumulate) add_c<C, kCols / 2>(args, row, col + box * kCols, sum + box * kCols / 2);
    if (lane == 0) ptx::tma_store_wait_read<kSlots - 1>();
    __syncwarp();
    if constexpr (C.d_type == DType::bf16) {
#pragma unroll
      for (uint32_t i = 0; i < kCols / 16; ++i) {
        const float* s = sum + (box * kCols + i * 16) / 2;
        const uint32_t at = lane % 16 * kPitch + i * 32 + lane / 16 * 16;
        ptx::stmatrix_x4(staging + swizzled<C>(at), ptx::pack_bf16x2(s[0], s[1]), ptx::pack_bf16x2(s[2], s[3]),
                         ptx::pack_bf16x2(s[4], s[5]), ptx::pack_bf16x2(s[6], s[7]));
      }
    } else {
#pragma unroll
      for (uint32_t i = 0; i < kCols / 8; ++i) {
        const float* s = sum + (box * kCols + i * 8) / 2;
#pragma unroll
        for (uint32_t half = 0; half < 2; ++half) {
          const uint32_t at = (lane / 4 + half * 8) * kPitch + i * 32 + lane % 4 * 8;
          ptx::st_shared_v2(staging + swizzled<C>(at), s[half * 2], s[half * 2 + 1]);
        }
      }
    }
    ptx::fence_proxy_async();
    __syncwarp();
    if (!args.tma_store) {
      store_box_plain<C>(args, staging, row, col + box * kCols);
    } else if (lane == 0) {
      ptx::tma_store_2d(args.d, staging, col + box * kCols, row);
      ptx::tma_store_commit();
    }
    slot = slot + 1 == kSlots ? 0 : slot + 1;
  }
}

}  // namespace deep_gemm
