// Clusters, register reallocation, dependent launches.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm::ptx {

// mov.u32 r, %cluster_ctarank;   PTX ISA 7.8, sm_90
DG_DEVICE uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;   PTX ISA 8.0, sm_90
// Orders no memory accesses but those a fence before it covers (fence.mbarrier_init).
DG_DEVICE void cluster_sync_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}
// setmaxnreg.{inc,dec}.sync.aligned.u32 n;   PTX ISA 8.0, sm_90a; by all warps of a warpgroup
template <int kRegisters>
DG_DEVICE void setmaxnreg_inc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
DG_DEVICE void setmaxnreg_dec() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
// griddepcontrol.wait;   PTX ISA 7.8, sm_90; until the grids this one depends on have ended and their writes are
// visible
DG_DEVICE void griddepcontrol_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
// griddepcontrol.launch_dependents;   PTX ISA 7.8, sm_90
DG_DEVICE void griddepcontrol_launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

}  // namespace deep_gemm::ptx
