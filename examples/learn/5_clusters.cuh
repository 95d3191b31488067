// Step 5, clusters and promotion: two math warpgroups take turns on the tensor cores, and two thread blocks share what they load.
//
// Promotion. In step 4 the tensor cores stand still while the warpgroup scales and adds. With a second warpgroup, which owns the
// tile's lower 128 rows and otherwise does the same, one promotes while the other one's wgmma run. Nobody arranges the turns:
// whoever is ready starts. The accumulators of both need registers that the load warp does not: setmaxnreg moves them.
//
// Clusters. The tile is 256 × 128, and the two thread blocks of a cluster stand side by side along n: same rows of A, different
// columns. Each loads half of A's rows and TMA writes that half into the shared memory of both (multicast), so a block reads
// half as much of A. A stage is empty only when both blocks' warps have left it, since both blocks' TMA will write to it.
#include <deep_gemm/core/pipeline.cuh>
#include <deep_gemm/ptx/control.cuh>
#include <deep_gemm/ptx/stmatrix.cuh>
#include <deep_gemm/ptx/tma.cuh>
#include <deep_gemm/ptx/wgmma.cuh>

using namespace deep_gemm;

constexpr uint32_t kTileM = 256, kTileN = 128, kTileK = 128, kStages = 4, kCluster = 2;
constexpr uint32_t kWarpgroups = 2, kWaves = kTileM / kWarpgroups / 64;
constexpr uint32_t kMathThreads = kWarpgroups * 128, kThreads = kMathThreads + 128;
using Wgmma = ptx::WgmmaFp8<kTileN>;
using Stages = Ring<kStages, 1, kMathThreads / 32 * kCluster>;  // arrivals: the math warps of both blocks

struct __align__(1024) Smem {
  uint8_t a[kStages][kTileM * kTileK];
  uint8_t b[kStages][kTileN * kTileK];
  float scale_a[kStages][kTileM];
  uint64_t full[kStages], empty[kStages];
};
constexpr uint32_t kSmemBytes = sizeof(Smem), kStageBytes = sizeof(Smem::a[0]) + sizeof(Smem::b[0]) + kTileM * 4;

/// One thread: keeps the ring filled, its own and, with half of A, its partner's.
DG_DEVICE void load(Smem& smem, const Stages& ring, const TensorMap& a, const TensorMap& b, const TensorMap& scale_a,
                    uint32_t tile_row, uint32_t tile_col, uint32_t steps) {
  const uint32_t half = ptx::cluster_rank() * (kTileM / kCluster);
  Stages::Position at;
#pragma unroll 1
  for (uint32_t step = 0; step < steps; ++step, at.advance()) {
    ring.wait_empty(at);
    uint64_t* full = ring.full + at.slot;
    ptx::mbarrier_arrive_expect_tx(full, kStageBytes);  // all that lands here, whoever sends it
    ptx::tma_load_2d_multicast(smem.a[at.slot] + half * kTileK, a, full, step * kTileK, tile_row + half, 0b11);
    ptx::tma_load_2d(smem.b[at.slot], b, full, step * kTileK, tile_col);
    ptx::tma_load_2d(smem.scale_a[at.slot], scale_a, full, tile_row, step);
  }
  ring.drain(at);  // while the partner may still write or arrive here, this block must not exit
}

/// One warpgroup: multiplies, promotes, stores. The loop is that of step 4.
DG_DEVICE void multiply(Smem& smem, const Stages& ring, const float* scales_b, uint16_t* d, uint32_t n,
                        uint32_t tile_row, uint32_t tile_col, uint32_t steps) {
  // All threads of a warp get the same number; the shuffle lets the compiler know, which keeps descriptors in uniform registers.
  const uint32_t warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0), first_row = warpgroup * kWaves * 64;
  const uint32_t warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const uint32_t row = first_row + warp * 16 + lane / 4, col = lane % 4 * 2;
  const uint64_t descriptor_a = ptx::wgmma_descriptor(smem.a[0] + first_row * kTileK);
  const uint64_t descriptor_b = ptx::wgmma_descriptor(smem.b);

  float sum[kWaves][kTileN / 2] = {};
  Stages::Position at;
#pragma unroll 1
  for (uint32_t step = 0; step < steps; ++step, at.advance()) {
    const float scale_b = scales_b[step];
    float scale[kWaves][2];
    ring.wait_full(at);
#pragma unroll
    for (uint32_t wave = 0; wave < kWaves; ++wave) {
      float partial[kTileN / 2];
      ptx::wgmma_fence();
      Wgmma::multiply_block(partial, descriptor_a + (at.slot * kTileM + wave * 64) * kTileK / 16,
                            descriptor_b + at.slot * kTileN * kTileK / 16);
      if (wave == 0) {  // while the tensor cores work
#pragma unroll
        for (uint32_t i = 0; i < kWaves * 2; ++i)
          scale[i / 2][i % 2] = smem.scale_a[at.slot][i / 2 * 64 + row + i % 2 * 8] * scale_b;
      }
      Wgmma::wait(partial);
      if (wave + 1 == kWaves) release<kCluster>(ring, at);  // to both blocks
#pragma unroll
      for (uint32_t i = 0; i < kTileN / 2; ++i) sum[wave][i] += scale[wave][i / 2 % 2] * partial[i];
    }
  }

#pragma unroll
  for (uint32_t wave = 0; wave < kWaves; ++wave) {
#pragma unroll
    for (uint32_t i = 0; i < kTileN / 2; i += 2) {
      const uint32_t r = tile_row + wave * 64 + row + i / 2 % 2 * 8, c = tile_col + col + i / 4 * 8;
      *reinterpret_cast<uint32_t*>(d + uint64_t(r) * n + c) = ptx::pack_bf16x2(sum[wave][i], sum[wave][i + 1]);
    }
  }
}

extern "C" __global__ __launch_bounds__(kThreads, 1) void learn_5_clusters(
    const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap scale_a,
    const float* scale_b, uint16_t* d, uint32_t n, uint32_t k, uint32_t scale_b_pitch) {
  extern __shared__ __align__(1024) uint8_t memory[];
  Smem& smem = *reinterpret_cast<Smem*>(memory);
  const Stages ring{smem.full, smem.empty};
  const uint32_t tile_row = blockIdx.y * kTileM, tile_col = blockIdx.x * kTileN, steps = k / kTileK;

  if (threadIdx.x == 0) {
    ring.init();
    ptx::fence_mbarrier_init();
  }
  ptx::cluster_sync_relaxed();  // nobody may arrive at a partner's barrier before it exists

  // 65536 registers for 384 threads are 168 each. The load warpgroup keeps 40, the math warpgroups take 232.
  if (threadIdx.x >= kMathThreads) {
    ptx::setmaxnreg_dec<40>();
    if (threadIdx.x == kMathThreads) load(smem, ring, a, b, scale_a, tile_row, tile_col, steps);
  } else {
    ptx::setmaxnreg_inc<232>();
    multiply(smem, ring, scale_b + tile_col / 128 * scale_b_pitch, d, n, tile_row, tile_col, steps);
  }
}
