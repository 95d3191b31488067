// D[m, n] = Σ_blocks scale_a[m, block] · scale_b[n / 128, block] · (A[m, 128 of k] · B[n, 128 of k]ᵀ)  (+ C[m, n])
// with one scale for 128 rows of B ("1D2D") or, scale_b[n, block], one for each ("1D1D").
// A, B: FP8 e4m3 or e5m2, K-major. Scales, sums and promotion: FP32. D: BF16 or FP32, rounded once.
//
// Roles       math: the first one or two warpgroups; warpgroup g owns rows [g · 64 · row_waves, …) of the tile.
//             load: warp 0 of the last warpgroup; one lane of it issues TMA loads (A, B, scales of single rows).
//             store: warp 1 of the last warpgroup; one lane of it issues TMA stores (D), or all of them store a panel that
//             TMA cannot. The other two warps only prepare: barriers of the stages, descriptors of tensor maps.
// Barriers    full[stage]:   1 arrival of the load thread, with the bytes of a stage. Math threads wait on it.
//             empty[stage]:  1 arrival of each math warp of each CTA of the cluster. The load thread waits on it.
//             d_full[slot]:  1 arrival of each math warp that has staged its part of a panel of D. The store warp waits.
//             d_empty[slot]: 1 arrival of the store warp when the panel has been read. Math threads wait on it.
//             kept_full[block], kept_empty[block]: the same as full and empty for A's blocks of 128 of k, where C.kept_blocks
//             says that A is kept; then full and empty are B's alone.
// Start       the first load is what all others wait for, so nothing is done before it that another warp can do meanwhile:
//             see run_last_warpgroup. Math and store warps wait until all of the CTA (or cluster) have arrived.
// Timeline    load:  [tile] pop → [step] wait empty → announce bytes → A, B, scale_a by TMA
//             math:  [tile] → [step] wait full → [wave] 4 wgmma, after the last release and ask for the next stage, promote
//                    → [end of tile]
//                    → [panel] wait d_empty → round into shared memory → arrive d_full
//             store: [tile] pop → [panel] wait d_full → TMA → wait until it has read → arrive d_empty
//             The load role runs up to `stages` steps ahead, across tiles: while a tile is staged, the next one's first
//             stages arrive. One math warpgroup promotes while the other one's wgmma runs. B's scales, if
//             one to three for a tile and step, are loaded by the math warps themselves, 32 steps at a time: see BlockScales.
// Memory      see smem_layout: stages × (A, B), panels of D, parts of sums, stages × scales, barriers.
// Clusters    with Multicast::a the CTAs of a cluster share rows of A: each loads its part and multicasts it to all (b:
//             rows of B). A slot is refilled when all of them have emptied it; no CTA exits before the others are done.
//             With split_k they compute the same tile, each a part of k, and then each adds and stores a part of its
//             columns: see add_parts.
// Limits      HBM for few rows. For many rows shared memory, which moves 128 bytes a clock: a step of 256×128 reads 96 KiB
//             for its 16 wgmma and takes 48 KiB from TMA, 1152 clocks against the tensor cores' 1024 (measured:
//             1100). Then power: at full load the clock falls from 1.98 to 1.55 GHz (H100), so each instruction and byte
//             saved is speed.
// Short k     with C.kept_blocks a tile's rows of A stay in shared memory while the CTA goes along them, and only B is loaded:
//             a third less for TMA and L2, a ninth less for shared memory. The load warp brings other rows block by block, as
//             soon as the math warps, which know their next tile, have released each for the last time.
// L2          with args.stream_b the lines of B leave it before all others: see streams_b in src/gemm/plan.cpp.
// Layouts     C.layout chooses the scheduler, which says what rows a tile has, whose B it meets and what is stored; all
//             else is the same for a mixture of experts: see scheduler.cuh.
// m = 0 or n = 0: never launched. k = 0, or a tile of padding: one step on zeros, D = C or 0; see Steps.
#pragma once

