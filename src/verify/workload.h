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
  int64_t m = 0;  ///< rows of A; of each group where the layout has groups; masked: also what is expected
  int64_t n = 0, k = 0;
  Layout layout = Layout::dense;
  int64_t groups = 1;
  std::vector<int> loads{};  ///< rows of each group instead of m; empty: m each
  int alignment = 1;         ///< offsets: see GroupedOptions
  int64_t m_max = 0;         ///< masked: rows that a group has room for; 0: those of the largest one
  bool operator==(const Shape&) const = default;
};

/// Rows of each group.
std::vector<int> loads_of(const Shape& shape);
/// Rows of all groups, without padding.
int64_t rows_of(const Shape& shape);
/// "4096x7168x2048", "masked 4x (1091) x7168x2048"
std::string text(const Shape& shape);
/// What the plan is asked.
Problem problem_of(const Shape& shape, DType d_type);

/// Operands with random values of a product, and room for its result, on the context's device.
class Workload {
 public:
  Workload(Context& context, const Shape& shape, const Problem& problem, uint64_t seed, Stream stream = {});

  const Shape& shape() const { return shape_; }
  /// Flat, [rows, …]: a group's rows after the other's.
  const Fp8Tensor& a() const { return a_; }
  const Fp8Tensor& b() const { return b_; }
  const TensorView& d() const { return d_; }

  /// D becomes NaN.
  void poison(Stream stream = {});
  /// Enqueues the call.
  void call(Stream stream = {}, const std::optional<GemmConfig>& config = {});
  /// Every element of every group's rows; a mismatch's row counts from the first one of D.
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
  Memory allocate(int64_t bytes, unsigned char fill, Stream stream) const;
  TensorView split(const TensorView& flat, bool into_groups) const;
  Fp8Tensor split(const Fp8Tensor& flat, bool into_groups) const;

  Context& context_;
  Shape shape_;
  std::vector<Range> ranges_;  ///< of each group
  int64_t expected_m_;
  Memory a_data_, a_scale_, b_data_, b_scale_, d_data_, numbers_data_;
  Fp8Tensor a_, b_;
  TensorView d_, numbers_;
};

}  // namespace deep_gemm
