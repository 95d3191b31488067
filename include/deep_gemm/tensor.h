// Non-owning views of tensors, with DLPack's fields.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>

#include <deep_gemm/config.h>

namespace deep_gemm {

/// Bytes of one element.
constexpr int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::e4m3:
    case DType::e5m2:
      return 1;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::f32:
    case DType::i32:
      return 4;
  }
  return 0;
}

enum class DeviceType { cpu, cuda };

/// Where a tensor's memory lies. `index` is the CUDA ordinal; 0 on the CPU.
struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

/// A CUDA stream (`CUstream` or `cudaStream_t`; null is the default stream). Ignored by calls on CPU tensors.
struct Stream {
  void* handle = nullptr;
};

/// A strided view of memory that the caller owns. Default-constructed: no tensor.
struct TensorView {
  static constexpr int kMaxRank = 3;

  void* data = nullptr;  ///< address of the first element
  DType dtype = DType::f32;
  int rank = 0;                             ///< number of dimensions; 0: no tensor
  std::array<int64_t, kMaxRank> shape{};    ///< elements in each dimension
  std::array<int64_t, kMaxRank> strides{};  ///< elements (not bytes) from one index to the next
  Device device{};
  bool operator==(const TensorView&) const = default;

  /// A row-major tensor without gaps. At most `kMaxRank` dimensions. One without elements has the strides it would have if its
  /// empty dimensions were 1 long, as elsewhere in the field: no two of its rows are said to lie at the same place.
  static constexpr TensorView contiguous(const void* data, DType dtype, std::initializer_list<int64_t> shape,
                                         Device device = {}) {
    TensorView t{const_cast<void*>(data), dtype, static_cast<int>(shape.size()), {}, {}, device};
    int i = 0;
    for (int64_t extent : shape) t.shape[static_cast<std::size_t>(i++)] = extent;
    int64_t stride = 1;
    for (i = t.rank - 1; i >= 0; --i) {
      t.strides[static_cast<std::size_t>(i)] = stride;
      stride *= std::max<int64_t>(t.shape[static_cast<std::size_t>(i)], 1);
    }
    return t;
  }

  explicit constexpr operator bool() const { return rank != 0; }

  /// Element `i` of dimension 0: a view with a dimension less.
  constexpr TensorView at(int64_t i) const {
    TensorView t{static_cast<char*>(data) + i * strides[0] * size_of(dtype), dtype, rank - 1, {}, {}, device};
    for (std::size_t dim = 1; dim < kMaxRank; ++dim) t.shape[dim - 1] = shape[dim], t.strides[dim - 1] = strides[dim];
    return t;
  }
  /// Elements `begin` … `end - 1` of dimension 0.
  constexpr TensorView rows(int64_t begin, int64_t end) const {
    TensorView t = *this;
    // The stride of a single row may be any number.
    t.data = static_cast<char*>(data) + (shape[0] > 1 ? begin * strides[0] * size_of(dtype) : 0);
    t.shape[0] = end - begin;
    return t;
  }

  /// The same elements with dimensions 0 and 1 exchanged. Rank 2 only.
  constexpr TensorView transposed() const {
    TensorView t = *this;
    t.shape[0] = shape[1], t.shape[1] = shape[0];
    t.strides[0] = strides[1], t.strides[1] = strides[0];
    return t;
  }
};

/// FP8 values and the FP32 scales they are multiplied with. An empty `scale` stands for unit scales.
struct Fp8Tensor {
  TensorView data;
  TensorView scale{};
  bool operator==(const Fp8Tensor&) const = default;
};

}  // namespace deep_gemm