#include <deep_gemm/core/pipeline.cuh>
#include <deep_gemm/gemm/args.cuh>
#include <deep_gemm/gemm/load.cuh>
#include <deep_gemm/gemm/promote.cuh>
#include <deep_gemm/gemm/split.cuh>
#include <deep_gemm/gemm/steps.cuh>
#include <deep_gemm/gemm/store.cuh>
#include <deep_gemm/ptx/control.cuh>
#include <deep_gemm/ptx/wgmma.cuh>

namespace deep_gemm {

template <GemmConfig C>
struct Fp8Gemm {
  static_assert(why_illegal(C) == nullptr, "the plan never asks for this; see why_illegal");
  static constexpr SmemLayout kSmem = smem_layout(C);
  static constexpr uint32_t kMathThreads = math_threads(C);
  static constexpr uint32_t kRowWaves = row_waves(C), kColWaves = col_waves(C), kWaves = kRowWaves * kColWaves;
  static constexpr bool kRowScalesB = C.scale_rows_b == 1;
  // ptxas multiplies a step's scales as soon as it can, between the first wgmma and the second, and there waits for them. So
  // they are loaded before the first one, which a second wave makes up for, or after the last one (__syncwarp keeps them
  // there). Either is 2 to 4 % faster (H100, 2026-11-23).
  static constexpr bool kScalesFirst = kWaves > 1 && !kRowScalesB;
  static constexpr bool kKeepsA = C.kept_blocks > 0;
  static constexpr uint32_t kAllReady = 0, kStagesReady = 1;  // named barriers
  using Args = KernelArgs<C>;
  using Stages = Ring<C.stages, 1, kMathThreads / 32 * sharers(C)>;
  using Panels = PanelRing<C>;
  using Parts = PartRing<C>;
  using Kept = Ring<max(C.kept_blocks, 1), 1, kMathThreads / 32>;

  using Scheduler = typename SchedulerOf<C.layout>::Type;

  DG_DEVICE static Scheduler scheduler(const Args& args) { return Scheduler(C, args.work, blockIdx.x); }

  /// The part of a tile that this CTA stores.
  DG_DEVICE static Tile stored_part(const Args& args, Tile tile) {
    if constexpr (C.split_k) tile.col += ptx::cluster_rank() * stored_cols(C);
    if constexpr (C.layout == Layout::k_grouped) tile.group = args.of_d[tile.group];
    return tile;
  }

  /// All threads of the CTA, or of the cluster, meet once: barriers are initialised before it.
  DG_DEVICE static void arrive() {
    if constexpr (C.cluster > 1) {
      ptx::cluster_arrive_relaxed();
    } else {
      ptx::block_arrive(kAllReady, num_threads(C));
    }
  }
  DG_DEVICE static void arrive_and_wait() {
    if constexpr (C.cluster > 1) {
      ptx::cluster_sync_relaxed();
    } else {
      ptx::block_sync(kAllReady, num_threads(C));
    }
  }

