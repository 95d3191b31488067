// Emulated: see the file of this name in device/, whose functions these are.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm::ptx {

DG_DEVICE float load_if(bool condition, const float* from, float otherwise) { return condition ? *from : otherwise; }
struct Vector {
  uint32_t x, y, z, w;
};
DG_DEVICE Vector load_vector(const uint8_t* address) { return *reinterpret_cast<const Vector*>(address); }

}  // namespace deep_gemm::ptx
