// When an element of a product is right. Host and device.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm {

DG_HD constexpr uint64_t double_bits(double x) { return __builtin_bit_cast(uint64_t, x); }
DG_HD constexpr double double_from_bits(uint64_t bits) { return __builtin_bit_cast(double, bits); }
DG_HD constexpr double absolute(double x) { return double_from_bits(double_bits(x) & 0x7fffffffffffffffu); }
DG_HD constexpr bool is_nan(double x) { return x != x; }
DG_HD constexpr bool is_finite(double x) { return (double_bits(x) >> 52 & 0x7ff) != 0x7ff; }
/// 2^e for a normal exponent.
DG_HD constexpr double power_of_two(int e) { return double_from_bits(static_cast<uint64_t>(e + 1023) << 52); }

DG_HD constexpr int mantissa_bits(DType type) { return type == DType::bf16 ? 7 : 23; }

/// Half a unit in the last place that `type` (bf16 or f32) has at a finite `x`.
DG_HD constexpr double half_ulp(double x, DType type) {
  const int exponent = static_cast<int>(double_bits(x) >> 52 & 0x7ff) - 1023;
  return power_of_two((exponent > -126 ? exponent : -126) - mantissa_bits(type) - 1);
}

/// From this magnitude on, values round to infinity.
DG_HD constexpr double overflow_threshold(DType type) {
  return power_of_two(128) - power_of_two(126 - mantissa_bits(type));
}

/// The exact element, and what its bound is made of.
struct ExactElement {
  double value;      ///< c + Σ_blocks (sa·sb) · Σ_block a·b, where sa·sb is rounded to FP32 as the kernels do
  double magnitude;  ///< Σ_blocks |sa·sb| · Σ_block |a·b|
  double c;
};

/// What a block's sum may lack, relative to the sum of its absolute products: Hopper's tensor cores align 32 products to the
/// largest one and drop what lies 13 to 14 bits below it. Typical data stay within 2^-11; among 5e7 elements of operands
/// with heavy tails three came to 1.11 · 2^-11 (H100, 2026-11-22).
inline constexpr double kTensorCoreError = 1.0 / 1024;

struct Judgement {
  double bound = 0;
  double ratio = 0;  ///< |got - exact| / bound; infinite where one is NaN or infinite and may not be
  bool wrong = false;
};

/// `blocks` = ceil(k / 128). The terms of the bound: the tensor core's 13 to 14 bits inside a block; FP32 rounding of
/// `blocks` scaled additions, of C's and of the scales' products, twice over, denormals included; half a unit in the last
/// place of D, which is looked up beyond the other terms, so that a sum on the far side of a power of two is covered.
DG_HD constexpr Judgement judge(const ExactElement& exact, int64_t blocks, DType type, double got) {
  constexpr double kInfinity = double_from_bits(0x7ff0000000000000u);
  if (!is_finite(exact.value)) {
    const bool same = is_nan(exact.value) ? is_nan(got) : got == exact.value;
    return {.bound = 0, .ratio = same ? 0 : kInfinity, .wrong = !same};
  }
  const double steps = static_cast<double>(blocks + 2), all = exact.magnitude + absolute(exact.c);
  const double sum_error =
      kTensorCoreError * exact.magnitude + steps * power_of_two(-23) * all + steps * power_of_two(-149);
  const double bound = sum_error + half_ulp(absolute(exact.value) + sum_error, type);
  if (!is_finite(got)) {
    // An infinity is right where the value may round to it; any non-finite one where FP32 may overflow on the way.
    const double towards = got > 0 ? exact.value : -exact.value;
    const bool may_be =
        all + bound >= overflow_threshold(DType::f32) || (!is_nan(got) && towards + bound >= overflow_threshold(type));
    return {.bound = bound, .ratio = may_be ? 0 : kInfinity, .wrong = !may_be};
  }
  const double ratio = absolute(got - exact.value) / bound;
  return {.bound = bound, .ratio = ratio, .wrong = ratio > 1};
}

}  // namespace deep_gemm
