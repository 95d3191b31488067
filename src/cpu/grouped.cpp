// The layouts of a mixture of experts on the CPU: each group's rows are a dense product.
#include <algorithm>
#include <cstring>

#include "cpu/cpu.h"

namespace deep_gemm::cpu {
namespace {

Fp8Tensor group_of(const Fp8Tensor& t, int64_t group) {
  return {t.data.at(group), t.scale ? t.scale.at(group) : TensorView{}};
}
Fp8Tensor rows_of(const Fp8Tensor& t, int64_t begin, int64_t end) {
  return {t.data.rows(begin, end), t.scale ? t.scale.rows(begin, end) : TensorView{}};
}

void fill_with_zeros(const TensorView& d, int64_t begin, int64_t end) {
  const auto row_bytes = static_cast<std::size_t>(d.shape[1] * size_of(d.dtype));
  for (int64_t row = begin; row < end; ++row) std::memset(d.rows(row, row).data, 0, row_bytes);
}

void contiguous(const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, const int32_t* m_indices) {
  const int64_t m = d.shape[0], step = get_m_alignment_for_contiguous_layout(), groups = b.data.shape[0];
  const auto next_start = [&](int64_t row) { return std::min(row + step, m); };
  for (int64_t row = 0, end = 0; row < m; row = end) {
    const int32_t group = m_indices[row];
    end = next_start(row);
    while (end < m && m_indices[end] == group) end = next_start(end);
    if (group < 0) {
      fill_with_zeros(d, row, end);
    } else {
      fp8_gemm_nt(rows_of(a, row, end), group_of(b, std::min<int64_t>(group, groups - 1)), d.rows(row, end), {});
    }
  }
}

void offsets(const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, const GroupRows& group_rows) {
  const auto* ends = static_cast<const int32_t*>(group_rows.tensor.data);
  const int64_t m = d.shape[0], alignment = group_rows.alignment;
  const auto aligned = [&](int64_t row) { return std::min((row + alignment - 1) / alignment * alignment, m); };
  int64_t begin = 0;
  for (int64_t group = 0; group < b.data.shape[0]; ++group) {
    const int64_t end = std::clamp<int64_t>(ends[group], 0, m);
    if (end > begin) {
      fp8_gemm_nt(rows_of(a, begin, end), group_of(b, group), d.rows(begin, end), {});
      if (group_rows.zero_padding) fill_with_zeros(d, end, aligned(end));
    }
    begin = aligned(end);
  }
}

void masked(const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, const int32_t* masked_m) {
  for (int64_t group = 0; group < b.data.shape[0]; ++group) {
    const int64_t rows = std::clamp<int64_t>(masked_m[group], 0, d.shape[1]);
    if (rows > 0) fp8_gemm_nt(rows_of(group_of(a, group), 0, rows), group_of(b, group), d.at(group).rows(0, rows), {});
  }
}

/// Columns [begin, begin + count) of a matrix.
TensorView columns_of(const TensorView& t, int64_t begin, int64_t count) {
  return t.transposed().rows(begin, begin + count).transposed();
}

/// A group's k columns of one operand, the first of them at `begin`, and its scales, whose first column is `block`.
Fp8Tensor slice_of_k(const Fp8Tensor& t, int64_t rows, int64_t begin, int64_t k, int64_t block) {
  Fp8Tensor slice;
  if (t.data.rank == 1) {
    slice.data = t.data.rows(rows * begin, rows * (begin + k));
    slice.data.rank = 2;
    slice.data.shape = {rows, k};
    slice.data.strides = {k, 1};
  } else {
    slice.data = columns_of(t.data, begin, k);
  }
  if (t.scale) slice.scale = columns_of(t.scale, block, (k + 127) / 128);
  return slice;
}

}  // namespace

void m_grouped_fp8_gemm_nt(Layout layout, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                           const GroupRows& group_rows) {
  const auto* numbers = static_cast<const int32_t*>(group_rows.tensor.data);
  if (layout == Layout::contiguous) contiguous(a, b, d, numbers);
  if (layout == Layout::offsets) offsets(a, b, d, group_rows);
  if (layout == Layout::masked) masked(a, b, d, numbers);
}

void k_grouped_fp8_gemm_nt(const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, std::span<const int> ks,
                           const TensorView& c) {
  int64_t begin = 0, block = 0;
  for (std::size_t group = 0; group < ks.size(); ++group) {
    const int64_t k = ks[group], g = static_cast<int64_t>(group);
    GemmOptions options;
    options.c = c.at(g);
    options.recipe = {1, 1, 128};
    fp8_gemm_nt(slice_of_k(a, d.shape[1], begin, k, block), slice_of_k(b, d.shape[2], begin, k, block), d.at(g),
                options);
    begin += k;
    block += (k + 127) / 128;
  }
}

}  // namespace deep_gemm::cpu
