// Quantisation to FP8 with one scale for a block of x: 128 columns of one row, 128 rows of one column, or both.
//
//   scale = max(|block|, 1e-4) / max, rounded up to a power of two on request;   out = fp8(x / scale)
//
// where max is the type's largest value: e4m3 448, e5m2 57344.
// Sixteen threads hold 128 columns of a row, eight neighbouring ones each; a CTA of 256 threads takes 16 rows a pass and
// one block of columns. All of a CTA's elements are in registers before the first is needed, so the memory is busy
// throughout: it alone limits the speed. Host and device share the formula; src/cpu/quantize.cpp has the same bits.
#pragma once

#include <deep_gemm/core/fp8.cuh>
#include <deep_gemm/ptx/convert.cuh>

namespace deep_gemm {

struct QuantizeArgs {
  const void* x;  ///< [rows, cols], row pitch `x_pitch`
  uint8_t* out;   ///< [rows, cols], row pitch `out_pitch`
  float* scale;   ///< one for each block, strides in elements
  int64_t x_pitch, out_pitch, scale_row_stride, scale_col_stride;
  int64_t rows, cols;
  int32_t power_of_two;  ///< round scales up to powers of two
  int32_t vectors;       ///< x has 16-byte aligned rows, out 8-byte aligned ones
};

/// How many rows and columns of x share a scale: 1 × 128, 128 × 128 or 128 × 1.
struct ScaleBlock {
  int32_t rows, cols;
};

inline constexpr uint32_t kQuantizeThreads = 256;
inline constexpr uint32_t kQuantizeRowsPerPass = 16;
DG_HD constexpr uint32_t quantize_passes(ScaleBlock block) { return block.rows == 128 ? 8 : 2; }
DG_HD constexpr uint32_t quantize_rows_per_cta(ScaleBlock block) {
  return quantize_passes(block) * kQuantizeRowsPerPass;
}

/// IEEE division, whatever the compiler's flags.
DG_HD float divide(float x, float y) {
#ifdef __CUDA_ARCH__
  return ptx::div_rn_f32(x, y);
#else
  return x / y;
#endif
}

/// The scale of a block whose largest magnitude, NaN left out, is `largest`, for the FP8 type `out`.
DG_HD float quantization_scale(float largest, DType out, bool power_of_two) {
  const float scale = divide(largest > 1e-4f ? largest : 1e-4f, largest_fp8(out));
  return power_of_two ? round_up_to_power_of_two(scale) : scale;
}

#ifdef __CUDACC__

template <DType type>
DG_DEVICE float decode_element(const void* row, int64_t j) {
  if constexpr (type == DType::f32) return static_cast<const float*>(row)[j];
  if constexpr (type == DType::bf16) return decode_bf16(static_cast<const uint16_t*>(row)[j]);
  if constexpr (type == DType::f16) return decode_f16(static_cast<const uint16_t*>(row)[j]);
}

/// Eight elements from `row` on, 16-byte aligned.
template <DType type>
DG_DEVICE void load_8(const void* row, float (&v)[8]) {
  if constexpr (type == DType::f32) {
    const float4 low = static_cast<const float4*>(row)[0], high = static_cast<const float4*>(row)[1];
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  } else {
    const uint4 packed = *static_cast<const uint4*>(row);
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) {
      const auto code = static_cast<uint16_t>(words[i / 2] >> i % 2 * 16);
      v[i] = type == DType::bf16 ? decode_bf16(code) : decode_f16(code);
    }
  }
}

/// Any NaN gives 0x7f, as on the host.
template <DType type>
DG_DEVICE uint16_t encode_pair(float low, float high) {
  const float nan = float_from_bits(0x7fffffffu);
  high = high == high ? high : nan, low = low == low ? low : nan;
  if constexpr (type == DType::e4m3) return ptx::cvt_rn_satfinite_e4m3x2_f32(high, low);
  if constexpr (type == DType::e5m2) return ptx::cvt_rn_satfinite_e5m2x2_f32(high, low);
}

template <uint32_t kThreads>
DG_DEVICE uint32_t max_over_threads(uint32_t x) {
#pragma unroll
  for (uint32_t distance = kThreads / 2; distance > 0; distance /= 2) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, x, distance);
    x = other > x ? other : x;
  }
  return x;
}

/// The largest `x` of the CTA. To be called once a kernel.
DG_DEVICE uint32_t max_over_cta(uint32_t x) {
  __shared__ uint32_t warps[kQuantizeThreads / 32];
  x = max_over_threads<32>(x);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
  __syncthreads();
#pragma unroll
  for (uint32_t i = 0; i < kQuantizeThreads / 32; ++i) x = warps[i] > x ? warps[i] : x;
  return x;
}

/// The largest value that the CTA's threads hold of each of 128 columns, where thread t holds columns t % 16 · 8 … + 7: to
/// the first 128 threads, thread t gets column t % 16 · 8 + t / 16. To be called once a kernel.
DG_DEVICE uint32_t max_over_columns(const uint32_t (&x)[8]) {
  __shared__ uint32_t warps[kQuantizeThreads / 32][128];
#pragma unroll
  for (uint32_t i = 0; i < 8; ++i) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, x[i], 16);
    if (threadIdx.x % 32 < 16) warps[threadIdx.x / 32][i * 16 + threadIdx.x % 16] = other > x[i] ? other : x[i];
  }
  __syncthreads();
  uint32_t largest = 0;
