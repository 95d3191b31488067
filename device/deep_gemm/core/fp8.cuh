// Conversions between FP32 and the narrow types, in integer and FP32 arithmetic that gives host and device the same
// bits.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm {

/// The largest finite values.
inline constexpr float kE4m3Max = 448.0f, kE5m2Max = 57344.0f;

DG_HD constexpr uint32_t float_bits(float x) { return __builtin_bit_cast(uint32_t, x); }
DG_HD constexpr float float_from_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
DG_HD constexpr float magnitude(float x) { return float_from_bits(float_bits(x) & 0x7fffffffu); }

/// All ones where the condition holds. Selecting by masks keeps the conversions free of branches, so that compilers
/// turn loops over them into vector code.
DG_HD constexpr uint32_t mask_if(bool condition) { return 0u - static_cast<uint32_t>(condition); }

// The decoders move the code's exponent and mantissa to FP32's place. Denormals (exponent field 0) get an implicit one
// by an exponent one higher, and lose it again in an exact subtraction: no step makes or reads an FP32 denormal, so
// flush-to-zero is harmless.

DG_HD constexpr float decode_e4m3(uint8_t code) {
  const uint32_t payload = code & 0x7fu, denormal = mask_if(payload < 8), nan = mask_if(payload == 0x7f);
  const float value =
      float_from_bits((payload << 20) + (120u << 23) + (denormal & 1u << 23)) - float_from_bits(denormal & 121u << 23);
  return float_from_bits(float_bits(value) | (nan & 0x7fc00000u) | (code & 0x80u) << 24);
}

DG_HD constexpr float decode_f16(uint16_t code) {
  const uint32_t payload = code & 0x7fffu, denormal = mask_if(payload < 0x400), special = mask_if(payload >= 0x7c00);
  const float value =
      float_from_bits((payload << 13) + (112u << 23) + (denormal & 1u << 23)) - float_from_bits(denormal & 113u << 23);
  return float_from_bits(float_bits(value) | (special & 0x7f800000u) | (code & 0x8000u) << 16);
}

/// e5m2 is the upper half of f16.
DG_HD constexpr float decode_e5m2(uint8_t code) { return decode_f16(static_cast<uint16_t>(code << 8)); }

DG_HD constexpr float decode_bf16(uint16_t code) { return float_from_bits(static_cast<uint32_t>(code) << 16); }

/// Nearest e4m3, ties to even, saturated at ±448 (infinities too). Any NaN gives 0x7f: signs of NaN differ between CPUs
/// and GPUs.
DG_HD constexpr uint8_t encode_e4m3(float x) {
  const uint32_t bits = float_bits(x) & 0x7fffffffu;
  const uint32_t small = mask_if(bits < 0x3c800000u), big = mask_if(bits > 0x43e00000u),
                 nan = mask_if(bits > 0x7f800000u);
  // The last bit of 2^14 is worth 2^-9, e4m3's step below 2^-6: the addition rounds to it.
  const uint32_t denormal = float_bits(float_from_bits(bits & small) + 0x1p14f) - float_bits(0x1p14f);
  const uint32_t normal = (bits + 0x7ffffu + ((bits >> 20) & 1u) - (120u << 23)) >> 20;
  const uint32_t finite =
      (denormal & small) | (normal & ~small & ~big) | (0x7eu & big) | ((float_bits(x) >> 24) & 0x80u);
  return static_cast<uint8_t>((finite & ~nan) | (0x7fu & nan));
}

/// Nearest e5m2, ties to even, saturated at ±57344 (infinities too). Any NaN gives 0x7f.
DG_HD constexpr uint8_t encode_e5m2(float x) {
  const uint32_t bits = float_bits(x) & 0x7fffffffu;
  const uint32_t small = mask_if(bits < 0x38800000u), big = mask_if(bits > 0x47600000u),
                 nan = mask_if(bits > 0x7f800000u);
  // The last bit of 2^7 is worth 2^-16, e5m2's step below 2^-14: the addition rounds to it.
  const uint32_t denormal = float_bits(float_from_bits(bits & small) + 0x1p7f) - float_bits(0x1p7f);
  const uint32_t normal = (bits + 0xfffffu + ((bits >> 21) & 1u) - (112u << 23)) >> 21;
  const uint32_t finite =
      (denormal & small) | (normal & ~small & ~big) | (0x7bu & big) | ((float_bits(x) >> 24) & 0x80u);
  return static_cast<uint8_t>((finite & ~nan) | (0x7fu & nan));
}

// The FP8 type as an argument: e4m3 or e5m2.

DG_HD constexpr float largest_fp8(DType type) { return type == DType::e4m3 ? kE4m3Max : kE5m2Max; }
DG_HD constexpr float decode_fp8(DType type, uint8_t code) {
  return type == DType::e4m3 ? decode_e4m3(code) : decode_e5m2(code);
}
DG_HD constexpr uint8_t encode_fp8(DType type, float x) {
  return type == DType::e4m3 ? encode_e4m3(x) : encode_e5m2(x);
}

/// Nearest bf16, ties to even; any NaN gives 0x7fff.
DG_HD constexpr uint16_t encode_bf16(float x) {
  const uint32_t bits = float_bits(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = mask_if((bits & 0x7fffffffu) > 0x7f800000u);
  return static_cast<uint16_t>((rounded & ~nan) | (0x7fffu & nan));
}

/// Nearest f16, ties to even; from 65520 on an infinity; any NaN gives 0x7fff.
DG_HD constexpr uint16_t encode_f16(float x) {
  const uint32_t bits = float_bits(x) & 0x7fffffffu;
  const uint32_t small = mask_if(bits < 0x38800000u), big = mask_if(bits >= 0x477ff000u),
                 nan = mask_if(bits > 0x7f800000u);
  // The last bit of 1/2 is worth 2^-24, f16's step below 2^-14: the addition rounds to it.
  const uint32_t denormal = float_bits(float_from_bits(bits & small) + 0.5f) - float_bits(0.5f);
  const uint32_t normal = (bits + 0xfffu + ((bits >> 13) & 1u) - (112u << 23)) >> 13;
  const uint32_t finite =
      (denormal & small) | (normal & ~small & ~big) | (0x7c00u & big) | ((float_bits(x) >> 16) & 0x8000u);
  return static_cast<uint16_t>((finite & ~nan) | (0x7fffu & nan));
}

/// The next power of two at or above a positive normal `x`; infinity stays.
DG_HD constexpr float round_up_to_power_of_two(float x) {
  return float_from_bits((float_bits(x) + 0x7fffffu) & 0x7f800000u);
}

}  // namespace deep_gemm
