// Emulated: see the file of this name in device/, whose functions these are.
#pragma once

#include <deep_gemm/core/types.cuh>

extern "C" int printf(const char*, ...);

namespace deep_gemm::ptx {

DG_DEVICE uint64_t globaltimer() {
  struct {
    long seconds, nanoseconds;
  } time;
  extern int clock_gettime(int, void*) __asm__("clock_gettime");
  clock_gettime(1, &time);
  return static_cast<uint64_t>(time.seconds) * 1000000000 + static_cast<uint64_t>(time.nanoseconds);
}

}  // namespace deep_gemm::ptx
