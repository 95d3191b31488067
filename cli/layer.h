// A linear layer of a safetensors file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <deep_gemm/tensor.h>

#include "safetensors.h"

namespace deep_gemm::cli {

/// Views of CPU memory: the file's mapping, or a copy where the file does not align its elements.
struct Layer {
  std::string name;
  TensorView weight;  ///< [n, k]: e4m3, or bf16, f16, f32 that are still to be quantised
  TensorView scale;   ///< FP32 [ceil(n/128), ceil(k/128)] where the weight is e4m3, else none
  std::vector<float> copies[2];
};

/// Finds `name` (with or without its ending ".weight"), either in DeepSeek-V3's FP8 form, `NAME.weight` F8_E4M3 [n, k] with
/// `NAME.weight_scale_inv` F32 [ceil(n/128), ceil(k/128)], or `NAME.weight` BF16, F16 or F32 [n, k].
/// Throws Error{io} that names the file and what is wrong; for a missing layer, the most similar ones it has.
Layer find_layer(const SafetensorsFile& file, std::string_view name);

/// out[i, j] = x[first + i, j] · scale[(first + i) / 128, j / 128] in FP32 for `count` rows of a CPU matrix with stride 1
/// along its columns: e4m3, bf16, f16 or f32. `scale` may be empty.
void rows_as_f32(const TensorView& x, const TensorView& scale, int64_t first, int64_t count, float* out);

/// How close a product is to the one it approximates.
struct Closeness {
  double relative_error = 0;  ///< |D - R| / |R|, Frobenius norms
  double max_abs_error = 0;
  double cosine = 1;  ///< of D and R as vectors
};

/// Compares `d`, FP32 [m, n] without gaps, with the FP32 product of `x` [m, k] and the (dequantised) weight of `layer`.
/// Not stored as a whole: memory beyond `x` in FP32 is a few rows a core.
Closeness compare_with_f32(const TensorView& x, const Layer& layer, const float* d);

}  // namespace deep_gemm::cli
