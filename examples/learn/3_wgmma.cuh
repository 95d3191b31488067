// Step 3, WGMMA: the tensor cores multiply. The loop is that of step 2; what stood between the wait and the end of a step, a
// triple loop of scalar products, is two instructions' work now.
//
// wgmma is an instruction of a whole warpgroup, four warps. It multiplies 64 rows of A with N rows of B over 32 of k, reads both
// from shared memory as TMA left them, swizzle and all, and keeps the 64 × N sums in registers: N / 2 for each of the 128
// threads. It is asynchronous: started, then waited for.
#include <deep_gemm/ptx/stmatrix.cuh>
#include <deep_gemm/ptx/tma.cuh>
#include <deep_gemm/ptx/wgmma.cuh>

using namespace deep_gemm;

constexpr uint32_t kTileM = 128, kTileN = 128, kTileK = 128;
constexpr uint32_t kWaves = kTileM / 64;  // a wave is what one wgmma computes: 64 rows
constexpr uint32_t kThreads = 128;        // one warpgroup
using Wgmma = ptx::WgmmaFp8<kTileN>;

struct __align__(1024) Smem {
  uint8_t a[kTileM * kTileK];
  uint8_t b[kTileN * kTileK];
  uint64_t full;
};
constexpr uint32_t kSmemBytes = sizeof(Smem);

extern "C" __global__ __launch_bounds__(kThreads,
                                        1) void learn_3_wgmma(const __grid_constant__ TensorMap a,
                                                              const __grid_constant__ TensorMap b, const float* scale_a,
                                                              const float* scale_b, uint16_t* d, uint32_t n, uint32_t k,
                                                              uint32_t scale_b_pitch, uint32_t scale_a_pitch) {
  extern __shared__ __align__(1024) uint8_t memory[];
  Smem& smem = *reinterpret_cast<Smem*>(memory);
  const uint32_t tile_row = blockIdx.y * kTileM, tile_col = blockIdx.x * kTileN;
  // Which elements a thread holds: of each wave, accumulator i is in row `row` + 8 · (i / 2 % 2) and column
  // `col` + 8 · (i / 4) + i % 2.
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t row = warp * 16 + lane / 4, col = lane % 4 * 2;
  const float* scales_b = scale_b + tile_col / 128 * scale_b_pitch;
  const uint64_t descriptor_a = ptx::wgmma_descriptor(smem.a), descriptor_b = ptx::wgmma_descriptor(smem.b);

  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&smem.full, 1);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();

  float sum[kWaves][kTileN / 2] = {};
  for (uint32_t step = 0; step < k / kTileK; ++step) {
    if (threadIdx.x == 0) {
      ptx::mbarrier_arrive_expect_tx(&smem.full, sizeof(smem.a) + sizeof(smem.b));
      ptx::tma_load_2d(smem.a, a, &smem.full, step * kTileK, tile_row);
      ptx::tma_load_2d(smem.b, b, &smem.full, step * kTileK, tile_col);
    }
    float scale[kWaves][2];  // of the two rows that a thread has in each wave
#pragma unroll
    for (uint32_t i = 0; i < kWaves * 2; ++i)
      scale[i / 2][i % 2] = scale_a[step * scale_a_pitch + tile_row + i / 2 * 64 + row + i % 2 * 8] * scales_b[step];
    ptx::mbarrier_wait_parity(&smem.full, step % 2);

#pragma unroll
    for (uint32_t wave = 0; wave < kWaves; ++wave) {
      float partial[kTileN / 2];
      ptx::wgmma_fence();
      // Four wgmma, each 32 further along k; the first ignores what `partial` held. Descriptors count in 16 bytes.
      Wgmma::multiply_block(partial, descriptor_a + wave * 64 * kTileK / 16, descriptor_b);
      Wgmma::wait(partial);
      // Promotion has a second reason now. The tensor cores add FP8 products with 13 to 14 bits, so they get 128 of k at
      // most; the sum over all of k is taken here, in FP32.
#pragma unroll
      for (uint32_t i = 0; i < kTileN / 2; ++i) sum[wave][i] += scale[wave][i / 2 % 2] * partial[i];
    }
    __syncthreads();  // the tensor cores have read the tiles before the next ones overwrite them
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
