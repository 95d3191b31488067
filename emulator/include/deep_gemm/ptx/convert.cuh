// Emulated: see the file of this name in device/, whose functions these are.
#pragma once

#include <deep_gemm/core/fp8.cuh>

namespace deep_gemm::ptx {

DG_DEVICE float div_rn_f32(float x, float y) { return x / y; }
DG_DEVICE uint16_t cvt_rn_satfinite_e4m3x2_f32(float high, float low) {
  return static_cast<uint16_t>(encode_e4m3(high) << 8 | encode_e4m3(low));
}
DG_DEVICE uint16_t cvt_rn_satfinite_e5m2x2_f32(float high, float low) {
  return static_cast<uint16_t>(encode_e5m2(high) << 8 | encode_e5m2(low));
}

}  // namespace deep_gemm::ptx
