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

/// Rows [begin, end) have common scales, in row `scale_row`: one for 128 columns or one for each.
template <DType dtype, DType out_type>
void quantize_rows(const TensorView& x, const Fp8Tensor& out, int64_t begin, int64_t end, int64_t scale_row,
                   bool by_column, bool power_of_two_scales) {
  const int64_t cols = x.shape[1];
  auto* scale = static_cast<float*>(out.scale.data) + scale_row * out.scale.strides[0];
  for (int64_t first = 0; first < cols; first += kBlock) {
    const auto count = static_cast<std::size_t>(std::min(kBlock, cols - first));
    const auto row = [&](int64_t i) {
      return static_cast<const std::byte*>(x.data) + (i * x.strides[0] + first) * size_of(dtype);
    };
    // Of each column. Non-negative floats order as their bits do; NaN, which lies above infinity, is left out.
    std::array<uint32_t, kBlock> largest{};
    for (int64_t i = begin; i < end; ++i) {
      for (std::size_t j = 0; j < count; ++j) {
        const uint32_t bits = float_bits(magnitude(decode<dtype>(row(i), static_cast<int64_t>(j))));
        largest[j] = std::max(largest[j], bits & ~mask_if(bits > 0x7f800000u));
      }
    }
    std::array<float, kBlock> scales;
    const auto scale_from = [&](uint32_t bits) {
      return quantization_scale(float_from_bits(bits), out_type, power_of_two_scales);
    };
    if (by_column) {
      for (std::size_t j = 0; j < count; ++j) {
        scales[j] = scale_from(largest[j]);
        scale[(first + static_cast<int64_t>(j)) * out.scale.strides[1]] = scales[j];
      }
    } else {
      scales.fill(scale_from(*std::max_element(largest.begin(), largest.end())));
      scale[first / kBlock * out.scale.strides[1]] = scales[0];
    }
    for (int64_t i = begin; i < end; ++i) {
      std::array<float, kBlock> quotients;
      for (std::size_t j = 0; j < count; ++j) quotients[j] = decode<dtype>(row(i), static_cast<int64_t>(j)) / scales[j];
      uint8_t* codes = static_cast<uint8_t*>(out.data.data) + i * out.data.strides[0] + first;
      for (std::size_t j = 0; j < count; ++j) codes[j] = encode_fp8(out_type, quotients[j]);
    }
  }
}

template <DType out_type>
auto function_for(DType dtype) {
  return dtype == DType::f32    ? quantize_rows<DType::f32, out_type>
         : dtype == DType::bf16 ? quantize_rows<DType::bf16, out_type>
                                : quantize_rows<DType::f16, out_type>;
}

}  // namespace

void quantize(const TensorView& x, const Fp8Tensor& out, ScaleBlock shares, bool power_of_two_scales) {
  const int64_t rows = x.shape[0], cols = x.shape[1];
  const auto run =
      out.data.dtype == DType::e4m3 ? function_for<DType::e4m3>(x.dtype) : function_for<DType::e5m2>(x.dtype);
  const int64_t groups = (rows + shares.rows - 1) / shares.rows;
  parallel_for(groups, static_cast<double>(rows) * static_cast<double>(cols), [&](int64_t group) {
    const int64_t begin = group * shares.rows;
    run(x, out, begin, std::min(rows, begin + shares.rows), group, shares.cols == 1, power_of_two_scales);
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
