// Conversions and exact arithmetic. One function is one instruction; its PTX stands above it.
#pragma once

#include <deep_gemm/core/types.cuh>

#ifdef __CUDACC__
namespace deep_gemm::ptx {

// div.rn.f32 d, x, y;   PTX ISA 1.4
DG_DEVICE float div_rn_f32(float x, float y) {
  float d;
  asm("div.rn.f32 %0, %1, %2;" : "=f"(d) : "f"(x), "f"(y));
  return d;
}

// cvt.rn.satfinite.e4m3x2.f32 d, high, low;   PTX ISA 7.8, sm_89
DG_DEVICE uint16_t cvt_rn_satfinite_e4m3x2_f32(float high, float low) {
  uint16_t d;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(d) : "f"(high), "f"(low));
  return d;
}

// cvt.rn.satfinite.e5m2x2.f32 d, high, low;   PTX ISA 7.8, sm_89
DG_DEVICE uint16_t cvt_rn_satfinite_e5m2x2_f32(float high, float low) {
  uint16_t d;
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(d) : "f"(high), "f"(low));
  return d;
}

}  // namespace deep_gemm::ptx
#endif
