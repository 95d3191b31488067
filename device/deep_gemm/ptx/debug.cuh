// For kernels that say what is wrong with them; no other includes this.
#pragma once

#include <deep_gemm/core/types.cuh>

extern "C" __device__ int printf(const char*, ...);  // of the CUDA runtime for devices; both compilers know it

namespace deep_gemm::ptx {

// mov.u64 t, %globaltimer;   PTX ISA 3.1; nanoseconds
DG_DEVICE uint64_t globaltimer() {
  uint64_t time;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
  return time;
}

}  // namespace deep_gemm::ptx
