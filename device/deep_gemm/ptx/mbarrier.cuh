// Barriers: mbarrier objects in shared memory, named barriers of a block, and the fences between proxies.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm::ptx {

DG_DEVICE uint32_t smem_addr(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// mbarrier.init.shared::cta.b64 [addr], count;   PTX ISA 7.0, sm_80
DG_DEVICE void mbarrier_init(uint64_t* bar, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_addr(bar)), "r"(count) : "memory");
}
// mbarrier.arrive.shared::cta.b64 _, [addr];   PTX ISA 7.0, sm_80
DG_DEVICE void mbarrier_arrive(uint64_t* bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_addr(bar)) : "memory");
}
// mbarrier.arrive.shared::cta.b64 _, [addr];   PTX ISA 7.0, sm_80; where `condition` holds
// A branch, not a predicate: ptxas puts a predicated arrival behind up to 60 independent instructions after it (4 % at
// 256×128; H100, 2026-11-22).
DG_DEVICE void mbarrier_arrive_if(uint64_t* bar, bool condition) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.eq.u32 p, %1, 0;\n@p bra DONE_%=;\nmbarrier.arrive.shared::cta.b64 _, "
      "[%0];\nDONE_%=:\n}" ::"r"(smem_addr(bar)),
      "r"(uint32_t(condition))
      : "memory");
}
// mapa.shared::cluster.u32 addr, [own], rank; mbarrier.arrive.shared::cluster.b64 _, [addr];   PTX ISA 8.0, sm_90
// Arrives on the barrier at the same place in the shared memory of CTA `rank` of the cluster, where `rank` is below kCtas.
// A branch, as above. Spelling out `.release.cluster` would put a fence of the whole GPU before it: 1400 clocks a step (H100,
// 2026-11-22).
template <uint32_t kCtas>
DG_DEVICE void mbarrier_arrive_cluster(uint64_t* bar, uint32_t rank) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b32 remote;\nsetp.ge.u32 p, %1, %2;\n@p bra DONE_%=;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\nmbarrier.arrive.shared::cluster.b64 _, [remote];\nDONE_%=:\n}" ::"r"(
          smem_addr(bar)),
      "r"(rank), "n"(kCtas)
      : "memory");
}
// mbarrier.arrive.expect_tx.shared::cta.b64 _, [addr], bytes;   PTX ISA 8.0, sm_90
DG_DEVICE void mbarrier_arrive_expect_tx(uint64_t* bar, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_addr(bar)), "r"(bytes) : "memory");
}
// mbarrier.try_wait.parity.shared::cta.b64 p, [addr], parity;   PTX ISA 7.8, sm_90; returns after a while without, too
DG_DEVICE bool mbarrier_try_wait_parity(uint64_t* bar, uint32_t parity) {
  uint32_t done;
  asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(done)
               : "r"(smem_addr(bar)), "r"(parity)
               : "memory");
  return done;
}
// mbarrier.test_wait.parity.shared::cta.b64 p, [addr], parity;   PTX ISA 7.1, sm_80; returns at once
DG_DEVICE bool mbarrier_test_wait_parity(uint64_t* bar, uint32_t parity) {
  uint32_t done;
  asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(done)
               : "r"(smem_addr(bar)), "r"(parity)
               : "memory");
  return done;
}
// mbarrier.try_wait.parity, spinning until the phase completes.
DG_DEVICE void mbarrier_wait_parity(uint64_t* bar, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred p;\nWAIT_%=:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra WAIT_%=;\n}" ::"r"(
          smem_addr(bar)),
      "r"(parity)
      : "memory");
}
// mapa.shared::cluster.u32 addr, [own], rank;
// st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [addr], {x, y, z, w}, [bar];   PTX ISA 8.1, sm_90
// Stores to the same place in the shared memory of CTA `rank` of the cluster, and counts 16 bytes on its barrier.
DG_DEVICE void st_async_v4(void* dst, uint64_t* bar, uint32_t rank, float x, float y, float z, float w) {
  asm volatile(
      "{\n.reg .b32 addr, bar;\nmapa.shared::cluster.u32 addr, %0, %2;\nmapa.shared::cluster.u32 bar, %1, %2;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [addr], {%3, %4, %5, %6}, [bar];\n}" ::"r"(
          smem_addr(dst)),
      "r"(smem_addr(bar)), "r"(rank), "f"(x), "f"(y), "f"(z), "f"(w)
      : "memory");
}
// fence.mbarrier_init.release.cluster;   PTX ISA 8.0, sm_90
DG_DEVICE void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// fence.proxy.async.shared::cta;   PTX ISA 8.0, sm_90; ordinary shared-memory stores before, TMA reads after
DG_DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace deep_gemm::ptx
