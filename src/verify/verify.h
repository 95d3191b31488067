// The independent judge of a product: every element of D against a double-precision reference and a bound of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <deep_gemm/gemm.h>

namespace deep_gemm::verify {

struct Mismatch {
  int64_t row = 0, col = 0;
  double got = 0, expected = 0, bound = 0;
};

struct Report {
  int64_t elements = 0;
  int64_t mismatches = 0;
  double worst_ratio = 0;       ///< max of |got - expected| / bound; above 1 is a mismatch
  double global_score = 0;      ///< 1 - 2<x,y> / (<x,x> + <y,y>), the measure the field reports; finite elements only
  std::vector<Mismatch> first;  ///< the first ones in row-major order, at most 16
};

/// Compares `d` with (C +) A·Bᵀ, all on the context's device; waits for the stream. An element is wrong when it differs
/// from the exact value by more than
///   2^-10 · Σ_blocks |sa·sb| · Σ_block |a·b|  +  FP32 rounding of the sum over blocks  +  half a unit in D's last place
/// (the first term: tensor cores keep 13 to 14 bits inside a 128-wide block), or when one is NaN or infinite and the
/// other is not the same. `c`, if given, must be a copy from before the call where D was accumulated in place. `recipe`:
/// what b.scale stands for, as in GemmOptions.
Report verify(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const std::optional<TensorView>& c,
              const TensorView& d, Stream stream = {}, const Recipe& recipe = {});

/// The same for every group of a k-grouped product, each a dense one; a mismatch's row counts from the first group's first
/// one. The score is the worst group's.
Report verify_k_grouped(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& c,
                        const TensorView& d, std::span<const int> ks, Stream stream = {});

/// Adds what was found in rows of the same D that begin `row` further down.
void merge(Report& all, const Report& part, int64_t row);

/// How random operands look.
struct RandomOptions {
  uint64_t seed = 1;
  double scale_spread = 4;  ///< scales are log-uniform over this many powers of two around 2^-7
};
/// Fills `t` with FP8 values of a normal distribution (tails up to e4m3's ±448 or e5m2's ±57344, no NaN and infinities) and
/// positive FP32 scales, or, for a view of bf16, f16 or f32, with normal values. A value depends only on seed and index, so both backends make the same tensor.
void fill_random(Context& context, const Fp8Tensor& t, const RandomOptions& options = {}, Stream stream = {});
void fill_random(Context& context, const TensorView& t, const RandomOptions& options = {}, Stream stream = {});

}  // namespace deep_gemm::verify
