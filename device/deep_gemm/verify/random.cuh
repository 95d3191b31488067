// Random elements as a function of seed and index, in integer arithmetic and single roundings: the same bits on every
// backend.
#pragma once

#include <deep_gemm/core/fp8.cuh>

namespace deep_gemm {

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
DG_HD constexpr uint64_t mix_bits(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

DG_HD constexpr uint64_t random_bits(uint64_t key, uint64_t index) {
  return mix_bits(key + (index + 1) * 0x9e3779b97f4a7c15u);
}

/// A normal variate in units of 1/107020: twice the centred sum of eight 16-bit uniforms, whose tails end at 4.9 σ.
DG_HD constexpr int32_t random_normal_units(uint64_t key, uint64_t index) {
  int32_t sum = -8 * 65535;
  for (uint64_t half = 0; half < 2; ++half) {
    const uint64_t bits = random_bits(key, 2 * index + half);
    for (int field = 0; field < 64; field += 16) sum += 2 * static_cast<int32_t>(bits >> field & 0xffff);
  }
  return sum;
}

/// Standard normal.
DG_HD constexpr float random_normal(uint64_t key, uint64_t index) {
  return static_cast<float>(random_normal_units(key, index)) * (1.0f / 107020.0f);
}

/// e4m3 of a normal variate with σ = 160, since 448 / 160 is what the largest of 128 comes to: quantised blocks look so.
/// One in 64 is made smaller by up to 2^15, so that denormals and zeros occur.
DG_HD constexpr uint8_t random_e4m3(uint64_t key, uint64_t index) {
  const float value = static_cast<float>(random_normal_units(key, index)) * (160.0f / 107020.0f);
  const auto dice = static_cast<uint32_t>(random_bits(~key, index) >> 32);
  const uint32_t shift = (dice & 63) == 0 ? dice >> 6 & 15 : 0;
  return encode_e4m3(value * float_from_bits((127 - shift) << 23));
}

/// e5m2 likewise: σ = 20480, and one in 64 smaller by up to 2^31.
DG_HD constexpr uint8_t random_e5m2(uint64_t key, uint64_t index) {
  const float value = static_cast<float>(random_normal_units(key, index)) * (20480.0f / 107020.0f);
  const auto dice = static_cast<uint32_t>(random_bits(~key, index) >> 32);
  const uint32_t shift = (dice & 63) == 0 ? dice >> 6 & 31 : 0;
  return encode_e5m2(value * float_from_bits((127 - shift) << 23));
}

/// A positive scale: FP32 whose bits are uniform over `spread` / 2^16 binades around 2^-7.
DG_HD constexpr float random_scale(uint64_t key, uint64_t index, int64_t spread) {
  const int64_t uniform = static_cast<int64_t>(random_bits(key, index) >> 32) - (int64_t{1} << 31);
  return float_from_bits(static_cast<uint32_t>((int64_t{120} << 23) + (uniform * spread >> 25)));
}

struct FillRandomArgs {
  void* data;
  int64_t shape[3], strides[3];  ///< the last three dimensions; leading ones are 1
  uint64_t key;
  int64_t spread;  ///< of scales
  DType dtype;
  int32_t scales;  ///< FP32 scales instead of normal values
};

/// Writes element `index` in row-major order.
DG_HD void fill_random_element(const FillRandomArgs& args, int64_t index) {
  const int64_t last = index % args.shape[2], rest = index / args.shape[2];
  const int64_t at =
      rest / args.shape[1] * args.strides[0] + rest % args.shape[1] * args.strides[1] + last * args.strides[2];
  const auto i = static_cast<uint64_t>(index);
  if (args.dtype == DType::e4m3) {
    static_cast<uint8_t*>(args.data)[at] = random_e4m3(args.key, i);
  } else if (args.dtype == DType::e5m2) {
    static_cast<uint8_t*>(args.data)[at] = random_e5m2(args.key, i);
  } else if (args.scales) {
    static_cast<float*>(args.data)[at] = random_scale(args.key, i, args.spread);
  } else {
    const float value = random_normal(args.key, i);
    if (args.dtype == DType::f32)
      static_cast<float*>(args.data)[at] = value;
    else
      static_cast<uint16_t*>(args.data)[at] = args.dtype == DType::bf16 ? encode_bf16(value) : encode_f16(value);
  }
}

inline constexpr uint32_t kFillThreads = 256;

#ifdef __CUDACC__
DG_DEVICE void fill_random(const FillRandomArgs& args) {
  const int64_t count = args.shape[0] * args.shape[1] * args.shape[2];
  for (int64_t i = int64_t(blockIdx.x) * kFillThreads + threadIdx.x; i < count; i += int64_t(gridDim.x) * kFillThreads)
    fill_random_element(args, i);
}
#endif

}  // namespace deep_gemm