  DG_DEVICE static void load_tiles(const Args& args, uint8_t* smem, const Stages& ring, const Kept& kept) {
    ptx::griddepcontrol_wait();
    Scheduler tiles = scheduler(args);
    Tile tile;
    bool more = tiles.pop(tile);
    ptx::block_sync(kStagesReady, 64);
    if constexpr (sharers(C) > 1) {
      arrive_and_wait();
    } else {
      arrive();  // nobody else is needed to load
    }
    typename Stages::Position at;
    KeptRows kept_rows;
    for (; more; more = tiles.pop(tile)) {
      const Steps own = steps_of<C>(args, tile);
      const bool brings_a = kKeepsA && kept_rows.turn_to(tile.row);
#pragma unroll 1  // copies of this loop only cost time to compile
      for (uint32_t step = 0; step < own.count; ++step, at.advance()) {
        const uint32_t block = own.first + step;
        if (brings_a) {
          kept.wait_empty({step, kept_rows.phase}, tile);
          if (ptx::elect_one()) {
            ptx::mbarrier_arrive_expect_tx(kept.full + step, loaded_a_bytes(C, args.work.m));
            Load<C>::a(smem, step, kept.full + step, args, tile, block);
            Load<C>::scales_of_a(smem, step, kept.full + step, args, tile, block);
          }
        }
        ring.wait_empty(at, tile);
        if (!ptx::elect_one()) continue;
        uint64_t* full = ring.full + at.slot;
        ptx::mbarrier_arrive_expect_tx(full, args.stage_bytes);
        if constexpr (!kKeepsA) Load<C>::a(smem, at.slot, full, args, tile, block);
        Load<C>::b(smem, at.slot, full, args, tile, block);
        if constexpr (!kKeepsA) Load<C>::scales_of_a(smem, at.slot, full, args, tile, block);
        Load<C>::scales_of_b(smem, at.slot, full, args, tile, block);
      }
    }
    if (ptx::elect_one()) ptx::griddepcontrol_launch_dependents();
    if constexpr (sharers(C) > 1) ring.drain(at);
  }

  /// One thread: descriptors of tensor maps, and B's first stages into L2 while the kernels before this one still run. Which
  /// rows those are only the host knows in time, so not for experts.
  DG_DEVICE static void prefetch(const Args& args) {
    if constexpr (C.layout != Layout::k_grouped) {
      ptx::prefetch_tensormap(args.a);
      ptx::prefetch_tensormap(args.b);
    }
    if constexpr (C.scaled_a) ptx::prefetch_tensormap(args.scale_a);
    if constexpr (kRowScalesB) ptx::prefetch_tensormap(args.scale_b);
    if (args.tma_cols > 0) ptx::prefetch_tensormap(args.d);
    if constexpr (C.layout == Layout::dense) {
      Tile tile;
      if (Scheduler tiles = scheduler(args); !args.prefetch_b || !tiles.pop(tile)) return;
      const Steps own = steps_of<C>(args, tile);
      for (uint32_t step = 0; step < min(own.count, C.stages); ++step)
        ptx::tma_prefetch_2d(args.b, (own.first + step) * kTileK, tile.col);
    }
  }

  DG_DEVICE static void store_tiles(const Args& args, uint8_t* smem, const Panels& ring) {
    typename Panels::Position at;
    Scheduler tiles = scheduler(args);
    Tile next;
    for (bool more = tiles.pop(next); more;) {
      const Tile tile = next;
      more = tiles.pop(next);
      store_tile<C>(args, smem + kSmem.d, ring, at, stored_part(args, tile), !more);
    }
  }

