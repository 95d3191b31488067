// Step 4 of the walk: tensors to the kernel's arguments.
#pragma once

#include <deep_gemm/gemm.h>
#include <deep_gemm/gemm/args.cuh>

#include "cuda/driver.h"

namespace deep_gemm {

/// What says which rows of A belong to which group: the layout's tensor and how it is to be read.
struct GroupRows {
  TensorView tensor{};
  int alignment = 1;
  bool zero_padding = false;
  bool operator==(const GroupRows&) const = default;
};

/// The tensor maps of a call, before encoding.
struct MapSpecs {
  cuda::TensorMapSpec a, b, scale_a, scale_b, d;
};

/// Whether TMA can write D: base and row pitch multiples of 16 bytes.
bool can_be_stored_by_tma(const TensorView& d);

/// Pure. Scales that are read by TMA are MN-major aligned.
MapSpecs map_specs(const GemmPlan& plan, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b,
                   const TensorView& d);
/// Encodes the maps and fills in the rest; needs the driver.
GemmArgs bind(const GemmPlan& plan, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
              const GroupRows& group_rows, const std::optional<TensorView>& c);

/// The groups of a k-grouped call that a launch computes, at most KGroupedArgs::kMaxGroups of them; each is a group's index,
/// and `plan.grid` fits their number.
KGroupedArgs bind_k_grouped(const GemmPlan& plan, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b,
                            const TensorView& d, std::span<const int> ks, std::span<const int> groups,
                            const TensorView& c);

}  // namespace deep_gemm
