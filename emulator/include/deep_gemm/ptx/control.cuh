// Emulated: see the file of this name in device/, whose functions these are.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm::ptx {

DG_DEVICE uint32_t cluster_rank() { return emulator::cluster_rank(); }
DG_DEVICE bool elect_one() {
  emulator::sync_warp("elect.sync", false);
  return threadIdx.x % 32 == 0;
}
DG_DEVICE void cluster_arrive_relaxed() { emulator::arrive_cluster(); }
DG_DEVICE void cluster_wait() { emulator::wait_cluster(); }
DG_DEVICE void cluster_sync_relaxed() {
  cluster_arrive_relaxed();
  cluster_wait();
}
DG_DEVICE void block_sync(uint32_t id, uint32_t threads) { emulator::sync_block(id, threads); }
DG_DEVICE void block_arrive(uint32_t id, uint32_t threads) { emulator::arrive_block(id, threads); }
template <int kRegisters>
DG_DEVICE void setmaxnreg_inc() {}
template <int kRegisters>
DG_DEVICE void setmaxnreg_dec() {}
DG_DEVICE void griddepcontrol_wait() {}
DG_DEVICE void griddepcontrol_launch_dependents() {}

}  // namespace deep_gemm::ptx
