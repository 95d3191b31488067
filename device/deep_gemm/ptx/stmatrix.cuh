// From accumulators to shared memory.
#pragma once

#include <deep_gemm/ptx/mbarrier.cuh>

namespace deep_gemm::ptx {

// cvt.rn.bf16x2.f32 d, high, low;   PTX ISA 7.8, sm_90
DG_DEVICE uint32_t pack_bf16x2(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(packed) : "f"(low), "f"(high));
  return packed;
}
// stmatrix.sync.aligned.m8n8.x4.shared.b16 [addr], {r0, r1, r2, r3};   PTX ISA 7.8, sm_90
// Lanes 8i … 8i + 7 give the addresses of the eight 16-byte rows of matrix i.
DG_DEVICE void stmatrix_x4(void* row, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(smem_addr(row)), "r"(r0),
               "r"(r1), "r"(r2), "r"(r3)
               : "memory");
}
// st.shared.v2.f32 [addr], {x, y};
DG_DEVICE void st_shared_v2(void* dst, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(smem_addr(dst)), "f"(x), "f"(y) : "memory");
}

}  // namespace deep_gemm::ptx
