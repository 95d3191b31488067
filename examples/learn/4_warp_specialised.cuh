// Step 4, warp specialisation: one warp only loads, four warps only compute, and a ring of six stages lies between them.
//
// In a block of step 3 the tensor cores wait while TMA loads, and TMA waits while they compute. Here the load warp runs up to
// six steps ahead of the math warps. Two barriers a stage are all they have in common:
//   full[s]   the load thread has announced the stage's bytes and they have landed: the math warps may use it
//   empty[s]  each of the four math warps has finished with it: the load thread may fill it again
#include <deep_gemm/core/pipeline.cuh>
#include <deep_gemm/ptx/stmatrix.cuh>
#include <deep_gemm/ptx/tma.cuh>
#include <deep_gemm/ptx/wgmma.cuh>

using namespace deep_gemm;

constexpr uint32_t kTileM = 128, kTileN = 128, kTileK = 128, kStages = 6;
constexpr uint32_t kWaves = kTileM / 64;
constexpr uint32_t kMathThreads = 128, kThreads = kMathThreads + 32;
using Wgmma = ptx::WgmmaFp8<kTileN>;
using Stages = Ring<kStages, 1, kMathThreads / 32>;  // arrivals: one makes a stage full, four make it empty

struct __align__(1024) Smem {
  uint8_t a[kStages][kTileM * kTileK];
  uint8_t b[kStages][kTileN * kTileK];
  float scale_a[kStages][kTileM];
  uint64_t full[kStages], empty[kStages];
};
constexpr uint32_t kSmemBytes = sizeof(Smem), kStageBytes = sizeof(Smem::a[0]) + sizeof(Smem::b[0]) + kTileM * 4;

/// One thread: keeps the ring filled.
DG_DEVICE void load(Smem& smem, const Stages& ring, const TensorMap& a, const TensorMap& b, const TensorMap& scale_a,
                    uint32_t tile_row, uint32_t tile_col, uint32_t steps) {
  Stages::Position at;
#pragma unroll 1
  for (uint32_t step = 0; step < steps; ++step, at.advance()) {
    ring.wait_empty(at);
    uint64_t* full = ring.full + at.slot;
    ptx::mbarrier_arrive_expect_tx(full, kStageBytes);
    ptx::tma_load_2d(smem.a[at.slot], a, full, step * kTileK, tile_row);
    ptx::tma_load_2d(smem.b[at.slot], b, full, step * kTileK, tile_col);
    ptx::tma_load_2d(smem.scale_a[at.slot], scale_a, full, tile_row, step);
  }
}

/// One warpgroup: multiplies, promotes, stores.
DG_DEVICE void multiply(Smem& smem, const Stages& ring, const float* scales_b, uint16_t* d, uint32_t n,
                        uint32_t tile_row, uint32_t tile_col, uint32_t steps) {
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t row = warp * 16 + lane / 4, col = lane % 4 * 2;
  const uint64_t descriptor_a = ptx::wgmma_descriptor(smem.a), descriptor_b = ptx::wgmma_descriptor(smem.b);

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
      if (wave + 1 == kWaves) release<1>(ring, at);  // promotion needs registers only: the stage is free already
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

extern "C" __global__ __launch_bounds__(kThreads, 1) void learn_4_warp_specialised(
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
  __syncthreads();

  if (threadIdx.x == kMathThreads) load(smem, ring, a, b, scale_a, tile_row, tile_col, steps);
  if (threadIdx.x < kMathThreads)
    multiply(smem, ring, scale_b + tile_col / 128 * scale_b_pitch, d, n, tile_row, tile_col, steps);
}
