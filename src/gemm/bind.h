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
};

/// The tensor maps of a call, before encoding.
struct MapSpecs {
  cuda::TensorMapSpec a, b, scale_a, d;
};

/// Whether TMA can read scales of A as they lie: MN-major, base and column pitch multiples of 16 bytes.
bool is_mn_major_aligned(const TensorView& scale);
/// Whether TMA can write D: base and row pitch multiples of 16 bytes.
bool can_be_stored_by_tma(const TensorView& d);

/// Pure. `a.scale` is MN-major aligned or empty.
MapSpecs map_specs(const GemmPlan& plan, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b,
                   const TensorView& d);
/// Encodes the maps and fills in the rest; needs the driver.
GemmArgs bind(const GemmPlan& plan, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
              const GroupRows& group_rows, const std::optional<TensorView>& c);

}  // namespace deep_gemm
