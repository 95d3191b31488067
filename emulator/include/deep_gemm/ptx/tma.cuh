// Emulated: see the file of this name in device/, whose functions these are. Hints to caches change nothing here.
#pragma once

#include <deep_gemm/ptx/mbarrier.cuh>

namespace deep_gemm::ptx {

template <class... Coordinates>
DG_DEVICE void load_box(void* dst, const TensorMap& map, uint64_t* bar, uint32_t ranks, Coordinates... at) {
  emulator::load_box(dst, &map, bar, sizeof...(at), {{static_cast<int>(at)...}}, ranks);
}
DG_DEVICE void tma_load_2d(void* dst, const TensorMap& map, uint64_t* bar, uint32_t x, uint32_t y) {
  load_box(dst, map, bar, 0, x, y);
}
DG_DEVICE void tma_load_3d(void* dst, const TensorMap& map, uint64_t* bar, uint32_t x, uint32_t y, uint32_t z) {
  load_box(dst, map, bar, 0, x, y, z);
}
DG_DEVICE void bulk_load(void* dst, const void* src, uint32_t bytes, uint64_t* bar) {
  emulator::load_bytes(dst, src, bytes, bar);
}
DG_DEVICE void tma_prefetch_2d(const TensorMap&, uint32_t, uint32_t) {}
DG_DEVICE void tma_load_2d_multicast(void* dst, const TensorMap& map, uint64_t* bar, uint32_t x, uint32_t y,
                                     uint16_t mask) {
  load_box(dst, map, bar, mask, x, y);
}
DG_DEVICE void tma_load_3d_multicast(void* dst, const TensorMap& map, uint64_t* bar, uint32_t x, uint32_t y, uint32_t z,
                                     uint16_t mask) {
  load_box(dst, map, bar, mask, x, y, z);
}
DG_DEVICE uint64_t evict_first_policy() { return 0; }
DG_DEVICE void tma_load_2d_hint(void* dst, const TensorMap& map, uint64_t* bar, uint64_t, uint32_t x, uint32_t y) {
  load_box(dst, map, bar, 0, x, y);
}
DG_DEVICE void tma_load_3d_hint(void* dst, const TensorMap& map, uint64_t* bar, uint64_t, uint32_t x, uint32_t y,
                                uint32_t z) {
  load_box(dst, map, bar, 0, x, y, z);
}
DG_DEVICE void tma_load_2d_multicast_hint(void* dst, const TensorMap& map, uint64_t* bar, uint64_t, uint32_t x,
                                          uint32_t y, uint16_t mask) {
  load_box(dst, map, bar, mask, x, y);
}
template <class... Coordinates>
DG_DEVICE void store_box(const TensorMap& map, const void* src, bool add, Coordinates... at) {
  emulator::store_box(&map, src, sizeof...(at), {{static_cast<int>(at)...}}, add);
}
DG_DEVICE void tma_store_2d(const TensorMap& map, const void* src, uint32_t x, uint32_t y) {
  store_box(map, src, false, x, y);
}
DG_DEVICE void tma_store_4d(const TensorMap& map, const void* src, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  store_box(map, src, false, x, y, z, w);
}
DG_DEVICE void tma_add_2d(const TensorMap& map, const void* src, uint32_t x, uint32_t y) {
  store_box(map, src, true, x, y);
}
DG_DEVICE void tma_add_4d(const TensorMap& map, const void* src, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  store_box(map, src, true, x, y, z, w);
}
DG_DEVICE void tma_store_commit() { emulator::commit_stores(); }
template <int kPending>
DG_DEVICE void tma_store_wait_read() {
  emulator::wait_stores_read(kPending);
}
DG_DEVICE void prefetch_tensormap(const TensorMap&) {}

}  // namespace deep_gemm::ptx
