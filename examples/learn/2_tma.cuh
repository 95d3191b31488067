// Step 2, TMA: a thread block computes 128 × 128 elements of D from tiles of A and B in shared memory, and a copy engine of its
// own, TMA, brings them there.
//
// Loop over k, 128 at a time: one thread tells TMA to fetch 128 × 128 bytes of A and of B; all wait until they have landed;
// each thread multiplies its 8 rows by its 8 columns. A value is fetched from memory once and used 128 times.
#include <deep_gemm/core/fp8.cuh>
#include <deep_gemm/ptx/tma.cuh>

using namespace deep_gemm;

constexpr uint32_t kTileM = 128, kTileN = 128, kTileK = 128;
constexpr uint32_t kThreads = 256, kEach = 8;  // 16 × 16 threads; each has kEach rows and columns, 16 apart

struct __align__(1024) Smem {  // the swizzle counts rows from a multiple of 1024 bytes
  uint8_t a[kTileM * kTileK];
  uint8_t b[kTileN * kTileK];
  uint64_t full;
};
constexpr uint32_t kSmemBytes = sizeof(Smem);

/// Four values of a row of a tile, from `k` on. TMA has put the row's 16-byte chunk c at place c ^ (row % 8): the 128-byte
/// swizzle. So eight rows' chunks with the same c lie in different banks, and threads read them together.
DG_DEVICE uint32_t four_values(const uint8_t* tile, uint32_t row, uint32_t k) {
  const uint32_t chunk = k / 16 ^ row % 8;
  return *reinterpret_cast<const uint32_t*>(tile + row * kTileK + chunk * 16 + k % 16);
}

extern "C" __global__ __launch_bounds__(kThreads, 1) void learn_2_tma(const __grid_constant__ TensorMap a,
                                                                      const __grid_constant__ TensorMap b,
                                                                      const float* scale_a, const float* scale_b,
                                                                      uint16_t* d, uint32_t n, uint32_t k,
                                                                      uint32_t scale_b_pitch, uint32_t scale_a_pitch) {
  extern __shared__ __align__(1024) uint8_t memory[];
  Smem& smem = *reinterpret_cast<Smem*>(memory);
  const uint32_t tile_row = blockIdx.y * kTileM, tile_col = blockIdx.x * kTileN;
  const uint32_t row = threadIdx.x / 16, col = threadIdx.x % 16;  // in the tile; the others follow 16 apart
  const float* scales_b = scale_b + tile_col / 128 * scale_b_pitch;

  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&smem.full, 1);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();

  float sum[kEach][kEach] = {};
  for (uint32_t step = 0; step < k / kTileK; ++step) {
    if (threadIdx.x == 0) {
      ptx::mbarrier_arrive_expect_tx(&smem.full, sizeof(smem.a) + sizeof(smem.b));
      ptx::tma_load_2d(smem.a, a, &smem.full, step * kTileK, tile_row);
      ptx::tma_load_2d(smem.b, b, &smem.full, step * kTileK, tile_col);
    }
    ptx::mbarrier_wait_parity(&smem.full, step % 2);  // a barrier's phases are told apart by their parity

    float partial[kEach][kEach] = {};
#pragma unroll 1
    for (uint32_t at = 0; at < kTileK; at += 4) {
      uint32_t codes_a[kEach], codes_b[kEach];
      for (uint32_t i = 0; i < kEach; ++i) {
        codes_a[i] = four_values(smem.a, row + i * 16, at);
        codes_b[i] = four_values(smem.b, col + i * 16, at);
      }
#pragma unroll
      for (uint32_t bits = 0; bits < 32; bits += 8) {
        float x[kEach], y[kEach];
        for (uint32_t i = 0; i < kEach; ++i) {
          x[i] = decode_e4m3(uint8_t(codes_a[i] >> bits));
          y[i] = decode_e4m3(uint8_t(codes_b[i] >> bits));
        }
        for (uint32_t i = 0; i < kEach; ++i)
          for (uint32_t j = 0; j < kEach; ++j) partial[i][j] += x[i] * y[j];
      }
    }
    for (uint32_t i = 0; i < kEach; ++i) {
      const float scale = scale_a[step * scale_a_pitch + tile_row + row + i * 16] * scales_b[step];
      for (uint32_t j = 0; j < kEach; ++j) sum[i][j] += scale * partial[i][j];
    }
    __syncthreads();  // all have read the tiles before the next ones overwrite them
  }

  for (uint32_t i = 0; i < kEach; ++i)
    for (uint32_t j = 0; j < kEach; ++j)
      d[uint64_t(tile_row + row + i * 16) * n + tile_col + col + j * 16] = encode_bf16(sum[i][j]);
}
