#include "layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include <Eigen/Core>

#include <deep_gemm/core/fp8.cuh>

#include "cpu/parallel.h"
#include "text.h"

namespace deep_gemm::cli {
namespace {

constexpr std::string_view kSuffix = ".weight";

std::size_t edit_distance(std::string_view x, std::string_view y) {
  std::vector<std::size_t> row(y.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < x.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < y.size(); ++j) {
      const std::size_t replaced = diagonal + (x[i] != y[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

/// The three layers whose names are most like `name`, as text.
std::string similar_layers(const SafetensorsFile& file, std::string_view name) {
  std::vector<std::pair<std::size_t, std::string_view>> found;
  for (const auto& [tensor_name, tensor] : file.tensors()) {
    if (tensor.shape.size() != 2 || !tensor_name.ends_with(kSuffix)) continue;
    const std::string_view layer = std::string_view(tensor_name).substr(0, tensor_name.size() - kSuffix.size());
    // A name that contains what was asked for is nearer than any misspelling.
    const bool contains = !name.empty() && layer.find(name) != std::string_view::npos;
    found.emplace_back(contains ? 0 : edit_distance(name, layer), layer);
  }
  if (found.empty()) return "the file has no linear layer";
  const auto end = found.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(3, found.size()));
  std::partial_sort(found.begin(), end, found.end());
  std::string text;
  for (auto it = found.begin(); it != end; ++it) text += fmt::format("{}{}", text.empty() ? "" : ", ", it->second);
  return fmt::format("similar ones of {}: {}", found.size(), text);
}

TensorView aligned_view(const StoredTensor& tensor, DType dtype, std::vector<float>& copy) {
  const void* data = tensor.bytes.data();
  if (reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(size_of(dtype)) != 0) {
    copy.resize(tensor.bytes.size() / sizeof(float) + 1);
    std::memcpy(copy.data(), data, tensor.bytes.size());
    data = copy.data();
  }
  return TensorView::contiguous(data, dtype, {tensor.shape[0], tensor.shape[1]});
}

/// The larger one; NaN where either is.
double larger(double x, double y) { return y > x || std::isnan(y) ? y : x; }

}  // namespace

Layer find_layer(const SafetensorsFile& file, std::string_view name) {
  if (name.ends_with(kSuffix)) name.remove_suffix(kSuffix.size());
  Layer layer{std::string(name), {}, {}, {}};
  const StoredTensor* weight = file.find(layer.name + std::string(kSuffix));
  if (weight == nullptr) fail(ErrorCode::io, "{}: no layer '{}'; {}", file.path(), name, similar_layers(file, name));
  if (weight->shape.size() != 2)
    fail(ErrorCode::io, "{}: {} is {}, expected the [n, k] of a linear layer", file.path(), weight->name,
         shape_text(weight->shape));
  const std::optional<DType> dtype = dtype_of(weight->dtype);
  if (!dtype || *dtype == DType::e5m2 || *dtype == DType::i32)
    fail(ErrorCode::io, "{}: {} is {}, expected F8_E4M3, BF16, F16 or F32", file.path(), weight->name, weight->dtype);
  layer.weight = aligned_view(*weight, *dtype, layer.copies[0]);
  if (*dtype != DType::e4m3) return layer;

  const StoredTensor* scale = file.find(weight->name + "_scale_inv");
  if (scale == nullptr)
    fail(ErrorCode::io, "{}: {} is F8_E4M3, but there is no {}_scale_inv with its scales", file.path(), weight->name,
         weight->name);
  const std::vector<int64_t> expected = {(weight->shape[0] + 127) / 128, (weight->shape[1] + 127) / 128};
  if (scale->dtype != "F32" || scale->shape != expected)
    fail(ErrorCode::io, "{}: {} is {} {}, expected F32 {} = [ceil(n / 128), ceil(k / 128)] for the weight {}",
         file.path(), scale->name, scale->dtype, shape_text(scale->shape), shape_text(expected),
         shape_text(weight->shape));
  layer.scale = aligned_view(*scale, DType::f32, layer.copies[1]);
  return layer;
}

void rows_as_f32(const TensorView& x, const TensorView& scale, int64_t first, int64_t count, float* out) {
  const int64_t cols = x.shape[1];
  for (int64_t row = first; row < first + count; ++row, out += cols) {
    const auto convert = [&]<class T>(const T* source, auto decode) {
      source += row * x.strides[0];
      for (int64_t j = 0; j < cols; ++j) out[j] = decode(source[j]);
    };
    switch (x.dtype) {
      case DType::e4m3:
        convert(static_cast<const uint8_t*>(x.data), decode_e4m3);
        break;
      case DType::bf16:
        convert(static_cast<const uint16_t*>(x.data), decode_bf16);
        break;
      case DType::f16:
        convert(static_cast<const uint16_t*>(x.data), decode_f16);
        break;
      case DType::f32:
        convert(static_cast<const float*>(x.data), [](float value) { return value; });
        break;
      case DType::e5m2:
      case DType::i32:
        fail(ErrorCode::invalid_argument, "rows_as_f32: x is {}, expected e4m3, bf16, f16 or f32", name_of(x.dtype));
    }
    if (!scale) continue;
    const float* scales = static_cast<const float*>(scale.data) + row / 128 * scale.strides[0];
    for (int64_t j = 0; j < cols; ++j) out[j] *= scales[j / 128 * scale.strides[1]];
  }
}

Closeness compare_with_f32(const TensorView& x, const Layer& layer, const float* d) {
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  struct Sums {
    double difference = 0, reference = 0, given = 0, product = 0, max_abs = 0;
  };
  constexpr int64_t kRows = 64;  // of the weight at a time
  const int64_t m = x.shape[0], n = layer.weight.shape[0], k = x.shape[1];
  RowMajor activations(m, k);
  rows_as_f32(x, {}, 0, m, activations.data());
  std::vector<Sums> parts(static_cast<std::size_t>((n + kRows - 1) / kRows));
  const double operations = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  cpu::parallel_for(static_cast<int64_t>(parts.size()), operations, [&](int64_t part) {
    const int64_t first = part * kRows, count = std::min(kRows, n - first);
    RowMajor weight(count, k);
    rows_as_f32(layer.weight, layer.scale, first, count, weight.data());
    const RowMajor reference = activations * weight.transpose();
    Sums& sums = parts[static_cast<std::size_t>(part)];
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < count; ++j) {
        const double expected = reference(i, j), got = d[i * n + first + j];
        sums.difference += (got - expected) * (got - expected);
        sums.reference += expected * expected;
        sums.given += got * got;
        sums.product += got * expected;
        sums.max_abs = larger(sums.max_abs, std::abs(got - expected));
      }
    }
  });
  Sums all;
  for (const Sums& part : parts) {
    all.difference += part.difference;
    all.reference += part.reference;
    all.given += part.given;
    all.product += part.product;
    all.max_abs = larger(all.max_abs, part.max_abs);
  }
  Closeness result;
  result.max_abs_error = all.max_abs;
  if (all.difference != 0) result.relative_error = std::sqrt(all.difference / all.reference);
  if (all.difference != 0) result.cosine = all.product / std::sqrt(all.reference * all.given);
  return result;
}

}  // namespace deep_gemm::cli
