// The reference product on CUDA cores, in double precision, with every element of D judged where it is computed.
//
// A CTA of 256 threads computes 64×64 elements, 4×4 a thread: FP8 is decoded to doubles in shared memory, 32 of k at a
// time; Σ a·b and Σ |a·b| of a 128-wide block are exact for e4m3 (43 bits) and as good as that for e5m2, whose sums may
// take more than 53; then both are scaled and added up. The FP64 units limit the speed: two fused multiply-adds for each
// product.
#pragma once

#include <deep_gemm/core/fp8.cuh>
#include <deep_gemm/verify/judge.cuh>

namespace deep_gemm {

/// What all threads add to. Zeroed before the launch.
struct VerifyTotals {
  uint64_t mismatches;
  uint64_t slots_used;
  double squared_difference;  ///< Σ (got - exact)², finite elements only
  double squared_values;      ///< Σ got² + exact²
  float worst_ratio;
};

struct VerifySlot {
  int64_t row, col;
  double got, expected, bound;
};

/// A strided matrix; `data` may be null.
struct VerifyMatrix {
  const void* data;
  int64_t row_stride, col_stride;
};

struct VerifyArgs {
  VerifyMatrix a, b, scale_a, scale_b, c, d;
  int64_t m, n, k;
  DType a_type, b_type, d_type;
  int32_t scale_rows_b;  ///< rows of B that share a scale
  uint64_t slot_count;
  VerifyTotals* totals;
  uint32_t* row_mismatches;  ///< [m]
  VerifySlot* slots;         ///< [slot_count]
};

inline constexpr uint32_t kVerifyTile = 64;
inline constexpr uint32_t kVerifyThreads = 256;

#ifdef __CUDACC__

inline constexpr uint32_t kVerifyDepth = 32;

/// One operand's part of a stage: [k][row], one column more against bank conflicts.
using VerifyPanel = double[kVerifyDepth][kVerifyTile + 1];

/// Decodes rows [row0, row0 + 64) × k [p0, p0 + 32); zeros outside.
DG_DEVICE void load_panel(const VerifyMatrix& x, DType type, int64_t rows, int64_t k, int64_t row0, int64_t p0,
                          VerifyPanel& panel) {
  const uint32_t i = threadIdx.x / 4, p = threadIdx.x % 4 * 8;
  const uint8_t* from = static_cast<const uint8_t*>(x.data) + (row0 + i) * x.row_stride + p0 + p;
#pragma unroll
  for (uint32_t e = 0; e < 8; ++e)
    panel[p + e][i] = row0 + i < rows && p0 + p + e < k ? double(decode_fp8(type, from[e])) : 0.0;
}

DG_DEVICE float load_scale(const VerifyMatrix& scale, int64_t i, int64_t block) {
  return scale.data == nullptr ? 1.0f
                               : static_cast<const float*>(scale.data)[i * scale.row_stride + block * scale.col_stride];
}

DG_DEVICE double load_value(const VerifyMatrix& x, DType type, int64_t i, int64_t j) {
  const int64_t at = i * x.row_stride + j * x.col_stride;
  return type == DType::f32 ? static_cast<const float*>(x.data)[at]
                            : decode_bf16(static_cast<const uint16_t*>(x.data)[at]);
}

/// What one thread found.
struct VerifyFindings {
  uint32_t mismatches = 0;
  float worst_ratio = 0;
  double squared_difference = 0, squared_values = 0;
};

/// A call, not inlined sixteen times: that compiles in a third of the time.
__device__ __noinline__ void judge_element(const VerifyArgs& args, int64_t row, int64_t col, double sum,
                                           double magnitude, VerifyFindings& found) {
  const double c = args.c.data == nullptr ? 0.0 : load_value(args.c, args.d_type, row, col);
  const double got = load_value(args.d, args.d_type, row, col), exact = sum + c;
  const Judgement verdict = judge({exact, magnitude, c}, (args.k + 127) / 128, args.d_type, got);
  found.worst_ratio = fmaxf(found.worst_ratio, static_cast<float>(verdict.ratio));
  if (is_finite(got) && is_finite(exact)) {
    found.squared_difference += (got - exact) * (got - exact);
    found.squared_values += got * got + exact * exact;
  }
  if (!verdict.wrong) return;
  ++found.mismatches;
  atomicAdd(args.row_mismatches + row, 1u);
  if (args.slot_count == 0) return;
  const uint64_t slot = atomicAdd(reinterpret_cast<unsigned long long*>(&args.totals->slots_used), 1ull);
  if (slot < args.slot_count) args.slots[slot] = {row, col, got, exact, verdict.bound};
}

/// Adds a warp's findings to the totals.
DG_DEVICE void report(const VerifyArgs& args, VerifyFindings found) {
#pragma unroll
  for (uint32_t distance = 16; distance > 0; distance /= 2) {
    found.mismatches += __shfl_xor_sync(0xffffffffu, found.mismatches, distance);
    found.worst_ratio = fmaxf(found.worst_ratio, __shfl_xor_sync(0xffffffffu, found.worst_ratio, distance));
    found.squared_difference += __shfl_xor_sync(0xffffffffu, found.squared_difference, distance);
    found.squared_values += __shfl_xor_sync(0xffffffffu, found.squared_values, distance);
  }
  if (threadIdx.x % 32 != 0) return;
  atomicAdd(reinterpret_cast<unsigned long long*>(&args.totals->mismatches), (unsigned long long)found.mismatches);
  atomicAdd(&args.totals->squared_difference, found.squared_difference);
  atomicAdd(&args.totals->squared_values, found.squared_values);
  // Non-negative floats order as their bits do.
  atomicMax(reinterpret_cast<int*>(&args.totals->worst_ratio), __float_as_int(found.worst_ratio));
}

/// Grid: ceil(m / 64) · ceil(n / 64) CTAs.
DG_DEVICE void verify_product(const VerifyArgs& args) {
  __shared__ VerifyPanel panel_a, panel_b;
  const uint32_t tiles_n = static_cast<uint32_t>((args.n + kVerifyTile - 1) / kVerifyTile);
  const int64_t row0 = int64_t(blockIdx.x / tiles_n) * kVerifyTile, col0 = int64_t(blockIdx.x % tiles_n) * kVerifyTile;
  const uint32_t y = threadIdx.x / 16, x = threadIdx.x % 16;  // the thread's elements: (y + 16 i, x + 16 j)
  const auto row_of = [&](uint32_t i) { return row0 + y + 16 * i; };
  const auto col_of = [&](uint32_t j) { return col0 + x + 16 * j; };

  double sum[4][4] = {}, magnitude[4][4] = {};
  for (int64_t block = 0; block * 128 < args.k; ++block) {
    double block_sum[4][4] = {}, block_magnitude[4][4] = {};
    for (int64_t p0 = block * 128; p0 < block * 128 + 128 && p0 < args.k; p0 += kVerifyDepth) {
      load_panel(args.a, args.a_type, args.m, args.k, row0, p0, panel_a);
      load_panel(args.b, args.b_type, args.n, args.k, col0, p0, panel_b);
      __syncthreads();
#pragma unroll 2
      for (uint32_t p = 0; p < kVerifyDepth; ++p) {
        double a[4], b[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) a[i] = panel_a[p][y + 16 * i], b[i] = panel_b[p][x + 16 * i];
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
#pragma unroll
          for (uint32_t j = 0; j < 4; ++j) {
            block_sum[i][j] = fma(a[i], b[j], block_sum[i][j]);
            block_magnitude[i][j] = fma(absolute(a[i]), absolute(b[j]), block_magnitude[i][j]);
          }
        }
      }
      __syncthreads();
    }
    float scale_a[4], scale_b[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      scale_a[i] = row_of(i) < args.m ? load_scale(args.scale_a, row_of(i), block) : 1.0f;
      scale_b[i] = col_of(i) < args.n ? load_scale(args.scale_b, col_of(i) / args.scale_rows_b, block) : 1.0f;
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j) {
        const double scale = scale_a[i] * scale_b[j];
        sum[i][j] += scale * block_sum[i][j];
        magnitude[i][j] += absolute(scale) * block_magnitude[i][j];
      }
    }
  }

  VerifyFindings found;
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) {
      if (row_of(i) < args.m && col_of(j) < args.n)
        judge_element(args, row_of(i), col_of(j), sum[i][j], magnitude[i][j], found);
    }
  }
  report(args, found);
}

#endif

}  // namespace deep_gemm
