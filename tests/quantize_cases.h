// Quantisation and scale transposition on every backend, against the definition taken literally. Instantiated by the
// programs of tests/host and tests/device.
#pragma once

#include <limits>

#include "gemm_support.h"

namespace deep_gemm::test {

class LayoutTest : public BackendTest, public testing::WithParamInterface<DeviceType> {
 protected:
  LayoutTest() : BackendTest(GetParam()) {}
};

inline float element(const Matrix& x, int64_t i, int64_t j) {
  if (x.view().dtype == DType::f32) return x.get<float>(i, j);
  return x.view().dtype == DType::bf16 ? decode_bf16(x.get<uint16_t>(i, j)) : decode_f16(x.get<uint16_t>(i, j));
}

inline void set_element(Matrix& x, int64_t i, int64_t j, float value) {
  if (x.view().dtype == DType::f32)
    x.set(i, j, value);
  else
    x.set(i, j, x.view().dtype == DType::bf16 ? encode_bf16(value) : encode_f16(value));
}

/// The e4m3 code whose value is nearest to `x`, the even one of two; found by trying all.
inline uint8_t nearest_e4m3(float x) {
  static const std::array<double, 0x7f> kValues = [] {
    std::array<double, 0x7f> values{};
    for (int code = 0; code < 0x7f; ++code) {
      const int exponent = code >> 3, mantissa = code & 7;
      values[static_cast<std::size_t>(code)] =
          exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
    }
    return values;
  }();
  if (std::isnan(x)) return 0x7f;
  const double target = std::min(std::abs(static_cast<double>(x)), 448.0);
  std::size_t best = 0;
  for (std::size_t code = 1; code < kValues.size(); ++code) {
    const double gain = std::abs(kValues[best] - target) - std::abs(kValues[code] - target);
    if (gain > 0 || (gain == 0 && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

struct QuantizeCase {
  int64_t rows = 0, cols = 0;
  int64_t rows_per_scale = 1;
  DType dtype = DType::bf16;
  bool power_of_two = false;
  Placement x{}, out{}, scale{};
};

/// Values over all of the type's range: blocks of different size, of zeros, of denormals, with NaN and infinity.
inline void fill_wildly(Matrix& x, Random& random) {
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> exponent(x.view().dtype == DType::f16 ? -12 : -120,
                                              x.view().dtype == DType::f16 ? 12 : 120);
  for (int64_t i = 0; i < x.rows(); ++i) {
    for (int64_t first = 0; first < x.cols(); first += 128) {
      const auto kind = random() % 16;
      const float magnitude =
          kind == 0 ? 0.0f : std::ldexp(1.0f, kind < 8 ? exponent(random) : static_cast<int>(kind) - 12);
      for (int64_t j = first; j < std::min(x.cols(), first + 128); ++j)
        set_element(x, i, j, magnitude * normal(random));
      const int64_t at =
          first + static_cast<int64_t>(random() % static_cast<uint64_t>(std::min<int64_t>(128, x.cols() - first)));
      if (kind == 1) set_element(x, i, at, std::numeric_limits<float>::quiet_NaN());
      if (kind == 2) set_element(x, i, at, -std::numeric_limits<float>::quiet_NaN());
      if (kind == 3 && i % 7 == 0) set_element(x, i, at, -std::numeric_limits<float>::infinity());
      if (kind == 4) set_element(x, i, at, 0x1p-14f / 3);
      if (kind == 5) set_element(x, i, at, 3e38f);
    }
  }
  x.upload();
}

inline void check_quantize(Context& context, const QuantizeCase& q, uint64_t seed) {
  SCOPED_TRACE(fmt::format("{} x {} {}, {} rows a scale, pitches {} {}, power of two: {}", q.rows, q.cols,
                           name_of(q.dtype), q.rows_per_scale, q.x.pitch, q.out.pitch, q.power_of_two));
  Random random(seed);
  const int64_t blocks = (q.cols + 127) / 128, groups = (q.rows + q.rows_per_scale - 1) / q.rows_per_scale;
  Matrix x(context.device(), q.dtype, q.rows, q.cols, 0xff, q.x);
  Matrix out(context.device(), DType::e4m3, q.rows, q.cols, 0x55, q.out);
  Matrix scale(context.device(), DType::f32, groups, blocks, 0x55, q.scale);
  fill_wildly(x, random);
  out.poison(), scale.poison();
  const Fp8Tensor result{out.view(), scale.view()};
  const QuantizeOptions options{.power_of_two_scales = q.power_of_two};
  if (q.rows_per_scale == 1)
    quantize_1x128(context, x.view(), result, options);
  else
    quantize_128x128(context, x.view(), result, options);
  if (context.device().type == DeviceType::cuda) cuda::synchronize({});
  out.download(), scale.download();
  EXPECT_EQ(out.changed_guard_bytes(), 0);
  EXPECT_EQ(scale.changed_guard_bytes(), 0);

  int64_t wrong = 0;
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t end_row = std::min(q.rows, (group + 1) * q.rows_per_scale);
      const int64_t end_col = std::min(q.cols, (block + 1) * 128);
      float largest = 1e-4f;
      for (int64_t i = group * q.rows_per_scale; i < end_row; ++i)
        for (int64_t j = block * 128; j < end_col; ++j) largest = std::fmax(largest, std::abs(element(x, i, j)));
      float expected = largest / 448.0f;
      if (q.power_of_two && std::isfinite(expected)) {
        int exponent = 0;
        const float fraction = std::frexp(expected, &exponent);
        expected = std::ldexp(1.0f, fraction == 0.5f ? exponent - 1 : exponent);
      }
      const auto got = scale.get<float>(group, block);
      wrong += got != expected;
      for (int64_t i = group * q.rows_per_scale; i < end_row; ++i)
        for (int64_t j = block * 128; j < end_col; ++j)
          wrong += out.get<uint8_t>(i, j) != nearest_e4m3(element(x, i, j) / expected);
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST_P(LayoutTest, QuantizesByTheDefinition) {
  constexpr std::array<std::array<int64_t, 2>, 9> kShapes = {
      {{1, 1}, {1, 128}, {3, 129}, {130, 257}, {128, 128}, {129, 384}, {33, 1000}, {0, 5}, {5, 0}}};
  uint64_t seed = 0;
  for (const auto& [rows, cols] : kShapes)
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32})
      for (const int64_t rows_per_scale : {1, 128})
        for (const bool power_of_two : {false, true})
          check_quantize(context(), {rows, cols, rows_per_scale, dtype, power_of_two}, ++seed);
}

TEST_P(LayoutTest, QuantizesAnyStrides) {
  uint64_t seed = 100;
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32})
    for (const int64_t rows_per_scale : {1, 128}) {
      const int64_t groups = rows_per_scale == 1 ? 131 : 2;
      // Rows that vector loads cannot take, outputs that vector stores cannot, and scales in every layout.
      check_quantize(context(), {131, 300, rows_per_scale, dtype, false, {.pitch = 301}, {.pitch = 304}}, ++seed);
      check_quantize(context(), {131, 300, rows_per_scale, dtype, false, {.pitch = 304}, {.pitch = 307}}, ++seed);
      check_quantize(context(), {131, 300, rows_per_scale, dtype, false, {.offset = 1}, {.offset = 3}}, ++seed);
      check_quantize(context(), {131, 300, rows_per_scale, dtype, false, {}, {}, {.pitch = 7}}, ++seed);
      check_quantize(context(),
                     {131, 300, rows_per_scale, dtype, false, {}, {}, {.pitch = groups + 1, .transposed = true}},
                     ++seed);
      check_quantize(context(), {131, 300, rows_per_scale, dtype, false, {}, {}, {.spread = 3}}, ++seed);
    }
}

TEST_P(LayoutTest, QuantisationErrorIsHalfAStep) {
  Random random(5);
  Matrix x(context().device(), DType::f32, 200, 500, 0xff), out(context().device(), DType::e4m3, 200, 500, 0);
  Matrix scale(context().device(), DType::f32, 200, 4, 0);
  fill_numbers(x, 3.0f, random);
  quantize_1x128(context(), x.view(), {out.view(), scale.view()});
  if (on_gpu()) cuda::synchronize({});
  out.download(), scale.download();
  for (int64_t i = 0; i < x.rows(); ++i) {
    for (int64_t j = 0; j < x.cols(); ++j) {
      const double s = scale.get<float>(i, j / 128), value = x.get<float>(i, j);
      const double back = s * decode_e4m3(out.get<uint8_t>(i, j));
      // e4m3 has four significant bits down to 2^-6 and steps of 2^-9 below.
      EXPECT_LE(std::abs(back - value), std::max(std::abs(value) / 16, s * 0x1p-10) * 1.000001) << i << ", " << j;
    }
  }
}

TEST_P(LayoutTest, QuantizeRejectsWhatDoesNotFit) {
  const Device device = context().device();
  Matrix x(device, DType::bf16, 10, 300, 0), out(device, DType::e4m3, 10, 300, 0), scale(device, DType::f32, 10, 3, 0);
  const auto message = [&](const TensorView& from, const Fp8Tensor& to, bool square = false) -> std::string {
    try {
      square ? quantize_128x128(context(), from, to) : quantize_1x128(context(), from, to);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message(x.view(), {out.view(), scale.view()}), "");
  TensorView short_scale = scale.view();
  short_scale.shape[1] = 2;
  EXPECT_EQ(message(x.view(), {out.view(), short_scale}),
            "quantize_1x128: out.scale is [10, 2], expected [10, 3] = [rows, ceil(cols / 128)] for cols = 300");
  EXPECT_EQ(message(x.view(), {out.view(), scale.view()}, true),
            "quantize_128x128: out.scale is [10, 3], expected [1, 3] = [ceil(rows / 128), ceil(cols / 128)] for x of "
            "[10, 300]");
  EXPECT_EQ(message(x.view(), {out.view(), {}}), "quantize_1x128: out.scale has 0 dimensions, expected 2");
  EXPECT_EQ(message(out.view(), {out.view(), scale.view()}), "quantize_1x128: x is e4m3, expected bf16, f16 or f32");
  TensorView wide = x.view();
  wide.strides[1] = 2;
  EXPECT_EQ(message(wide, {out.view(), scale.view()}), "quantize_1x128: x has stride 2 along cols, expected 1");
  TensorView overlapping = out.view();
  overlapping.strides[0] = 299;
  EXPECT_EQ(message(x.view(), {overlapping, scale.view()}),
            "quantize_1x128: out.data has rows 299 elements apart, expected at least 300");
  TensorView elsewhere = x.view();
  elsewhere.device = {DeviceType::cuda, 7};
  EXPECT_EQ(message(elsewhere, {out.view(), scale.view()}),
            fmt::format("quantize_1x128: x lies on cuda:7, expected {}, the context's device", name_of(device)));
}

TEST_P(LayoutTest, TransposesScales) {
  Random random(9);
  for (const int64_t mn : {1, 3, 4, 31, 33, 130, 1001}) {
    for (const int64_t blocks : {1, 2, 33, 56}) {
      for (const Placement& from : {Placement{}, Placement{.pitch = 61}, Placement{.pitch = mn + 1, .transposed = true},
                                    Placement{.spread = 2}}) {
        for (const int64_t more : {0, 4}) {
          const int64_t padded = tma_aligned_rows(mn);
          Matrix in(context().device(), DType::f32, mn, blocks, 0xff, from);
          Matrix out(context().device(), DType::f32, padded, blocks, 0x55,
                     {.pitch = padded + more, .transposed = true});
          fill_scales(in, 1, random);
          out.poison();
          TensorView view = out.view();
          view.shape[0] = mn;
          to_mn_major_aligned(context(), in.view(), view);
          if (on_gpu()) cuda::synchronize({});
          out.download();
          int64_t wrong = out.changed_guard_bytes();
          for (int64_t i = 0; i < padded; ++i)
            for (int64_t j = 0; j < blocks; ++j) wrong += out.get<float>(i, j) != (i < mn ? in.get<float>(i, j) : 0.0f);
          EXPECT_EQ(wrong, 0) << mn << " x " << blocks << ", pitch " << from.pitch << ", spread " << from.spread;
        }
      }
    }
  }
}

TEST_P(LayoutTest, TransposeRejectsAPitchThatTmaCannotRead) {
  Matrix in(context().device(), DType::f32, 6, 3, 0),
      out(context().device(), DType::f32, 8, 3, 0, {.transposed = true});
  TensorView view = out.view();
  view.shape[0] = 6;
  for (const int64_t pitch : {4, 6, 10}) {
    view.strides[1] = pitch;
    try {
      to_mn_major_aligned(context(), in.view(), view);
      ADD_FAILURE() << "accepted a pitch of " << pitch;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()),
                fmt::format("to_mn_major_aligned: out has strides [1, {}], expected [1, pitch] with a pitch of at "
                            "least 8 and a multiple of 4",
                            pitch));
    }
  }
}

}  // namespace deep_gemm::test
