// Fixed-width types and small arithmetic. Host and device.
#pragma once

#include <deep_gemm/config.h>

#ifdef __CUDACC__
#define DG_DEVICE __device__ __forceinline__
namespace deep_gemm {
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long;
using uint64_t = unsigned long;
}  // namespace deep_gemm
#else
#include <cstdint>
#endif

namespace deep_gemm {

/// The 128 bytes of a CUtensorMap, without <cuda.h>.
struct alignas(64) TensorMap {
  uint8_t opaque[128];
};

DG_HD constexpr uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }
DG_HD constexpr uint32_t align_up(uint32_t a, uint32_t b) { return ceil_div(a, b) * b; }
DG_HD constexpr uint32_t min(uint32_t a, uint32_t b) { return a < b ? a : b; }
DG_HD constexpr uint32_t max(uint32_t a, uint32_t b) { return a < b ? b : a; }

}  // namespace deep_gemm
