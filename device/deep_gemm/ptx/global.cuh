// Loads of a thread from global memory.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm::ptx {

// @p ld.global.nc.f32 d, [from];   PTX ISA 3.1
DG_DEVICE float load_if(bool condition, const float* from, float otherwise) {
  float value = otherwise;
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %2, 0;\n@p ld.global.nc.f32 %0, [%1];\n}"
               : "+f"(value)
               : "l"(from), "r"(uint32_t(condition)));
  return value;
}
struct Vector {
  uint32_t x, y, z, w;
};
// ld.global.nc.L1::no_allocate.v4.u32 {x, y, z, w}, [address];   PTX ISA 7.4, sm_70
DG_DEVICE Vector load_vector(const uint8_t* address) {
  Vector v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(address));
  return v;
}

}  // namespace deep_gemm::ptx
