// D[m, n] = Σ_blocks scale_a[m, block] · scale_b[n / 128, block] · (A[m, 128 of k] · B[n, 128 of k]ᵀ)  (+ C[m, n])
// A, B: FP8 e4m3, K-major. Scales, sums and promotion: FP32. D: BF16 or FP32, rounded once.
//
// Roles       math: the first one or two warpgroups; warpgroup g owns rows [g · 64 · waves, …) of the tile.
//             load: warp 0 of the last warpgroup; its first lane issues TMA loads (A, B, A's scales).
//             store: warp 1 of the last warpgroup; its first lane issues TMA stores (D), or all of them store a panel that
//             TMA cannot. The other two warps have nothing to do.
// Barriers    full[stage]:   1 arrival of the load thread, with the bytes of a stage. Math threads wait on it.
//             empty[stage]:  1 arrival of each math warp of each CTA of the cluster. The load thread waits on it.
//             d_full[slot]:  1 arrival of each math warp that has staged its part of a panel of D. The store warp waits.
//             d_empty[slot]: 1 arrival of the store warp when the panel has been read. Math threads wait on it.
// Timeline    load:  [tile] pop → [step] wait empty → announce bytes → A, B, scale_a by TMA
//             math:  [tile] → [step] wait full → [wave] 4 wgmma, promote → release → [end of tile]
//                    → [panel] wait d_empty → round into shared memory → arrive d_full
//             store: [tile] pop → [panel] wait d_full → TMA → wait until it has read → arrive d_empty
//             The load role runs up to `stages` steps ahead, across tiles: while a tile is staged, the next one's first
//             stages arrive. One math warpgroup promotes while the other one's wgmma runs. B's scales, one to three for a
//             tile and step, are loaded by the math warps themselves, 32 steps at a time: see ScalesB.
// Memory      see smem_layout: stages × (A, B), panels of D, stages × scale_a, barriers.
// Clusters    with Multicast::a the CTAs of a cluster share rows of A: each loads its part and multicasts it to all (b:
//             rows of B). A slot is refilled when all of them have emptied it; no CTA exits before the others are done.
// Limits      HBM for few rows. For many rows shared memory, which moves 128 bytes a clock: a step of 256×128 reads 96 KiB
//             for its 16 wgmma and takes 48 KiB from TMA, 1152 clocks against the tensor cores' 1024. Then power: at
//             full load the clock falls from 1.98 to 1.55 GHz (H100), so each instruction and byte saved is speed.
// Layouts     C.layout chooses the scheduler, which says what rows a tile has, whose B it meets and what is stored; all
//             else is the same for a mixture of experts: see scheduler.cuh.
// m = 0 or n = 0: never launched. k = 0, or a tile of padding: no step, D = C or 0.
#pragma once

#include <deep_gemm/core/pipeline.cuh>
#include <deep_gemm/gemm/args.cuh>
#include <deep_gemm/gemm/promote.cuh>
#include <deep_gemm/gemm/store.cuh>
#include <deep_gemm/ptx/control.cuh>
#include <deep_gemm/ptx/wgmma.cuh>

namespace deep_gemm {

/// B's scales for 32 steps of a tile in a warp's registers, a step in each lane, and those of the 32 steps after them on
/// their way: one coalesced load for 32 steps, no shared memory and no barrier.
template <GemmConfig C>
struct ScalesB {
  static constexpr uint32_t kRows = scale_b_rows(C);
  float current[kRows], next[kRows];

  /// Starts to load steps `first` … `first + 31` of a tile of `group` that begins in column `col`.
  DG_DEVICE void fetch(const GemmArgs& args, uint32_t group, uint32_t col, uint32_t first) {
    const uint32_t step = first + threadIdx.x % 32;
    if (step >= ceil_div(args.k, kTileK)) return;
#pragma unroll
    for (uint32_t r = 0; r < kRows; ++r) {
      const uint32_t row = min(col / kScaleRows + r, (args.n - 1) / kScaleRows);
      const int64_t at = group * args.scale_b_stride_group + row * args.scale_b_stride_n;
      next[r] = args.scale_b ? args.scale_b[at + step * args.scale_b_stride_k] : 1.f;
    }
  }
  DG_DEVICE void turn() {
#pragma unroll
    for (uint32_t r = 0; r < kRows; ++r) current[r] = next[r];
  }
  /// Step `i` of the current 32, by all lanes.
  DG_DEVICE void get(float (&scale)[kRows], uint32_t i) const {
#pragma unroll
    for (uint32_t r = 0; r < kRows; ++r) scale[r] = __shfl_sync(~0u, current[r], i);
  }
};

template <GemmConfig C>
struct Fp8Gemm1d2d {
  static_assert(why_illegal(C) == nullptr, "the plan never asks for this; see why_illegal");
  static constexpr SmemLayout kSmem = smem_layout(C);
  static constexpr uint32_t kMathThreads = math_threads(C), kWaves = waves(C);
  static constexpr uint32_t kStageBytes = a_stage_bytes(C) + b_stage_bytes(C) + scale_a_bytes(C);
  using Stages = Ring<C.stages, 1, kMathThreads / 32 * C.cluster>;
  using Panels = PanelRing<C>;

