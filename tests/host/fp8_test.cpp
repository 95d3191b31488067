// The conversions of core/fp8.cuh: every code, every midpoint, and the neighbours of both.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <deep_gemm/core/fp8.cuh>

namespace deep_gemm {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// A narrow format as its definition states it: exponent and mantissa bits, bias, and what the top exponent holds.
struct Format {
  int exponent_bits, mantissa_bits, bias;
  bool has_infinity;  ///< the top exponent is infinity and NaN; otherwise only the last code is NaN

  double value(uint32_t code) const {
    const int width = 1 + exponent_bits + mantissa_bits;
    const double sign = (code >> (width - 1)) & 1 ? -1 : 1;
    const uint32_t top = (1u << exponent_bits) - 1;
    const uint32_t exponent = (code >> mantissa_bits) & top, mantissa = code & ((1u << mantissa_bits) - 1);
    if (has_infinity && exponent == top) return mantissa ? std::nan("") : sign * HUGE_VAL;
    if (!has_infinity && exponent == top && mantissa == (1u << mantissa_bits) - 1) return std::nan("");
    const double fraction = std::ldexp(mantissa, -mantissa_bits);
    return exponent == 0 ? sign * std::ldexp(fraction, 1 - bias)
                         : sign * std::ldexp(1 + fraction, static_cast<int>(exponent) - bias);
  }
};
constexpr Format kE4m3{4, 3, 7, false}, kE5m2{5, 2, 15, true}, kF16{5, 10, 15, true}, kBf16{8, 7, 127, true};

template <class Decode>
void expect_decodes(const Format& format, uint32_t codes, Decode decode) {
  for (uint32_t code = 0; code < codes; ++code) {
    const double want = format.value(code), got = decode(code);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(got)) << code;
    } else {
      EXPECT_EQ(got, want) << code;
      EXPECT_EQ(std::signbit(got), std::signbit(want)) << code;
    }
  }
}

TEST(Fp8, DecodesEveryCode) {
  expect_decodes(kE4m3, 256, [](uint32_t c) { return decode_e4m3(static_cast<uint8_t>(c)); });
  expect_decodes(kE5m2, 256, [](uint32_t c) { return decode_e5m2(static_cast<uint8_t>(c)); });
  expect_decodes(kF16, 65536, [](uint32_t c) { return decode_f16(static_cast<uint16_t>(c)); });
  expect_decodes(kBf16, 65536, [](uint32_t c) { return decode_bf16(static_cast<uint16_t>(c)); });
}

/// For every pair of neighbouring finite codes: both values, the midpoint (ties to even) and the floats beside it.
template <class Encode>
void expect_rounds(const Format& format, uint32_t last_finite, Encode encode) {
  const uint32_t sign = 1u << (format.exponent_bits + format.mantissa_bits);
  for (uint32_t code = 0; code < last_finite; ++code) {
    const double low = format.value(code), high = format.value(code + 1);
    const auto expect = [&](float x, uint32_t want) {
      EXPECT_EQ(encode(x), want) << "x = " << x << ", code " << code;
      EXPECT_EQ(encode(-x), want | sign) << "x = " << -x << ", code " << code;
    };
    expect(static_cast<float>(low), code);
    const auto middle = static_cast<float>((low + high) / 2);
    ASSERT_EQ(middle, (low + high) / 2);
    expect(middle, code + (code & 1));
    expect(std::nextafter(middle, 0.0f), code);
    expect(std::nextafter(middle, kInf), code + 1);
  }
}

TEST(Fp8, EncodesToTheNearestCode) {
  expect_rounds(kE4m3, 0x7e, encode_e4m3);
  expect_rounds(kE5m2, 0x7b, encode_e5m2);
  expect_rounds(kF16, 0x7bff, encode_f16);
  expect_rounds(kBf16, 0x7f7f, encode_bf16);
}

