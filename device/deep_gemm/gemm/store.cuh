// The way of a finished tile to memory: (+ C), one rounding, staging in shared memory, TMA. A thread of its own waits for
// TMA, since all SMs store at the same time and L2 takes some 2000 clocks for a 256×128 tile of each (H100, 2026-11-22).
#pragma once

#include <deep_gemm/core/pipeline.cuh>
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

/// TMA's swizzle inside a panel: the index of a 16-byte chunk within its row (1 to 3 bits, by the width of the atom) is
/// XORed with bits 7 and up of the byte offset.   CUDA driver API, CU_TENSOR_MAP_SWIZZLE_*
template <GemmConfig C>
DG_DEVICE uint32_t swizzled(uint32_t offset) {
  constexpr uint32_t kChunkMask = panel_pitch(C) / 16 - 1;
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

/// Rounds a warp's 16 rows of a panel into it, from row `row` of the tile on.
template <GemmConfig C>
DG_DEVICE void stage_rows(uint8_t* panel, uint32_t row, const float* sum) {
  constexpr uint32_t kCols = panel_cols(C), kPitch = panel_pitch(C);
  const uint32_t lane = threadIdx.x % 32;
  if constexpr (C.d_type == DType::bf16) {
#pragma unroll
    for (uint32_t i = 0; i < kCols / 16; ++i, sum += 8) {
      const uint32_t at = (row + lane % 16) * kPitch + i * 32 + lane / 16 * 16;
      ptx::stmatrix_x4(panel + swizzled<C>(at), ptx::pack_bf16x2(sum[0], sum[1]), ptx::pack_bf16x2(sum[2], sum[3]),
                       ptx::pack_bf16x2(sum[4], sum[5]), ptx::pack_bf16x2(sum[6], sum[7]));
    }
  } else {
#pragma unroll
    for (uint32_t i = 0; i < kCols / 8; ++i, sum += 4) {
#pragma unroll
      for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t at = (row + lane / 4 + half * 8) * kPitch + i * 32 + lane % 4 * 8;
        ptx::st_shared_v2(panel + swizzled<C>(at), sum[half * 2], sum[half * 2 + 1]);
      }
    }
  }
}

/// A warp's 16 staged rows to a D that TMA cannot address, element by element. (row, col): the panel's place in D;
/// `first`: the warp's first row in the panel.
template <GemmConfig C>
DG_DEVICE void store_rows_plain(const GemmArgs& args, const uint8_t* panel, uint32_t first, uint32_t row,
                                uint32_t col) {
  constexpr uint32_t kCols = panel_cols(C);
#pragma unroll 1
  for (uint32_t i = threadIdx.x % 32; i < 16 * kCols; i += 32) {
    const uint32_t r = row + first + i / kCols, c = col + i % kCols;
    if (r >= args.m || c >= args.n) continue;
    const uint8_t* from = panel + swizzled<C>((first * kCols + i) * d_bytes(C));
    const int64_t at = int64_t(r) * args.d_pitch + c;
    if constexpr (C.d_type == DType::f32) {
      static_cast<float*>(args.d_data)[at] = *reinterpret_cast<const float*>(from);
    } else {
      static_cast<uint16_t*>(args.d_data)[at] = *reinterpret_cast<const uint16_t*>(from);
    }
  }
}

/// Whether TMA stores the panel that begins in column `col`. It cannot where D's address or pitch is no multiple of 16 bytes
/// (tma_cols = 0), and must not where the panel holds the last columns of rows that are no multiple of 16 bytes long
/// (tma_cols = n): it would write the whole of a 16-byte chunk, beyond n.
template <GemmConfig C>
DG_DEVICE bool stored_by_tma(const GemmArgs& args, uint32_t col) {
  return col + panel_cols(C) <= args.tma_cols;
}

/// full[slot]:  one arrival of each math warp that has staged its rows. The store thread waits on it.
/// empty[slot]: one arrival of the store thread, once TMA has read the panel. Math warps wait on it.
template <GemmConfig C>
using PanelRing = Ring<panel_slots(C), math_threads(C) / 32, 1>;

/// Math role: hands a warp's rows of the tile at (tile_row, tile_col), 16 of each wave from `first` on, 64 apart, to the
/// store role, panel by panel; or stores them itself where TMA cannot. What lies outside of D is not written.
template <GemmConfig C>
DG_DEVICE void stage_tile(const GemmArgs& args, uint8_t* staging, const PanelRing<C>& ring,
                          typename PanelRing<C>::Position& at, uint32_t tile_row, uint32_t tile_col, uint32_t first,
                          float (&sum)[waves(C)][C.tile_n / 2]) {
#pragma unroll
  for (uint32_t p = 0; p < panels(C); ++p) {
    const uint32_t col = tile_col + p * panel_cols(C);
    uint8_t* panel = staging + at.slot * panel_bytes(C);
    ring.wait_empty(at);
#pragma unroll
    for (uint32_t wave = 0; wave < waves(C); ++wave) {
      float* values = sum[wave] + p * panel_cols(C) / 2;
      if constexpr (C.accumulate) add_c<C, panel_cols(C) / 2>(args, tile_row + first + wave * 64, col, values);
      stage_rows<C>(panel, first + wave * 64, values);
    }
    if (stored_by_tma<C>(args, col)) {
      ptx::fence_proxy_async();
      __syncwarp();
      if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(ring.full + at.slot);
      at.advance();
    } else {
      __syncwarp();
      for (uint32_t wave = 0; wave < waves(C); ++wave)
        store_rows_plain<C>(args, panel, first + wave * 64, tile_row, col);
      __syncwarp();
    }
  }
}

/// Store role, one thread: sends a tile's panels on as they become full.
template <GemmConfig C>
DG_DEVICE void store_panels(const GemmArgs& args, const uint8_t* staging, const PanelRing<C>& ring,
                            typename PanelRing<C>::Position& at, uint32_t tile_row, uint32_t tile_col) {
#pragma unroll 1
  for (uint32_t p = 0; p < panels(C); ++p) {
    const uint32_t col = tile_col + p * panel_cols(C);
    if (!stored_by_tma<C>(args, col)) continue;
    ring.wait_full(at);
    ptx::tma_store_2d(args.d, staging + at.slot * panel_bytes(C), col, tile_row);
    ptx::tma_store_commit();
    ptx::tma_store_wait_read<0>();
    ptx::mbarrier_arrive(ring.empty + at.slot);
    at.advance();
  }
}

}  // namespace deep_gemm
