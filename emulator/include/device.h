// Included before each kernel: CUDA C++ as far as the device headers use it, for an ordinary C++ compiler.
#pragma once

#include "../machine.h"

#define __CUDACC__
#define __host__
#define __device__
#define __global__
#define __shared__ static  // CTAs whose shared memory has a name of its own run one after another
#ifdef EMULATOR_DEBUG
#define __forceinline__ inline
#else
#define __forceinline__ inline __attribute__((always_inline))
#endif
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __grid_constant__
#define threadIdx (emulator::current->thread)
#define blockIdx (emulator::current->block)
#define gridDim (emulator::current->grid)
#define blockDim (emulator::current->block_dim)

struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};

inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline unsigned __popc(unsigned x) { return static_cast<unsigned>(__builtin_popcount(x)); }
inline float fmaxf(float x, float y) { return x > y || y != y ? x : y; }
inline double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }

// One thread runs at a time.
template <class T>
T atomicAdd(T* at, T x) {
  const T old = *at;
  *at = old + x;
  return old;
}
template <class T>
T atomicMax(T* at, T x) {
  const T old = *at;
  *at = old < x ? x : old;
  return old;
}

inline void __syncthreads() { emulator::sync_block(0, blockDim.x); }
inline void __syncwarp() { emulator::sync_warp("__syncwarp", true); }
[[noreturn]] inline void __trap() { emulator::trap("__trap"); }

namespace emulator {

inline void whole_warp(unsigned mask) {
  if (mask != ~0u) trap("a collective of less than a warp, which is not emulated");
}
template <class T>
unsigned long to_word(T value) {
  static_assert(sizeof(T) <= sizeof(unsigned long));
  unsigned long word = 0;
  __builtin_memcpy(&word, &value, sizeof(T));
  return word;
}
template <class T>
T from_word(unsigned long word) {
  T value;
  __builtin_memcpy(&value, &word, sizeof(T));
  return value;
}
template <class T>
T shuffle(const char* what, unsigned mask, T value, unsigned lane) {
  whole_warp(mask);
  const unsigned long* all = exchange(what, to_word(value));
  return lane < 32 ? from_word<T>(all[lane]) : value;
}

template <class... P>
struct Signature {
  static constexpr unsigned long kBytes[] = {sizeof(P)..., 0};
};
template <class... P>
constexpr Signature<P...> signature_of(void (*)(P...)) {
  return {};
}
template <class... P>
void call(void (*kernel)(P...), void** params) {
  // A function's arguments may be evaluated in any order, elements of braces only from left to right.
  struct Call {
    Call(void (*f)(P...), P... p) { f(p...); }
  };
  unsigned at = 0;
  Call{kernel, *static_cast<P*>(params[at++])...};
}

}  // namespace emulator

template <class T>
T __shfl_sync(unsigned mask, T value, unsigned lane) {
  return emulator::shuffle("__shfl_sync", mask, value, lane % 32);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance) {
  return emulator::shuffle("__shfl_up_sync", mask, value, threadIdx.x % 32 - distance);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned lanes) {
  return emulator::shuffle("__shfl_xor_sync", mask, value, threadIdx.x % 32 ^ lanes);
}
inline unsigned __ballot_sync(unsigned mask, bool predicate) {
  emulator::whole_warp(mask);
  const unsigned long* all = emulator::exchange("__ballot_sync", predicate);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) votes |= static_cast<unsigned>(all[lane]) << lane;
  return votes;
}

/// Makes `kernel` known to the driver that loads it.
#define EMULATOR_EXPORT(kernel)                                                          \
  extern "C" __attribute__((visibility("default"))) emulator::Kernel emulated_kernel() { \
    using Signature = decltype(emulator::signature_of(&kernel));                         \
    return {[](void** params) { emulator::call(&kernel, params); }, Signature::kBytes,   \
            sizeof(Signature::kBytes) / sizeof(unsigned long) - 1};                      \
  }
