// The CPU backend: the same calls on CPU tensors. Arguments have been checked by the caller.
#pragma once

#include <deep_gemm/gemm.h>
#include <deep_gemm/layout/quantize.cuh>

#include "gemm/bind.h"

namespace deep_gemm::cpu {

/// D = A·Bᵀ (+ C): products summed over 128 of k, those sums scaled and added in FP32, as the GPU kernel does.
void fp8_gemm_nt(const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, const GemmOptions& options);

/// The products of a mixture of experts, group after group.
void m_grouped_fp8_gemm_nt(Layout layout, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                           const GroupRows& group_rows);

/// D[g] = C[g] + A_g·B_gᵀ, group after group; D and C [groups, m, n].
void k_grouped_fp8_gemm_nt(const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, std::span<const int> ks,
                           const TensorView& c);

void quantize(const TensorView& x, const Fp8Tensor& out, ScaleBlock shares, bool power_of_two_scales);

void copy_scales(const TensorView& scale, const TensorView& out);

}  // namespace deep_gemm::cpu