  DG_DEVICE static void multiply_tiles(const Args& args, uint8_t* smem, const Stages& ring, const Kept& kept,
                                       const Panels& panels, const Parts& parts) {
    // The shuffle tells the compiler that this is the same in all lanes: descriptors then live in uniform registers.
    const uint32_t warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t group_row = warpgroup * 64 * kRowWaves, warp_row = warp % 4 * 16;
    const uint64_t a_ring = ptx::wgmma_descriptor(smem + kSmem.a + group_row * kTileK);
    const uint64_t b_ring = ptx::wgmma_descriptor(smem + kSmem.b);
    const uint8_t* scale_a_ring = smem + kSmem.scale_a + (group_row + warp_row + lane / 4) * 4;
    const uint8_t* scale_b_ring = smem + kSmem.scale_b + lane % 4 * 8;
    typename Stages::Position at;
    typename Panels::Position panel_at;
    typename Parts::Position part_at;
    Scheduler tiles = scheduler(args);
    BlockScales<C> block_scales;
    KeptRows kept_rows;
    Tile next;
    bool more = tiles.pop(next), is_full = false;
    if (!kRowScalesB && more) block_scales.fetch(args, next, steps_of<C>(args, next), 0);
    while (more) {
      const Tile tile = next;
      const uint32_t offset = tile.col % kScaleRows;
      const Steps own = steps_of<C>(args, tile);
      const bool waits_for_a = kKeepsA && kept_rows.turn_to(tile.row);
      float sum[kRowWaves][C.tile_n / 2];

      // B's scales for the 32 steps that follow those from `from` on, of this tile or the next.
      const auto fetch_after = [&](uint32_t from) {
        const bool of_this = from + 32 < own.count;
        if constexpr (BlockScales<C>::kWithoutBranch) {
          const Tile its = of_this ? tile : next;
          block_scales.fetch(args, its, of_this ? own : steps_of<C>(args, next), of_this ? from + 32 : 0,
                             of_this || more);
        } else if (of_this) {
          block_scales.fetch(args, tile, own, from + 32);
        } else if (more) {
          block_scales.fetch(args, next, steps_of<C>(args, next), 0);
        }
      };
      const auto step = [&](bool is_first, uint32_t i) __attribute__((always_inline)) {
        float scale_a[kRowWaves][2], scale_b[scales_b(C)];
        if constexpr (kScalesFirst) block_scales.get(scale_b, i);
        const typename Kept::Position of_kept{i, kept_rows.phase};
        if (waits_for_a) kept.wait_full(of_kept, tile);
        if (!is_full) ring.wait_full(at, tile);
        const uint32_t slot_of_a = kKeepsA ? i : at.slot;
        const uint8_t* slot_of_scales_a = scale_a_ring + slot_of_a * scale_a_stage_bytes(C) + scale_a_skip(tile);
        if constexpr (kScalesFirst) load_scales_a(scale_a, slot_of_scales_a);
#pragma unroll
        for (uint32_t wave = 0; wave < kWaves; ++wave) {
          const uint32_t row_wave = wave / kColWaves, first_col = wave % kColWaves * wave_cols(C);
          const uint64_t a = a_ring + (slot_of_a * a_stage_bytes(C) + row_wave * 64 * kTileK) / 16;
          const uint64_t b = b_ring + (at.slot * b_stage_bytes(C) + first_col * kTileK) / 16;
          float partial[wave_cols(C) / 2];
          ptx::wgmma_fence();
          ptx::WgmmaFp8<wave_cols(C)>::multiply_block(partial, a, b);
          if (wave == 0) {  // while the tensor cores work
            if constexpr (!kScalesFirst) {
              __syncwarp();
              load_scales_a(scale_a, slot_of_scales_a);
              if constexpr (kRowScalesB) {
                load_scales_b(scale_b, scale_b_ring + at.slot * scale_b_stage_bytes(C));
              } else {
                block_scales.get(scale_b, i);
              }
            }
            if (is_first) more = tiles.pop(next);
            if (is_first && !kRowScalesB) fetch_after(0);
          }
          ptx::WgmmaFp8<wave_cols(C)>::wait(partial);
          if (wave + 1 == kWaves) {
            release<sharers(C)>(ring, at);
            if (kKeepsA && more && next.row != tile.row) release<1>(kept, of_kept);
            at.advance();
            is_full = ring.is_full(at);  // asked now, since the answer takes 80 clocks and promotion as long
          }
          promote<C>(is_first, offset, first_col, sum[row_wave], partial, scale_a[row_wave], scale_b);
        }
      };

      if constexpr (!kRowScalesB) block_scales.turn();
      // Apart, since it sets the sums: 500 clocks to zero them are saved, and the next tile is found while tensor cores work.
      step(true, 0);
      uint32_t i = 1;
      for (uint32_t from = 0; from < own.count; from += 32, i = 0) {
        if (!kRowScalesB && from > 0) {
          block_scales.turn();
          fetch_after(from);
        }
        const uint32_t here = min(32, own.count - from);
#pragma unroll C.unroll
        for (; i < here; ++i) step(false, i);
      }
      if constexpr (C.split_k) {
        float total[kRowWaves][stored_cols(C) / 2];
        add_parts<C>(smem + kSmem.parts, parts, part_at, tile, group_row + warp_row, sum, total);
        stage_tile<C>(args, smem + kSmem.d, panels, panel_at, stored_part(args, tile), group_row + warp_row, total);
      } else {
        stage_tile<C>(args, smem + kSmem.d, panels, panel_at, stored_part(args, tile), group_row + warp_row, sum);
      }
    }
    if constexpr (C.split_k) parts.drain(part_at);
  }

