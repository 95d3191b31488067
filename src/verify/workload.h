// Products to check or to time: shapes of every layout, and random operands for them on either backend.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <deep_gemm/gemm.h>

#include "cuda/driver.h"
#include "gemm/bind.h"
#include "verify/verify.h"

namespace deep_gemm {

struct Shape {
  int64_t m = 0;  ///< rows of A; of each group where the layout has groups of rows; masked: also what is expected
  int64_t n = 0, k = 0;  ///< k-grouped: k of each group
  Layout layout = Layout::dense;
  int64_t groups = 1;
  std::vector<int>
      loads{};        ///< rows of each group instead of m, or k-grouped its k instead of k; empty: the same for all
  int alignment = 1;  ///< offsets: see GroupedOptions
  int64_t m_max = 0;  ///< masked: rows that a group has room for; 0: those of the largest one
  bool operator==(const Shape&) const = default;
};

/// Rows of each group; k-grouped: k of each group.
std::vector<int> loads_of(const Shape& shape);
/// Rows of all groups, without padding; k-grouped: those of one, which all have the same.
int64_t rows_of(const Shape& shape);
/// k; k-grouped: of all groups together.
int64_t depth_of(const Shape& shape);
/// As people and shape files write it: "dense", …, "k-grouped".
std::string layout_text(Layout layout);
/// "4096x7168x2048", "masked 4x (1091) x7168x2048", "k-grouped 4x 7168x4096x (16384)"
std::string text(const Shape& shape);
/// Types and scales, as far as they are not the usual ones, and D: "A e5m2, B e4m3, recipe 1,1,128, D bf16".
std::string form_text(const Problem& form);
/// "1,128,128"
std::string recipe_text(const Problem& form);
/// What the plan is asked: `form` with the shape filled in, and with what k-grouped products alone can be.
Problem problem_of(const Shape& shape, const Problem& form);

/// Operands with random values of a product, and room for its result, on the context's device.
class Workload {
 public:
  /// `problem` from problem_of(). With `accumulate`, dense products add a C of their own, k-grouped ones add to D.
  Workload(Context& context, const Shape& shape, const Problem& problem, uint64_t seed, Stream stream = {});

  const Shape& shape() const { return shape_; }
  /// Flat, [rows, …]: a group's rows after the other's. K-grouped: the flat form where every k is a multiple of 128, else
  /// the strided one.
  const Fp8Tensor& a() const { return a_; }
  const Fp8Tensor& b() const { return b_; }
  const TensorView& d() const { return d_; }

  /// D becomes NaN; k-grouped: C, to which the next call adds.
  void poison(Stream stream = {});
  /// Enqueues the call.
  void call(Stream stream = {}, const std::optional<GemmConfig>& config = {});
  /// Every element of every group's rows, after one call since poison() or the beginning; a mismatch's row counts from the
  /// first one of D.
  verify::Report verify(Stream stream = {});

 private:
  struct Range {
    int64_t begin, end;
  };
  struct Memory {
    std::vector<std::byte> host;
    cuda::DeviceBuffer device;
    void* data() { return host.empty() ? device.data() : host.data(); }
  };
  /// Throws std::bad_alloc, also where the product is no int64_t.
  Memory allocate(int64_t rows, int64_t row_bytes, unsigned char fill, Stream stream) const;
  TensorView split(const TensorView& flat, bool into_groups) const;
  Fp8Tensor split(const Fp8Tensor& flat, bool into_groups) const;
  void make_operands(Stream stream);
  void make_groups(Stream stream);

  Context& context_;
  Shape shape_;
  Problem problem_;
  uint64_t seed_;
  std::vector<int> loads_;
  std::vector<Range> ranges_;  ///< of each group of rows
  Memory a_data_, a_scale_, b_data_, b_scale_, c_data_, d_data_, numbers_data_;
  Fp8Tensor a_, b_;
  TensorView c_, d_, numbers_;
};

}  // namespace deep_gemm
