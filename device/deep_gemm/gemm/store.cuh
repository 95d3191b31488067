// The way of a finished tile to memory: (+ C), one rounding, staging in shared memory, TMA. A thread of its own waits for
// TMA, since all SMs store at the same time and L2 takes 3300 clocks and more for a 256×128 tile of each (H100, 2026-11-23).
#pragma once

#include <deep_gemm/core/pipeline.cuh>
#include <deep_gemm/gemm/args.cuh>
#include <deep_gemm/gemm/layout.cuh>
#include <deep_gemm/ptx/control.cuh>
#include <deep_gemm/ptx/stmatrix.cuh>
#include <deep_gemm/ptx/tma.cuh>

namespace deep_gemm {

DG_DEVICE float load_c(const GemmArgs& args, DType type, uint32_t group, uint32_t row, uint32_t col) {
  const int64_t at = group * args.c_stride_group + int64_t(row) * args.c_pitch + col;
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
/// it is. `group`: of D.
template <GemmConfig C, uint32_t kCount>
DG_DEVICE void add_c(const GemmArgs& args, uint32_t group, uint32_t row, uint32_t col, float* sum) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t i = 0; i < kCount; ++i) {
    const uint32_t r = row + lane / 4 + i / 2 % 2 * 8, c = col + i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (r < args.work.m && c < args.n) sum[i] += load_c(args, C.d_type, group, r, c);
    if (i % 4 == 3) asm volatile("" ::: "memory");  // 4 loads in flight: more would spill beside the sums
  }
}

