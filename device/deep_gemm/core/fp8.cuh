// Conversions between FP32 and the narrow types, in integer and FP32 arithmetic that gives host and device the same
// bits.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm {

/// The largest finite e4m3 value.
inline constexpr float kE4m3Max = 448.0f;

DG_HD constexpr uint32_t float_bits(float x) { return __builtin_bit_cast(uint32_t, x); }
DG_HD constexpr float float_from_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
DG_HD constexpr float magnitude(float x) { return float_from_bits(float_bits(x) & 0x7fffffffu); }

// Every decoder builds the value with the exponent one above its type's bias and, for denormals (exponent field 0),
// takes the implicit one away again by an exact subtraction: no step makes or reads an FP32 denormal, so flush-to-zero
// is harmless.

DG_HD constexpr float decode_e4m3(uint8_t code) {
  const uint32_t sign = (code & 0x80u) << 24, payload = code & 0x7fu;
  const float normal = float_from_bits((payload << 20) + (120u << 23));
  const float denormal = float_from_bits((payload << 20) + (121u << 23)) - 0x1p-6f;
  const float value = payload < 8 ? denormal : normal;
  return float_from_bits(sign | (payload == 0x7f ? 0x7fc00000u : float_bits(value)));
}

DG_HD constexpr float decode_f16(uint16_t code) {
  const uint32_t sign = (code & 0x8000u) << 16, payload = code & 0x7fffu;
  const float normal = float_from_bits((payload << 13) + (112u << 23));
  const float denormal = float_from_bits((payload << 13) + (113u << 23)) - 0x1p-14f;
  const uint32_t special = 0x7f800000u | (payload & 0x3ffu) << 13;
  return float_from_bits(sign | (payload >= 0x7c00 ? special : float_bits(payload < 0x400 ? denormal : normal)));
}

/// e5m2 is the upper half of f16.
DG_HD constexpr float decode_e5m2(uint8_t code) { return decode_f16(static_cast<uint16_t>(code << 8)); }

DG_HD constexpr float decode_bf16(uint16_t code) { return float_from_bits(static_cast<uint32_t>(code) << 16); }

/// Nearest e4m3, ties to even, saturated at ±448 (infinities too). Any NaN gives 0x7f: signs of NaN differ between CPUs
/// and GPUs.
DG_HD constexpr uint8_t encode_e4m3(float x) {
  const uint32_t bits = float_bits(x) & 0x7fffffffu;
  // The last bit of 2^14 is worth 2^-9, e4m3's smallest step: the addition rounds below 2^-6, where the steps are even.
  const uint32_t small = bits < 0x3c800000u ? bits : 0u;
  const uint32_t denormal = float_bits(float_from_bits(small) + 0x1p14f) - float_bits(0x1p14f);
  const uint32_t capped = bits > 0x43e00000u ? 0x43e00000u : bits;
  const uint32_t normal = (capped + 0x7ffffu + ((capped >> 20) & 1u) - (120u << 23)) >> 20;
  const uint32_t code = (bits < 0x3c800000u ? denormal : normal) | ((float_bits(x) >> 24) & 0x80u);
  return static_cast<uint8_t>(bits > 0x7f800000u ? 0x7fu : code);
}

/// Nearest bf16, ties to even; any NaN gives 0x7fff.
DG_HD constexpr uint16_t encode_bf16(float x) {
  const uint32_t bits = float_bits(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded);
}

/// Nearest f16, ties to even; from 65520 on an infinity; any NaN gives 0x7fff.
DG_HD constexpr uint16_t encode_f16(float x) {
  const uint32_t bits = float_bits(x) & 0x7fffffffu;
  // The last bit of 1/2 is worth 2^-24, f16's smallest step.
  const uint32_t small = bits < 0x38800000u ? bits : 0u;
  const uint32_t denormal = float_bits(float_from_bits(small) + 0.5f) - float_bits(0.5f);
  const uint32_t normal = (bits + 0xfffu + ((bits >> 13) & 1u) - (112u << 23)) >> 13;
  const uint32_t finite = bits < 0x38800000u ? denormal : normal;
  const uint32_t code = (bits >= 0x477ff000u ? 0x7c00u : finite) | ((float_bits(x) >> 16) & 0x8000u);
  return static_cast<uint16_t>(bits > 0x7f800000u ? 0x7fffu : code);
}

/// The next power of two at or above a positive normal `x`; infinity stays.
DG_HD constexpr float round_up_to_power_of_two(float x) {
  return float_from_bits((float_bits(x) + 0x7fffffu) & 0x7f800000u);
}

}  // namespace deep_gemm
