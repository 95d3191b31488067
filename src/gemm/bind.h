// Step 4 of the walk: tensors to the kernel's arguments.
#pragma once

#include <deep_gemm/gemm.h>
#include <deep_gemm/gemm/args.cuh>

#include "cuda/driver.h"

namespace deep_gemm {

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
              const std::optional<TensorView>& c);

}  // namespace deep_gemm
