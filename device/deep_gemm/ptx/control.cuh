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
// elect.sync _|p, 0xffffffff;   PTX ISA 8.0, sm_90; true in one lane of a whole warp, always the same one
// ptxas then knows that a single thread follows. Of `threadIdx.x % 32 == 0` it does not: it puts each TMA instruction into a loop
// over threads and its operands into registers of the thread, and loading a stage takes 500 clocks instead of 300 (H100,
// 2026-11-24).
DG_DEVICE bool elect_one() {
  uint32_t elected;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(elected));
  return elected;
}
// barrier.cluster.arrive.relaxed.aligned;   PTX ISA 8.0, sm_90
// Orders no memory accesses but those a fence before it covers (fence.mbarrier_init).
DG_DEVICE void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
// barrier.cluster.wait.aligned;   PTX ISA 7.8, sm_90; until all threads of the cluster have arrived
DG_DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.aligned;" ::: "memory"); }
DG_DEVICE void cluster_sync_relaxed() {
  cluster_arrive_relaxed();
  cluster_wait();
}
// barrier.cta.sync id, threads;   PTX ISA 7.8; by whole warps
// Not `.aligned`, which asks no more than that of the PTX: compute-sanitizer's synccheck then wants one instruction for all
// warps, and here each role has its own.
DG_DEVICE void block_sync(uint32_t id, uint32_t threads) {
  asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// barrier.cta.arrive id, threads;   PTX ISA 7.8; by whole warps
DG_DEVICE void block_arrive(uint32_t id, uint32_t threads) {
  asm volatile("barrier.cta.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
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
