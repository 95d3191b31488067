// The judge's kernels as text for the JIT.
#pragma once

#include "jit/jit.h"

namespace deep_gemm::verify {

jit::KernelSource reference_kernel();
jit::KernelSource fill_random_kernel();

}  // namespace deep_gemm::verify
