// One number for each lane of a warp. On the device a register; on the host, where one thread stands for the whole warp, an
// array: code written with it runs in tests without a GPU.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm {

#ifdef __CUDACC__

/// All members are for whole warps.
struct Lanes {
  static constexpr uint32_t kCount = 32;
  uint32_t own;

  template <class F>
  static DG_DEVICE Lanes each(F f) {
    return {f(threadIdx.x % kCount)};
  }
  /// Inside `each`: the number of the lane that is being computed.
  DG_DEVICE uint32_t at(uint32_t) const { return own; }
  DG_DEVICE uint32_t operator[](uint32_t lane) const { return __shfl_sync(~0u, own, lane); }
  DG_DEVICE Lanes running_sum() const {
    uint32_t sum = own;
#pragma unroll
    for (uint32_t distance = 1; distance < kCount; distance *= 2) {
      const uint32_t below = __shfl_up_sync(~0u, sum, distance);
      if (threadIdx.x % kCount >= distance) sum += below;
    }
    return {sum};
  }
  /// How many lanes hold at most x.
  DG_DEVICE uint32_t count_at_most(uint32_t x) const { return __popc(__ballot_sync(~0u, own <= x)); }
};

#else

struct Lanes {
  static constexpr uint32_t kCount = 32;
  uint32_t all[kCount];

  template <class F>
  static Lanes each(F f) {
    Lanes lanes{};
    for (uint32_t i = 0; i < kCount; ++i) lanes.all[i] = f(i);
    return lanes;
  }
  uint32_t at(uint32_t lane) const { return all[lane]; }
  uint32_t operator[](uint32_t lane) const { return all[lane]; }
  Lanes running_sum() const {
    Lanes sum = *this;
    for (uint32_t i = 1; i < kCount; ++i) sum.all[i] += sum.all[i - 1];
    return sum;
  }
  uint32_t count_at_most(uint32_t x) const {
    uint32_t count = 0;
    for (uint32_t number : all) count += number <= x;
    return count;
  }
};

#endif

}  // namespace deep_gemm
