// D[m, n] = Σ_blocks scale_a[m, block] · scale_b[n / 128, block] · (A[m, 128 of k] · B[n, 128 of k]ᵀ)  (+ C[m, n])
// A, B: FP8 e4m3, K-major. Scales, sums and promotion: FP32. D: BF16 or FP32, rounded once.
//
// Roles       math: the first one or two warpgroups; warpgroup g owns rows [g · 64 · waves, …) of the tile.
//             load: the last warpgroup. Thread 0 of warp 0 issues TMA (A, B, A's scales); the first lanes of warp 1
//                   copy B's scales; its other warps only wait for the end.
// Barriers    full[stage]:  1 arrival of the TMA thread with the bytes of a stage + 1 of each lane that copies a scale
// of
//                           B, once its copy has landed. Math threads wait on it.
//             empty[stage]: 1 arrival of each math warp of each CTA of the cluster. The load warps wait on it.
// Timeline    load: [tile] pop → [step] wait empty → announce bytes → A, B, scale_a by TMA | scale_b by cp.async
//             math: [tile] pop → [step] wait full → [wave] 4 wgmma, promote → release → [end of tile] C, store
//             The load role runs up to `stages` steps ahead, across tiles: while a tile is stored, the next one's first
//             stages arrive. One math warpgroup promotes while the other one's wgmma runs.
// Memory      see smem_layout: stages × (A, B), staging of D, stages × (scale_a, scale_b), barriers.
// Clusters    with Multicast::a the CTAs of a cluster share rows of A: each loads its part and multicasts it to all (b:
//             rows of B). A slot is refilled when all of them have emptied it; no CTA exits before the others are done.
// Limits      tensor cores for many rows: m64nNk32 takes N / 2 clocks, promotion a quarter of that, hidden behind the
// other
//             warpgroup. HBM for few rows.
// m = 0 or n = 0: never launched. k = 0: no step, D = C or 0.
#pragma once

#include <deep_gemm/core/pipeline.cuh>
#include <deep_gemm/gemm/args.cuh>
#include <deep_gemm/gemm/promote.cuh>
#include <deep_gemm/gemm/scheduler.cuh>
#include <deep_gemm/gemm/store.cuh>
#include <deep_gemm/ptx/wgmma.cuh>

namespace deep_gemm {

__device__ const float kUnitScale = 1.f;

template <GemmConfig C>
struct Fp8Gemm1d2d {
  static_assert(why_illegal(C) == nullptr, "the plan never asks for this; see why_illegal");
  static constexpr SmemLayout kSmem = smem_layout(C);
  static constexpr uint32_t kMathThreads = math_threads(C), kWaves = waves(C), kScalesB = scale_b_rows(C);
  static constexpr uint32_t kStageBytes = a_stage_bytes(C) + b_stage_bytes(C) + scale_a_stage_bytes(C);
  using Ring = Pipeline<C.stages, 1 + kScalesB, kMathThreads / 32, C.cluster>;

  DG_DEVICE static DenseScheduler scheduler(const GemmArgs& args) {
    return DenseScheduler(C, args.m, args.n, args.raster_tiles, blockIdx.x, gridDim.x);
  }

  /// One operand's part of a stage. `kShare`: this many CTAs of the cluster load a part each and multicast it.
  template <uint32_t kRows, uint32_t kShare>
  DG_DEVICE static void load_operand(uint8_t* slot, const TensorMap& map, uint64_t* full, uint32_t k, uint32_t row) {
    if constexpr (kShare == 1) {
      ptx::tma_load_2d(slot, map, full, k, row);
    } else {
      constexpr uint32_t kPart = kRows / kShare;
      const uint32_t rank = ptx::cluster_rank();
      ptx::tma_load_2d_multicast(slot + rank * kPart * kTileK, map, full, k, row + rank * kPart, (1 << kShare) - 1);
    }
  }

  DG_DEVICE static void load_tiles(const GemmArgs& args, uint8_t* smem, const Ring& ring) {
    const uint32_t steps = ceil_div(args.k, kTileK);
    typename Ring::State at;
    Tile tile;
    for (DenseScheduler tiles = scheduler(args); tiles.pop(tile);) {
      for (uint32_t step = 0; step < steps; ++step, at.advance()) {
        ring.wait_empty(at);
        uint64_t* full = ring.full + at.stage;
        ptx::mbarrier_arrive_expect_tx(full, kStageBytes);
        load_operand<C.tile_m, cluster_n(C)>(smem + kSmem.a + at.stage * a_stage_bytes(C), args.a, full, step * kTileK,
                                             tile.row);
        load_operand<C.tile_n, cluster_m(C)>(smem + kSmem.b + at.stage * b_stage_bytes(C), args.b, full, step * kTileK,
                                             tile.col);
        if constexpr (C.scaled_a)
          ptx::tma_load_2d(smem + kSmem.scale_a + at.stage * scale_a_stage_bytes(C), args.scale_a, full, tile.row,
                           step);
      }
    }
    ptx::griddepcontrol_launch_dependents();
    if constexpr (C.cluster > 1) ring.drain(at);
  }

