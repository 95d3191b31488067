// Step 1 of the walk: arguments to a Problem, or an error that names function, argument, given, expected and rule.
#pragma once

#include <deep_gemm/gemm.h>

namespace deep_gemm {

/// Pure. `function` is the public name that errors begin with.
Problem check(const char* function, const Device& device, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
              const GemmOptions& options);

/// The same for the m_grouped calls. `groups_of`: m_indices, ends or masked_m.
Problem check_grouped(const char* function, Layout layout, const Device& device, const Fp8Tensor& a, const Fp8Tensor& b,
                      const TensorView& d, const TensorView& groups_of, const GroupedOptions& options);

/// The same for k_grouped_fp8_gemm_nt; the problem's k is that of the largest group.
Problem check_k_grouped(const char* function, const Device& device, const Fp8Tensor& a, const Fp8Tensor& b,
                        const TensorView& d, std::span<const int> ks, const GemmOptions& options);

/// Elements from one index of dimension `dim` to the next; `when_single` where there is just one index, since
/// frameworks leave any number in the stride of a dimension of size 1.
inline int64_t stride_or(const TensorView& t, std::size_t dim, int64_t when_single) {
  return t.shape[dim] <= 1 ? when_single : t.strides[dim];
}

}  // namespace deep_gemm