  using Scheduler = typename SchedulerOf<C.layout>::Type;
  static constexpr bool kGroupsOfA = C.layout == Layout::masked, kGroupsOfB = C.layout != Layout::dense;

  DG_DEVICE static Scheduler scheduler(const GemmArgs& args) { return Scheduler(C, args.work, blockIdx.x); }
  DG_DEVICE static uint32_t steps(const GemmArgs& args, const Tile& tile) {
    constexpr bool kPadding = C.layout == Layout::contiguous || C.layout == Layout::offsets;
    return !kPadding || tile.row < tile.valid_end ? ceil_div(args.k, kTileK) : 0;
  }

  /// One operand's part of a stage. `kShare`: this many CTAs of the cluster load a part each and multicast it.
  template <uint32_t kRows, uint32_t kShare, bool kGroups>
  DG_DEVICE static void load_operand(uint8_t* slot, const TensorMap& map, uint64_t* full, uint32_t k, uint32_t row,
                                     uint32_t group) {
    constexpr uint32_t kPart = kRows / kShare, kAll = (1 << kShare) - 1;
    const uint32_t first = kShare == 1 ? 0 : ptx::cluster_rank() * kPart;
    slot += first * kTileK;
    if constexpr (kShare == 1 && kGroups) ptx::tma_load_3d(slot, map, full, k, row, group);
    if constexpr (kShare == 1 && !kGroups) ptx::tma_load_2d(slot, map, full, k, row);
    if constexpr (kShare > 1 && kGroups) ptx::tma_load_3d_multicast(slot, map, full, k, row + first, group, kAll);
    if constexpr (kShare > 1 && !kGroups) ptx::tma_load_2d_multicast(slot, map, full, k, row + first, kAll);
  }

  DG_DEVICE static void load_scales(uint8_t* slot, const TensorMap& map, uint64_t* full, const Tile& tile,
                                    uint32_t step) {
    if constexpr (C.layout == Layout::masked) {
      ptx::tma_load_3d(slot, map, full, tile.row, step, tile.group);
    } else if constexpr (C.layout == Layout::offsets) {
      ptx::tma_load_3d(slot, map, full, 0, tile.row / 4, step);
    } else {
      ptx::tma_load_2d(slot, map, full, tile.row, step);
    }
  }

  DG_DEVICE static void load_tiles(const GemmArgs& args, uint8_t* smem, const Stages& ring) {
    const bool is_leader = threadIdx.x % 32 == 0;
    typename Stages::Position at;
    Tile tile;
    for (Scheduler tiles = scheduler(args); tiles.pop(tile);) {
      const uint32_t count = is_leader ? steps(args, tile) : 0;
#pragma unroll 1  // copies of this loop only cost time to compile
      for (uint32_t step = 0; step < count; ++step, at.advance()) {
        ring.wait_empty(at);
        uint64_t* full = ring.full + at.slot;
        ptx::mbarrier_arrive_expect_tx(full, kStageBytes);
        load_operand<C.tile_m, cluster_n(C), kGroupsOfA>(smem + kSmem.a + at.slot * a_stage_bytes(C), args.a, full,
                                                         step * kTileK, tile.row, tile.group);
        load_operand<C.tile_n, cluster_m(C), kGroupsOfB>(smem + kSmem.b + at.slot * b_stage_bytes(C), args.b, full,
                                                         step * kTileK, tile.col, tile.group);
        uint8_t* scale_a = smem + kSmem.scale_a + at.slot * scale_a_stage_bytes(C);
        if constexpr (C.scaled_a) load_scales(scale_a, args.scale_a, full, tile, step);
      }
    }
    if (!is_leader) return;
    ptx::griddepcontrol_launch_dependents();
    if constexpr (C.cluster > 1) ring.drain(at);
  }

  DG_DEVICE static void store_tiles(const GemmArgs& args, uint8_t* smem, const Panels& ring) {
    typename Panels::Position at;
    Tile tile;
    for (Scheduler tiles = scheduler(args); tiles.pop(tile);) store_tile<C>(args, smem + kSmem.d, ring, at, tile);
  }

