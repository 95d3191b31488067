// The kernels of quantisation and scale transposition as text for the JIT.
#pragma once

#include <deep_gemm/layout/quantize.cuh>

#include "jit/jit.h"

namespace deep_gemm {

/// From `type` (bf16, f16 or f32) to `out` (e4m3 or e5m2). The entry's name says what it does, so that profilers show it:
/// `quantize_1x128_bf16_e4m3`.
jit::KernelSource quantize_kernel(DType type, DType out, ScaleBlock shares);
jit::KernelSource transpose_kernel();

}  // namespace deep_gemm
