// Emulated: see the files of this name in device/, whose functions these are.
#pragma once

#include <deep_gemm/ptx/mbarrier.cuh>

#ifndef DG_WGMMA_TYPES
#define DG_WGMMA_TYPES "e4m3.e4m3"
#endif

namespace deep_gemm::ptx {

DG_DEVICE void wgmma_fence() {}
DG_DEVICE uint64_t wgmma_descriptor(const void* tile) { return emulator::matrix_descriptor(tile); }

template <int N>
struct WgmmaFp8 {
  static constexpr uint32_t kE5m2 = (DG_WGMMA_TYPES[1] == '5' ? 1 : 0) + (DG_WGMMA_TYPES[6] == '5' ? 2 : 0);
  DG_DEVICE static void multiply_block(float (&d)[N / 2], uint64_t a, uint64_t b) {
    emulator::multiply(d, N, a, b, kE5m2);
  }
  DG_DEVICE static void wait(float (&)[N / 2]) { emulator::wait_multiplied(); }
};

}  // namespace deep_gemm::ptx