/// Rounds a warp's 16 rows of a panel into it, from row `row` of the tile on. `keep`: of a thread's two rows; zeros are
/// stored for the others.
template <GemmConfig C>
DG_DEVICE void stage_rows(uint8_t* panel, uint32_t row, const float* sum, const bool (&keep)[2]) {
  constexpr uint32_t kCols = panel_cols(C), kPitch = panel_pitch(C);
  const uint32_t lane = threadIdx.x % 32;
  const auto value = [&](uint32_t i) { return C.layout != Layout::offsets || keep[i / 2 % 2] ? sum[i] : 0.f; };
  if constexpr (C.d_type == DType::bf16) {
#pragma unroll
    for (uint32_t i = 0; i < kCols / 2; i += 8) {
      const uint32_t at = (row + lane % 16) * kPitch + i * 4 + lane / 16 * 16;
      ptx::stmatrix_x4(panel + swizzled<C>(at), ptx::pack_bf16x2(value(i), value(i + 1)),
                       ptx::pack_bf16x2(value(i + 2), value(i + 3)), ptx::pack_bf16x2(value(i + 4), value(i + 5)),
                       ptx::pack_bf16x2(value(i + 6), value(i + 7)));
    }
  } else {
#pragma unroll
    for (uint32_t i = 0; i < kCols / 2; i += 2) {
      const uint32_t at = (row + lane / 4 + i / 2 % 2 * 8) * kPitch + i / 4 * 32 + lane % 4 * 8;
      ptx::st_shared_v2(panel + swizzled<C>(at), value(i), value(i + 1));
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

/// full[slot]:  one arrival of each math warp that has staged its rows. The store warp waits on it.
/// empty[slot]: one arrival of the store warp, once the panel has been read. Math warps wait on it.
template <GemmConfig C>
using PanelRing = Ring<panel_slots(C), math_threads(C) / 32, 1>;

/// Math role: hands a warp's rows of a tile, 16 of each wave from `first` on, 64 apart, to the store role, panel by panel.
template <GemmConfig C>
DG_DEVICE void stage_tile(const GemmArgs& args, uint8_t* staging, const PanelRing<C>& ring,
                          typename PanelRing<C>::Position& at, const Tile& tile, uint32_t first,
                          float (&sum)[row_waves(C)][stored_cols(C) / 2]) {
  const uint32_t lane = threadIdx.x % 32;
  bool is_empty[panel_slots(C)];  // asked of all slots at a time, since an answer takes 80 clocks
  typename PanelRing<C>::Position ahead = at;
#pragma unroll
  for (uint32_t p = 0; p < panel_slots(C); ++p, ahead.advance()) is_empty[p] = ring.is_empty(ahead);
#pragma unroll
  for (uint32_t p = 0; p < panels(C); ++p, at.advance()) {
    uint8_t* panel = staging + at.slot * panel_bytes(C);
    if (p >= panel_slots(C) || !is_empty[p]) ring.wait_empty(at, tile);
#pragma unroll
    for (uint32_t wave = 0; wave < row_waves(C); ++wave) {
      const uint32_t in_tile = first + wave * 64, row = tile.row + in_tile + lane / 4;
      const bool keep[2] = {row < tile.valid_end, row + 8 < tile.valid_end};
      float* values = sum[wave] + p * panel_cols(C) / 2;
      if (C.accumulate && !args.in_place)
        add_c<C, panel_cols(C) / 2>(args, tile.group, tile.row + in_tile, tile.col + p * panel_cols(C), values);
      stage_rows<C>(panel, in_tile, values, keep);
    }
    ptx::fence_proxy_async();
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(ring.full + at.slot);
  }
}

/// A panel to a D that TMA cannot address, element by element, by all lanes of a warp.
template <GemmConfig C>
DG_DEVICE void store_panel_plain(const GemmArgs& args, const uint8_t* panel, const Tile& tile, uint32_t col) {
  constexpr uint32_t kWords = panel_pitch(C) / 4;
#pragma unroll 1
  for (uint32_t i = threadIdx.x % 32; i < C.tile_m * kWords; i += 32) {
    const uint32_t row = tile.row + i / kWords, c = col + i % kWords * 4 / d_bytes(C);
    if (row >= tile.end || c >= args.n) continue;
    const uint32_t word = *reinterpret_cast<const uint32_t*>(panel + swizzled<C>(i * 4));
    const int64_t at = tile.group * args.d_stride_group + int64_t(row) * args.d_pitch + c;
    if constexpr (C.d_type == DType::f32) {
      float* const to = static_cast<float*>(args.d_data) + at;
      const float sum = __uint_as_float(word);
      *to = C.accumulate && args.in_place ? *to + sum : sum;
    } else {
      uint16_t* to = static_cast<uint16_t*>(args.d_data) + at;
      to[0] = static_cast<uint16_t>(word);
      if (c + 1 < args.n) to[1] = static_cast<uint16_t>(word >> 16);
    }
  }
}

/// Sends a panel by TMA, by one thread: a piece when the one before it has been read, lest loads wait behind them; of the
/// CTA's last tile all at once, 0.3 to 0.4 µs sooner with four pieces (H100, 2026-11-23). Where a group may end inside a tile,
/// D's map has a dimension more for rows, both with the row pitch for a stride: [groups, m + R, R, n] with R = store_rows, based
/// R rows before D. What lies beyond the second one's R is not stored, so that a box pushed down in it by R - rows loses all
/// but its first `rows` rows.
template <GemmConfig C>
DG_DEVICE void store_panel(const GemmArgs& args, const uint8_t* panel, const Tile& tile, uint32_t col, bool is_last) {
  constexpr uint32_t kRows = store_rows(C);
  const bool add = C.accumulate && args.in_place;
#pragma unroll 1
  for (uint32_t row = tile.row; row < min(tile.end, tile.row + C.tile_m); row += kRows) {
    if constexpr (!cuts_tiles(C)) {
      if (add) {
        ptx::tma_add_2d(args.d, panel, col, row);
      } else {
        ptx::tma_store_2d(args.d, panel, col, row);
      }
    } else {
      const uint32_t rows = min(tile.end - row, kRows), skip = kRows - rows;
      const uint32_t group = C.layout == Layout::masked || C.layout == Layout::k_grouped ? tile.group : 0;
      if (add) {
        ptx::tma_add_4d(args.d, panel, col, skip, row + rows, group);
      } else {
        ptx::tma_store_4d(args.d, panel, col, skip, row + rows, group);
      }
    }
    ptx::tma_store_commit();
    if (!is_last) ptx::tma_store_wait_read<0>();
    panel += kRows * panel_pitch(C);
  }
}

/// Store role, one warp: sends a tile's panels on as they become full, and returns when they have been read.
template <GemmConfig C>
DG_DEVICE void store_tile(const GemmArgs& args, const uint8_t* staging, const PanelRing<C>& ring,
                          typename PanelRing<C>::Position& at, const Tile& tile, bool is_last) {
  const bool is_leader = ptx::elect_one();
#pragma unroll 1
  for (uint32_t p = 0; p < panels(C); ++p, at.advance()) {
    const uint32_t col = tile.col + p * panel_cols(C);
    const uint8_t* panel = staging + at.slot * panel_bytes(C);
    ring.wait_full(at, tile);
    if (!stored_by_tma<C>(args, col)) {
      store_panel_plain<C>(args, panel, tile, col);
    } else if (is_leader) {
      store_panel<C>(args, panel, tile, col, is_last);
      if (panel_slots(C) < panels(C)) ptx::tma_store_wait_read<0>();  // the slot is needed again
    }
    __syncwarp();  // also keeps the other lanes from spinning on the next panel beside the one that works
    if (is_leader) ptx::mbarrier_arrive(ring.empty + at.slot);
  }
  if (is_leader) ptx::tma_store_wait_read<0>();
}

}  // namespace deep_gemm
