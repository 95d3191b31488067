// Step 1, naive: the formula as it stands, one thread for each element of D.
//
//   D[m, n] = Σ_blocks  scale_a[m, block] · scale_b[n / 128, block] · ( A[m, 128 of k] · B[n, 128 of k]ᵀ )
//
// A [m, k] and B [n, k] are e4m3, their rows one below the other. scale_a has one FP32 number for 128 values of a row and is
// MN-major: the numbers of all rows for the first 128 of k, then for the next 128. scale_b has one for 128 × 128 values. D is
// BF16. m and n are multiples of 256, k of 128.
#include <deep_gemm/core/fp8.cuh>

using namespace deep_gemm;

constexpr uint32_t kTileM = 16, kTileN = 16, kTileK = 128;  // a thread block computes a tile of kTileM × kTileN
constexpr uint32_t kThreads = kTileM * kTileN, kSmemBytes = 0;

extern "C" __global__ __launch_bounds__(kThreads) void learn_1_naive(const uint8_t* a, const uint8_t* b,
                                                                     const float* scale_a, const float* scale_b,
                                                                     uint16_t* d, uint32_t n, uint32_t k,
                                                                     uint32_t scale_b_pitch, uint32_t scale_a_pitch) {
  const uint32_t row = blockIdx.y * kTileM + threadIdx.x / kTileN, col = blockIdx.x * kTileN + threadIdx.x % kTileN;
  const uint8_t* row_a = a + uint64_t(row) * k;
  const uint8_t* row_b = b + uint64_t(col) * k;
  const float* scales_b = scale_b + col / 128 * scale_b_pitch;

  float sum = 0;
  for (uint32_t step = 0; step < k / kTileK; ++step) {
    float partial = 0;
    for (uint32_t i = step * kTileK; i < (step + 1) * kTileK; ++i)
      partial += decode_e4m3(row_a[i]) * decode_e4m3(row_b[i]);
    // Promotion: the scales change every 128 of k, so what those 128 add up to is scaled by itself.
    sum += scale_a[step * scale_a_pitch + row] * scales_b[step] * partial;
  }
  d[uint64_t(row) * n + col] = encode_bf16(sum);
}