#pragma unroll
  for (uint32_t warp = 0; warp < kQuantizeThreads / 32; ++warp) {
    const uint32_t other = warps[warp][threadIdx.x % 128];
    largest = other > largest ? other : largest;
  }
  return largest;
}

/// Grid: ceil(rows / quantize_rows_per_cta) · ceil(cols / 128) CTAs, tiles side by side.
template <DType type, DType out_type, ScaleBlock shares>
DG_DEVICE void quantize(const QuantizeArgs& args) {
  constexpr uint32_t kPasses = quantize_passes(shares);
  const uint32_t tiles = static_cast<uint32_t>((args.cols + 127) / 128);
  const uint32_t tile = blockIdx.x % tiles, group = blockIdx.x / tiles;
  const int64_t row0 = int64_t(group) * quantize_rows_per_cta(shares) + threadIdx.x / 16;
  const int64_t col0 = int64_t(tile) * 128, col = col0 + threadIdx.x % 16 * 8;
  const bool whole = args.vectors && col + 8 <= args.cols;
  const auto row_of = [&](uint32_t pass) { return row0 + pass * kQuantizeRowsPerPass; };

  float v[kPasses][8];
#pragma unroll
  for (uint32_t pass = 0; pass < kPasses; ++pass) {
    const int64_t row = row_of(pass);
    const auto* x = static_cast<const uint8_t*>(args.x) + (row * args.x_pitch + col) * (type == DType::f32 ? 4 : 2);
    if (row < args.rows && whole) {
      load_8<type>(x, v[pass]);
    } else {
#pragma unroll
      for (uint32_t i = 0; i < 8; ++i)
        v[pass][i] = row < args.rows && col + i < args.cols ? decode_element<type>(x, i) : 0.0f;
    }
  }

  // The largest magnitudes: of a thread's elements of each row, or of each column. Non-negative floats order as their bits
  // do; NaN, which lies above infinity, is left out.
  constexpr bool kByColumn = shares.cols == 1;
  uint32_t largest[kByColumn ? 8 : kPasses] = {};
#pragma unroll
  for (uint32_t pass = 0; pass < kPasses; ++pass) {
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) {
      const uint32_t bits = float_bits(magnitude(v[pass][i]));
      uint32_t& most = largest[kByColumn ? i : pass];
      if (bits <= 0x7f800000u && bits > most) most = bits;
    }
  }

  float scale[kByColumn ? 8 : kPasses];
  const auto scale_from = [&](uint32_t bits) {
    return quantization_scale(float_from_bits(bits), out_type, args.power_of_two);
  };
  if constexpr (kByColumn) {
    __shared__ float scales[128];
    const float mine = scale_from(max_over_columns(largest));
    if (threadIdx.x < 128) {
      scales[threadIdx.x] = mine;
      const int64_t my_col = col0 + threadIdx.x % 16 * 8 + threadIdx.x / 16;
      if (my_col < args.cols) args.scale[group * args.scale_row_stride + my_col * args.scale_col_stride] = mine;
    }
    __syncthreads();
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) scale[i] = scales[i * 16 + threadIdx.x % 16];
  } else if constexpr (shares.rows == 128) {
#pragma unroll
    for (uint32_t pass = 1; pass < kPasses; ++pass)
      largest[0] = largest[pass] > largest[0] ? largest[pass] : largest[0];
    scale[0] = scale_from(max_over_cta(largest[0]));
#pragma unroll
    for (uint32_t pass = 1; pass < kPasses; ++pass) scale[pass] = scale[0];
    if (threadIdx.x == 0) args.scale[group * args.scale_row_stride + tile * args.scale_col_stride] = scale[0];
  } else {
#pragma unroll
    for (uint32_t pass = 0; pass < kPasses; ++pass) {
      scale[pass] = scale_from(max_over_threads<16>(largest[pass]));
      if (threadIdx.x % 16 == 0 && row_of(pass) < args.rows)
        args.scale[row_of(pass) * args.scale_row_stride + tile * args.scale_col_stride] = scale[pass];
    }
  }

#pragma unroll
  for (uint32_t pass = 0; pass < kPasses; ++pass) {
    const int64_t row = row_of(pass);
    if (row >= args.rows) continue;
    const auto quotient = [&](uint32_t i) { return divide(v[pass][i], scale[kByColumn ? i : pass]); };
    uint16_t codes[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) codes[i] = encode_pair<out_type>(quotient(2 * i), quotient(2 * i + 1));
    uint8_t* out = args.out + row * args.out_pitch + col;
    if (whole) {
      *reinterpret_cast<uint2*>(out) = {uint32_t(codes[1]) << 16 | codes[0], uint32_t(codes[3]) << 16 | codes[2]};
    } else {
#pragma unroll
      for (uint32_t i = 0; i < 8; ++i) {
        if (col + i < args.cols) out[i] = static_cast<uint8_t>(codes[i / 2] >> i % 2 * 8);
      }
    }
  }
}

#endif

}  // namespace deep_gemm