  DG_DEVICE static void multiply_tiles(const GemmArgs& args, uint8_t* smem, const Stages& ring, const Panels& panels) {
    // The shuffle tells the compiler that this is the same in all lanes: descriptors then live in uniform registers.
    const uint32_t warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t group_row = warpgroup * 64 * kWaves, warp_row = warp % 4 * 16;
    const uint64_t a_ring = ptx::wgmma_descriptor(smem + kSmem.a + group_row * kTileK);
    const uint64_t b_ring = ptx::wgmma_descriptor(smem + kSmem.b);
    const uint8_t* scale_a_ring = smem + kSmem.scale_a + (group_row + warp_row + lane / 4) * 4;
    typename Stages::Position at;
    typename Panels::Position panel_at;
    Scheduler tiles = scheduler(args);
    ScalesB<C> scales_b;
    Tile tile, next;
    bool more = tiles.pop(next);
    if (more) scales_b.fetch(args, next.group, next.col, 0);
    while (more) {
      tile = next;
      more = tiles.pop(next);
      const uint32_t offset = tile.col % kScaleRows, count = steps(args, tile);
      float sum[kWaves][C.tile_n / 2] = {};
      uint32_t first = 0;
      do {  // once also where there are no steps: the next tile's scales must come
        const bool last = first + 32 >= count;
        scales_b.turn();
        if (!last || more)
          scales_b.fetch(args, last ? next.group : tile.group, last ? next.col : tile.col, last ? 0 : first + 32);
        const uint32_t here = min(32, count - first);
#pragma unroll C.unroll
        for (uint32_t i = 0; i < here; ++i, at.advance()) {
          float scale_a[kWaves][2], scale_b[scales_b.kRows];
          ring.wait_full(at);
#pragma unroll
          for (uint32_t wave = 0; wave < kWaves; ++wave) {
            const uint64_t a = a_ring + (at.slot * a_stage_bytes(C) + wave * 64 * kTileK) / 16;
            const uint64_t b = b_ring + at.slot * b_stage_bytes(C) / 16;
            float partial[C.tile_n / 2];
            ptx::wgmma_fence();
            ptx::WgmmaFp8<C.tile_n>::multiply_block(partial, a, b);
            if (wave == 0) {  // while the tensor cores work
              load_scales_a(scale_a, scale_a_ring + at.slot * scale_a_stage_bytes(C) + scale_a_skip(tile));
              scales_b.get(scale_b, i);
            }
            ptx::WgmmaFp8<C.tile_n>::wait(partial);
            if (wave + 1 == kWaves) release<C.cluster>(ring, at);
            promote<C>(offset, sum[wave], partial, scale_a[wave], scale_b);
          }
        }
        first += 32;
      } while (first < count);
      stage_tile<C>(args, smem + kSmem.d, panels, panel_at, tile, group_row + warp_row, sum);
    }
  }

  /// Bytes before the tile's first row in a slot of A's scales.
  DG_DEVICE static uint32_t scale_a_skip(const Tile& tile) {
    return C.layout == Layout::offsets ? tile.row % 4 * 4 : 0;
  }
  /// A thread's two rows of each wave.
  DG_DEVICE static void load_scales_a(float (&scale)[kWaves][2], const uint8_t* slot) {
    const float* from = reinterpret_cast<const float*>(slot);
#pragma unroll
    for (uint32_t i = 0; i < kWaves * 2; ++i) scale[i / 2][i % 2] = C.scaled_a ? from[i / 2 * 64 + i % 2 * 8] : 1.f;
  }

  DG_DEVICE static void run(const GemmArgs& args) {
    extern __shared__ __align__(1024) uint8_t smem[];
    const auto barriers = [&](uint32_t offset) { return reinterpret_cast<uint64_t*>(smem + offset); };
    const Stages stages{barriers(kSmem.full), barriers(kSmem.empty)};
    const Panels panels{barriers(kSmem.d_full), barriers(kSmem.d_empty)};
    if (threadIdx.x == kMathThreads) {
      ptx::prefetch_tensormap(args.a);
      ptx::prefetch_tensormap(args.b);
      if constexpr (C.scaled_a) ptx::prefetch_tensormap(args.scale_a);
      if (args.tma_cols > 0) ptx::prefetch_tensormap(args.d);
      stages.init();
      panels.init();
      ptx::fence_mbarrier_init();
    }
    if constexpr (C.cluster > 1) {
      ptx::cluster_sync_relaxed();
    } else {
      __syncthreads();
    }
    ptx::griddepcontrol_wait();

    if (threadIdx.x >= kMathThreads) {
      if constexpr (math_warpgroups(C) > 1) ptx::setmaxnreg_dec<40>();
      const uint32_t warp = (threadIdx.x - kMathThreads) / 32;
      if (warp == 0) load_tiles(args, smem, stages);
      if (warp == 1) store_tiles(args, smem, panels);
    } else {
      if constexpr (math_warpgroups(C) > 1) ptx::setmaxnreg_inc<232>();
      multiply_tiles(args, smem, stages, panels);
    }
  }
};

}  // namespace deep_gemm
