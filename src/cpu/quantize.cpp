// Quantisation and scale transposition on the CPU. Bit for bit what device/deep_gemm/layout does.
#include <algorithm>
#include <array>
#include <cmath>

#include <deep_gemm/core/fp8.cuh>
#include <deep_gemm/layout/quantize.cuh>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

namespace deep_gemm::cpu {
namespace {

constexpr int64_t kBlock = 128;

template <DType dtype>
float decode(const void* row, int64_t j) {
  if constexpr (dtype == DType::f32) return static_cast<const float*>(row)[j];
  if constexpr (dtype == DType::bf16) return decode_bf16(static_cast<const uint16_t*>(row)[j]);
  if constexpr (dtype == DType::f16) return decode_f16(static_cast<const uint16_t*>(row)[j]);
}

/// Rows [begin, end) have common scales, one for 128 columns.
template <DType dtype>
void quantize_rows(const TensorView& x, const Fp8Tensor& out, int64_t begin, int64_t end, int64_t scale_row,
                   bool power_of_two_scales) {
  const int64_t cols = x.shape[1];
  for (int64_t block = 0; block * kBlock < cols; ++block) {
    const int64_t first = block * kBlock, count = std::min(kBlock, cols - first);
    const auto row = [&](int64_t i) {
      return static_cast<const std::byte*>(x.data) + (i * x.strides[0] + first) * size_of(dtype);
    };
    // Non-negative floats order as their bits do; NaN, which lies above infinity, is left out.
    uint32_t largest = 0;
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < count; ++j) {
        const uint32_t bits = float_bits(magnitude(decode<dtype>(row(i), j)));
        largest = std::max(largest, bits & ~mask_if(bits > 0x7f800000u));
      }
    }
    const float scale = quantization_scale(float_from_bits(largest), power_of_two_scales);
    static_cast<float*>(out.scale.data)[scale_row * out.scale.strides[0] + block * out.scale.strides[1]] = scale;
    for (int64_t i = begin; i < end; ++i) {
      std::array<float, kBlock> quotients;
      for (int64_t j = 0; j < count; ++j) quotients[static_cast<std::size_t>(j)] = decode<dtype>(row(i), j) / scale;
      uint8_t* codes = static_cast<uint8_t*>(out.data.data) + i * out.data.strides[0] + first;
      for (int64_t j = 0; j < count; ++j) codes[j] = encode_e4m3(quotients[static_cast<std::size_t>(j)]);
    }
  }
}

}  // namespace

void quantize(const TensorView& x, const Fp8Tensor& out, int rows_per_scale, bool power_of_two_scales) {
  const int64_t rows = x.shape[0], cols = x.shape[1];
  const auto run = x.dtype == DType::f32    ? quantize_rows<DType::f32>
                   : x.dtype == DType::bf16 ? quantize_rows<DType::bf16>
                                            : quantize_rows<DType::f16>;
  const int64_t groups = (rows + rows_per_scale - 1) / rows_per_scale;
  parallel_for(groups, static_cast<double>(rows) * static_cast<double>(cols), [&](int64_t group) {
    const int64_t begin = group * rows_per_scale;
    run(x, out, begin, std::min(rows, begin + rows_per_scale), group, power_of_two_scales);
  });
}

void copy_scales(const TensorView& scale, const TensorView& out) {
  const int64_t mn = scale.shape[0], blocks = scale.shape[1];
  const auto* from = static_cast<const float*>(scale.data);
  auto* to = static_cast<float*>(out.data);
  for (int64_t j = 0; j < blocks; ++j) {
    for (int64_t i = 0; i < tma_aligned_rows(mn); ++i)
      to[i + j * out.strides[1]] = i < mn ? from[i * scale.strides[0] + j * scale.strides[1]] : 0.0f;
  }
}

}  // namespace deep_gemm::cpu
