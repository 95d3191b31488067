// Warpgroup matrix multiply-accumulate.
#pragma once

#include <deep_gemm/ptx/mbarrier.cuh>
#include <deep_gemm/ptx/wgmma_fp8.generated.cuh>

namespace deep_gemm::ptx {

// wgmma.fence.sync.aligned;   PTX ISA 8.0, sm_90a; registers written before are visible to the wgmma after
DG_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// Shared-memory matrix descriptor: K-major, 128-byte swizzle, groups of 8 rows 1024 bytes apart. `tile` is 1024-aligned;
/// 32 bytes further along k is `descriptor + 2`.   PTX ISA 8.0, "Matrix descriptor"
DG_DEVICE uint64_t wgmma_descriptor(const void* tile) {
  return ((uint64_t(smem_addr(tile)) & 0x3ffff) >> 4) | (uint64_t(1024 >> 4) << 32) | (uint64_t(1) << 62);
}

}  // namespace deep_gemm::ptx
