// Bulk copies, most of them through tensor maps.
#pragma once

#include <deep_gemm/ptx/mbarrier.cuh>

namespace deep_gemm::ptx {

// cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [dst], [map, {x, y}], [bar];   PTX
// ISA 8.0, sm_90
DG_DEVICE void tma_load_2d(void* dst, const TensorMap& map, uint64_t* bar, uint32_t x, uint32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          smem_addr(dst)),
      "l"(&map), "r"(smem_addr(bar)), "r"(x), "r"(y)
      : "memory");
}
// cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [dst], [map, {x, y, z}], [bar];   PTX
// ISA 8.0, sm_90
DG_DEVICE void tma_load_3d(void* dst, const TensorMap& map, uint64_t* bar, uint32_t x, uint32_t y, uint32_t z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(smem_addr(dst)),
      "l"(&map), "r"(smem_addr(bar)), "r"(x), "r"(y), "r"(z)
      : "memory");
}
// cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [dst], [src], bytes, [bar];   PTX ISA 8.0, sm_90
DG_DEVICE void bulk_load(void* dst, const void* src, uint32_t bytes, uint64_t* bar) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(smem_addr(dst)),
      "l"(src), "r"(bytes), "r"(smem_addr(bar))
      : "memory");
}
// cp.async.bulk.prefetch.tensor.2d.L2.global [map, {x, y}];   PTX ISA 8.0, sm_90
DG_DEVICE void tma_prefetch_2d(const TensorMap& map, uint32_t x, uint32_t y) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global [%0, {%1, %2}];" ::"l"(&map), "r"(x), "r"(y) : "memory");
}
// … .mbarrier::complete_tx::bytes.multicast::cluster [dst], [map, {x, y}], [bar], mask;   PTX ISA 8.0, sm_90
// Writes to the same place in each CTA of the cluster whose bit is set, and counts the bytes on each one's own barrier.
DG_DEVICE void tma_load_2d_multicast(void* dst, const TensorMap& map, uint64_t* bar, uint32_t x, uint32_t y,
                                     uint16_t mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(smem_addr(dst)),
      "l"(&map), "r"(smem_addr(bar)), "r"(x), "r"(y), "h"(mask)
      : "memory");
}
DG_DEVICE void tma_load_3d_multicast(void* dst, const TensorMap& map, uint64_t* bar, uint32_t x, uint32_t y, uint32_t z,
                                     uint16_t mask) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(smem_addr(dst)),
      "l"(&map), "r"(smem_addr(bar)), "r"(x), "r"(y), "r"(z), "h"(mask)
      : "memory");
}
// createpolicy.fractional.L2::evict_first.b64 policy;   PTX ISA 7.4, sm_80; for all lines that are loaded with it. (There is
// no policy that says nothing: loads with evict_normal took up to a quarter longer than loads without: H100, 2026-11-23.)
DG_DEVICE uint64_t evict_first_policy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0;" : "=l"(policy));
  return policy;
}
// … .mbarrier::complete_tx::bytes.L2::cache_hint [dst], [map, {x, y}], [bar], policy;   PTX ISA 8.0, sm_90
DG_DEVICE void tma_load_2d_hint(void* dst, const TensorMap& map, uint64_t* bar, uint64_t policy, uint32_t x,
                                uint32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(smem_addr(dst)),
      "l"(&map), "r"(smem_addr(bar)), "r"(x), "r"(y), "l"(policy)
      : "memory");
}
// … .mbarrier::complete_tx::bytes.L2::cache_hint [dst], [map, {x, y, z}], [bar], policy;   PTX ISA 8.0, sm_90
DG_DEVICE void tma_load_3d_hint(void* dst, const TensorMap& map, uint64_t* bar, uint64_t policy, uint32_t x, uint32_t y,
                                uint32_t z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(smem_addr(dst)),
      "l"(&map), "r"(smem_addr(bar)), "r"(x), "r"(y), "r"(z), "l"(policy)
      : "memory");
}
// … .mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [dst], [map, {x, y}], [bar], mask, policy;   PTX
// ISA 8.0, sm_90
DG_DEVICE void tma_load_2d_multicast_hint(void* dst, const TensorMap& map, uint64_t* bar, uint64_t policy, uint32_t x,
                                          uint32_t y, uint16_t mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint "
      "[%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(smem_addr(dst)),
      "l"(&map), "r"(smem_addr(bar)), "r"(x), "r"(y), "h"(mask), "l"(policy)
      : "memory");
}
// cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [map, {x, y}], [src];   PTX ISA 8.0, sm_90
DG_DEVICE void tma_store_2d(const TensorMap& map, const void* src, uint32_t x, uint32_t y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map),
               "r"(smem_addr(src)), "r"(x), "r"(y)
               : "memory");
}
// cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [map, {x, y, z, w}], [src];   PTX ISA 8.0, sm_90
DG_DEVICE void tma_store_4d(const TensorMap& map, const void* src, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(&map),
               "r"(smem_addr(src)), "r"(x), "r"(y), "r"(z), "r"(w)
               : "memory");
}
// cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.bulk_group [map, {x, y}], [src];   PTX ISA 8.0, sm_90
DG_DEVICE void tma_add_2d(const TensorMap& map, const void* src, uint32_t x, uint32_t y) {
  asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map),
               "r"(smem_addr(src)), "r"(x), "r"(y)
               : "memory");
}
// cp.reduce.async.bulk.tensor.4d.global.shared::cta.add.bulk_group [map, {x, y, z, w}], [src];   PTX ISA 8.0, sm_90
DG_DEVICE void tma_add_4d(const TensorMap& map, const void* src, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  asm volatile(
      "cp.reduce.async.bulk.tensor.4d.global.shared::cta.add.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(&map),
      "r"(smem_addr(src)), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}
// cp.async.bulk.commit_group;   PTX ISA 8.0, sm_90
DG_DEVICE void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// cp.async.bulk.wait_group.read n;   PTX ISA 8.0, sm_90; all but the newest n groups have read their shared memory
template <int kPending>
DG_DEVICE void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
// prefetch.tensormap [map];   PTX ISA 8.0, sm_90
DG_DEVICE void prefetch_tensormap(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
}  // namespace deep_gemm::ptx