TEST(Fp8, EveryCodeSurvivesARoundTrip) {
  for (uint32_t code = 0; code < 256; ++code) {
    if ((code & 0x7f) == 0x7f) continue;
    EXPECT_EQ(encode_e4m3(decode_e4m3(static_cast<uint8_t>(code))), code);
  }
  for (uint32_t code = 0; code < 256; ++code) {
    if ((code & 0x7f) >= 0x7c) continue;
    EXPECT_EQ(encode_e5m2(decode_e5m2(static_cast<uint8_t>(code))), code);
  }
  for (uint32_t code = 0; code < 65536; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    if ((code & 0x7fff) <= 0x7c00) {
      EXPECT_EQ(encode_f16(decode_f16(bits)), code);
    }
    if ((code & 0x7fff) <= 0x7f80) {
      EXPECT_EQ(encode_bf16(decode_bf16(bits)), code);
    }
  }
}

TEST(Fp8, TheEndsOfTheRange) {
  for (float x : {448.0f, 463.9f, 464.0f, 480.0f, 1e30f, std::numeric_limits<float>::max(), kInf}) {
    EXPECT_EQ(encode_e4m3(x), 0x7e) << x;
    EXPECT_EQ(encode_e4m3(-x), 0xfe) << x;
  }
  for (float x : {std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::min(), 0x1p-10f}) {
    EXPECT_EQ(encode_e4m3(x), 0x00) << x;
    EXPECT_EQ(encode_e4m3(-x), 0x80) << x;
  }
  for (float x : {57344.0f, 61439.0f, 61440.0f, 65536.0f, 1e30f, std::numeric_limits<float>::max(), kInf}) {
    EXPECT_EQ(encode_e5m2(x), 0x7b) << x;
    EXPECT_EQ(encode_e5m2(-x), 0xfb) << x;
  }
  for (float x : {std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::min(), 0x1p-17f}) {
    EXPECT_EQ(encode_e5m2(x), 0x00) << x;
    EXPECT_EQ(encode_e5m2(-x), 0x80) << x;
  }
  EXPECT_EQ(encode_f16(65519.996f), 0x7bff);
  EXPECT_EQ(encode_f16(65520.0f), 0x7c00);
  EXPECT_EQ(encode_f16(-kInf), 0xfc00);
  EXPECT_EQ(encode_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(encode_bf16(-kInf), 0xff80);
  for (float x : {kNaN, -kNaN, std::bit_cast<float>(0x7f800001u), std::bit_cast<float>(0xffffffffu)}) {
    EXPECT_EQ(encode_e4m3(x), 0x7f);
    EXPECT_EQ(encode_e5m2(x), 0x7f);
    EXPECT_EQ(encode_f16(x), 0x7fff);
    EXPECT_EQ(encode_bf16(x), 0x7fff);
  }
}

TEST(Fp8, RoundsScalesUpToPowersOfTwo) {
  for (int e = -126; e < 127; ++e) {
    const float power = std::ldexp(1.0f, e);
    EXPECT_EQ(round_up_to_power_of_two(power), power);
    EXPECT_EQ(round_up_to_power_of_two(std::nextafter(power, kInf)), 2 * power);
    EXPECT_EQ(round_up_to_power_of_two(std::nextafter(2 * power, 0.0f)), 2 * power);
  }
  EXPECT_EQ(round_up_to_power_of_two(kInf), kInf);
}

/// By the type as an argument, and every bf16 number, which has more bits than either: what rounds once rounds the same.
TEST(Fp8, TheTypeAsAnArgument) {
  EXPECT_EQ(largest_fp8(DType::e4m3), kE4m3.value(0x7e));
  EXPECT_EQ(largest_fp8(DType::e5m2), kE5m2.value(0x7b));
  for (uint32_t code = 0; code < 65536; ++code) {
    const float x = decode_bf16(static_cast<uint16_t>(code));
    EXPECT_EQ(encode_fp8(DType::e4m3, x), encode_e4m3(x));
    EXPECT_EQ(encode_fp8(DType::e5m2, x), encode_e5m2(x));
  }
  for (uint32_t code = 0; code < 256; ++code) {
    const auto c = static_cast<uint8_t>(code);
    EXPECT_EQ(float_bits(decode_fp8(DType::e4m3, c)), float_bits(decode_e4m3(c)));
    EXPECT_EQ(float_bits(decode_fp8(DType::e5m2, c)), float_bits(decode_e5m2(c)));
  }
}

static_assert(encode_e5m2(1.0f) == 0x3c && decode_e5m2(0x3c) == 1.0f);
static_assert(encode_e4m3(1.0f) == 0x38 && decode_e4m3(0x38) == 1.0f);

}  // namespace
}  // namespace deep_gemm
