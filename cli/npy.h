// NumPy's .npy files, as far as `run` needs them: little-endian FP16 and FP32 in row-major order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <deep_gemm/tensor.h>

#include "mapped_file.h"

namespace deep_gemm::cli {

struct NpyArray {
  MappedFile file;
  DType dtype = DType::f32;  ///< f32 or f16
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  ///< inside `file`
};

/// Throws Error{io} that names the file and what is wrong with it: no .npy, another dtype, column-major order, a shape
/// that is not the size of the data.
NpyArray read_npy(const std::string& path);

/// Writes FP32 `values` of shape [rows, cols]. Throws Error{io}, and then leaves a file of that name as it was.
void write_npy(const std::string& path, std::span<const float> values, int64_t rows, int64_t cols);

}  // namespace deep_gemm::cli
