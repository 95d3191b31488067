// Emulated: see the file of this name in device/, whose functions these are.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm::ptx {

DG_DEVICE void mbarrier_init(uint64_t* bar, uint32_t count) { emulator::barrier_init(bar, count); }
DG_DEVICE void mbarrier_arrive(uint64_t* bar) { emulator::barrier_arrive(bar, emulator::kOwn, 0); }
DG_DEVICE void mbarrier_arrive_if(uint64_t* bar, bool condition) {
  if (condition) mbarrier_arrive(bar);
}
template <uint32_t kCtas>
DG_DEVICE void mbarrier_arrive_cluster(uint64_t* bar, uint32_t rank) {
  if (rank < kCtas) emulator::barrier_arrive(bar, rank, 0);
}
DG_DEVICE void mbarrier_arrive_expect_tx(uint64_t* bar, uint32_t bytes) {
  emulator::barrier_arrive(bar, emulator::kOwn, bytes);
}
DG_DEVICE bool mbarrier_try_wait_parity(uint64_t* bar, uint32_t parity) {
  emulator::yield();
  return emulator::barrier_test(bar, parity);
}
DG_DEVICE bool mbarrier_test_wait_parity(uint64_t* bar, uint32_t parity) { return emulator::barrier_test(bar, parity); }
DG_DEVICE void mbarrier_wait_parity(uint64_t* bar, uint32_t parity) { emulator::barrier_wait(bar, parity); }
DG_DEVICE void st_async_v4(void* dst, uint64_t* bar, uint32_t rank, float x, float y, float z, float w) {
  const float values[] = {x, y, z, w};
  emulator::send_bytes(dst, bar, rank, values, sizeof values);
}
DG_DEVICE void fence_mbarrier_init() { emulator::fence_barrier_init(); }
DG_DEVICE void fence_proxy_async() { emulator::fence_async(); }

}  // namespace deep_gemm::ptx
