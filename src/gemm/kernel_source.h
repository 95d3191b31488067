// A config's kernel as text for the JIT.
#pragma once

#include <deep_gemm/config.h>

#include "jit/jit.h"

namespace deep_gemm {

/// The entry's name states the config, so that profilers show it: `fp8_gemm_nt_128x128_s5_c2a_bf16`.
std::string kernel_name(const GemmConfig& config);
jit::KernelSource kernel_source(const GemmConfig& config);

}  // namespace deep_gemm