  /// Bytes before the tile's first row in a slot of A's scales.
  DG_DEVICE static uint32_t scale_a_skip(const Tile& tile) {
    return C.layout == Layout::offsets ? tile.row % 4 * 4 : 0;
  }
  /// A thread's two rows of each wave.
  DG_DEVICE static void load_scales_a(float (&scale)[kRowWaves][2], const uint8_t* slot) {
    const float* from = reinterpret_cast<const float*>(slot);
#pragma unroll
    for (uint32_t i = 0; i < kRowWaves * 2; ++i) scale[i / 2][i % 2] = C.scaled_a ? from[i / 2 * 64 + i % 2 * 8] : 1.f;
  }
  /// A thread's two columns of each eight.
  DG_DEVICE static void load_scales_b(float (&scale)[scales_b(C)], const uint8_t* slot) {
#pragma unroll
    for (uint32_t i = 0; i < scales_b(C); i += 2) {
      const float2 two = *reinterpret_cast<const float2*>(slot + i / 2 * 32);
      scale[i] = two.x, scale[i + 1] = two.y;
    }
  }

  DG_DEVICE static void run(const Args& args) {
    extern __shared__ __align__(1024) uint8_t smem[];
    const auto barriers = [&](uint32_t offset) { return reinterpret_cast<uint64_t*>(smem + offset); };
    const Stages stages{barriers(kSmem.full), barriers(kSmem.empty), "stages"};
    const Panels panels{barriers(kSmem.d_full), barriers(kSmem.d_empty), "panels"};
    const Parts parts{barriers(kSmem.parts_full), barriers(kSmem.parts_empty), "parts"};
    const Kept kept{barriers(kSmem.kept_full), barriers(kSmem.kept_empty), "kept"};
    const uint32_t warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
    // Math comes first in the code: after the other roles its loop took up to 1 % longer (128×256, H100, 2026-11-24).
    if (warp >= kMathThreads / 32)
      return run_last_warpgroup(args, smem, warp - kMathThreads / 32, stages, kept, panels, parts);
    ptx::setmaxnreg_inc<math_registers(C)>();
    arrive_and_wait();
    ptx::griddepcontrol_wait();
    multiply_tiles(args, smem, stages, kept, panels, parts);
  }

  /// While the load warp finds its first tile, two others initialise the barriers, and the last one fetches descriptors. A
  /// first load is issued some 900 clocks after the CTA's first instruction; done by one thread, one after the other, that
  /// took 2300 (H100, clean L2, 2026-11-24). `warp`: of the warpgroup.
  DG_DEVICE static void run_last_warpgroup(const Args& args, uint8_t* smem, uint32_t warp, const Stages& stages,
                                           const Kept& kept, const Panels& panels, const Parts& parts) {
    ptx::setmaxnreg_dec<load_registers(C)>();
    if (warp == 0) return load_tiles(args, smem, stages, kept);
    if (warp == 1) {
      if (ptx::elect_one()) {
        panels.init();
        if constexpr (C.split_k) parts.init();
        ptx::fence_mbarrier_init();
      }
      __syncwarp();
      arrive_and_wait();
      ptx::griddepcontrol_wait();
      return store_tiles(args, smem, panels);
    }
    if (warp == 2) {
      if (ptx::elect_one()) {
        stages.init();
        if constexpr (kKeepsA) kept.init();
        ptx::fence_mbarrier_init();
      }
      __syncwarp();
      ptx::block_sync(kStagesReady, 64);
    } else {
      if (ptx::elect_one()) prefetch(args);
      __syncwarp();
    }
    arrive();
  }
};

}  // namespace deep_gemm