  DG_DEVICE static void load_scales_b(const GemmArgs& args, uint8_t* smem, const Ring& ring, uint32_t lane) {
    const uint32_t steps = ceil_div(args.k, kTileK), last_row = (args.n - 1) / kScaleRows;
    float* slots = reinterpret_cast<float*>(smem + kSmem.scale_b);
    typename Ring::State at;
    Tile tile;
    for (DenseScheduler tiles = scheduler(args); tiles.pop(tile);) {
      const uint32_t row = min(tile.col / kScaleRows + lane, last_row);
      const float* scale = args.scale_b ? args.scale_b + row * args.scale_b_stride_n : &kUnitScale;
      const int64_t stride = args.scale_b ? args.scale_b_stride_k : 0;
      for (uint32_t step = 0; step < steps; ++step, at.advance()) {
        ring.wait_empty(at);
        ptx::cp_async_4(slots + at.stage * scale_b_stage_floats(C) + lane, scale + step * stride);
        ptx::mbarrier_arrive_after_cp_async(ring.full + at.stage);
      }
    }
  }

  DG_DEVICE static void multiply_tiles(const GemmArgs& args, uint8_t* smem, const Ring& ring) {
    // The shuffle tells the compiler that this is the same in all lanes: descriptors then live in uniform registers.
    const uint32_t warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t group_row = warpgroup * 64 * kWaves, warp_row = warp % 4 * 16;
    const uint32_t steps = ceil_div(args.k, kTileK);
    const uint64_t a_ring = ptx::wgmma_descriptor(smem + kSmem.a + group_row * kTileK);
    const uint64_t b_ring = ptx::wgmma_descriptor(smem + kSmem.b);
    const float* scale_a_ring = reinterpret_cast<float*>(smem + kSmem.scale_a) + group_row + warp_row + lane / 4;
    const float* scale_b_ring = reinterpret_cast<float*>(smem + kSmem.scale_b);
    uint8_t* staging = smem + kSmem.d + warp * store_ring_bytes(C);
    uint32_t staging_slot = 0;
    typename Ring::State at;
    Tile tile;
    for (DenseScheduler tiles = scheduler(args); tiles.pop(tile);) {
      const uint32_t offset = tile.col % kScaleRows;
      float sum[kWaves][C.tile_n / 2] = {};
#pragma unroll C.unroll
      for (uint32_t step = 0; step < steps; ++step, at.advance()) {
        float scale_a[kWaves][2], scale_b[kScalesB];
        ring.wait_full(at);
#pragma unroll
        for (uint32_t wave = 0; wave < kWaves; ++wave) {
          const uint64_t a = a_ring + (at.stage * a_stage_bytes(C) + wave * 64 * kTileK) / 16;
          const uint64_t b = b_ring + at.stage * b_stage_bytes(C) / 16;
          float partial[C.tile_n / 2];
          ptx::wgmma_fence_operands(partial);
          ptx::wgmma_fence();
#pragma unroll
          for (uint32_t k = 0; k < kTileK / 32; ++k)
            ptx::WgmmaFp8<C.tile_n>::mma(partial, a + k * 2, b + k * 2, k != 0);
          ptx::wgmma_commit_group();
          if (wave == 0)
            load_scales(scale_a, scale_b, scale_a_ring + at.stage * C.tile_m,
                        scale_b_ring + at.stage * scale_b_stage_floats(C));
          ptx::wgmma_fence_operands(partial);
          ptx::wgmma_wait_group<0>();
          if (wave + 1 == kWaves) ring.release(at);
          promote<C>(offset, sum[wave], partial, scale_a[wave], scale_b);
        }
      }
#pragma unroll
      for (uint32_t wave = 0; wave < kWaves; ++wave)
        store_rows<C>(args, staging, staging_slot, tile.row + group_row + wave * 64 + warp_row, tile.col, sum[wave]);
    }
    if (lane == 0) ptx::tma_store_wait_read<0>();
  }

  /// A thread's two rows of each wave, and the rows of B's scales that the tile touches; while the tensor cores work.
  DG_DEVICE static void load_scales(float (&scale_a)[kWaves][2], float (&scale_b)[kScalesB], const float* from_a,
                                    const float* from_b) {
#pragma unroll
    for (uint32_t i = 0; i < kWaves * 2; ++i) scale_a[i / 2][i % 2] = C.scaled_a ? from_a[i / 2 * 64 + i % 2 * 8] : 1.f;
#pragma unroll
    for (uint32_t r = 0; r < kScalesB; ++r) scale_b[r] = from_b[r];
  }

  DG_DEVICE static void run(const GemmArgs& args) {
    extern __shared__ __align__(1024) uint8_t smem[];
    const Ring ring{reinterpret_cast<uint64_t*>(smem + kSmem.full), reinterpret_cast<uint64_t*>(smem + kSmem.empty)};
    if (threadIdx.x == kMathThreads) {
      ptx::prefetch_tensormap(args.a);
      ptx::prefetch_tensormap(args.b);
      if constexpr (C.scaled_a) ptx::prefetch_tensormap(args.scale_a);
      ring.init();
    }
    if constexpr (C.cluster > 1) {
      ptx::cluster_sync_relaxed();
    } else {
      __syncthreads();
    }
    ptx::griddepcontrol_wait();

    if (threadIdx.x >= kMathThreads) {
      if constexpr (math_warpgroups(C) > 1) ptx::setmaxnreg_dec<40>();
      const uint32_t thread = threadIdx.x - kMathThreads;
      if (thread == 0) {
        load_tiles(args, smem, ring);
      } else if (thread >= 32 && thread < 32 + kScalesB) {
        load_scales_b(args, smem, ring, thread - 32);
      }
    } else {
      if constexpr (math_warpgroups(C) > 1) ptx::setmaxnreg_inc<232>();
      multiply_tiles(args, smem, ring);
    }
  }
};

}  // namespace deep_gemm
