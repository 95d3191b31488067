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

/// The code of `type` whose value is nearest to `x`, the even one of two; found by trying all.
inline uint8_t nearest_fp8(DType type, float x) {
  const auto values_of = [](int codes, int mantissa_bits, int bias) {
    std::vector<double> finite;
    for (int code = 0; code < codes; ++code) {
      const int exponent = code >> mantissa_bits, mantissa = code & ((1 << mantissa_bits) - 1);
      finite.push_back(
          std::ldexp(mantissa + (exponent ? 1 << mantissa_bits : 0), std::max(exponent, 1) - bias - mantissa_bits));
    }
    return finite;
  };
  static const std::vector<double> kE4m3 = values_of(0x7f, 3, 7), kE5m2 = values_of(0x7c, 2, 15);
  const std::vector<double>& values = type == DType::e4m3 ? kE4m3 : kE5m2;
  if (std::isnan(x)) return 0x7f;
  const double target = std::min(std::abs(static_cast<double>(x)), values.back());
  std::size_t best = 0;
  for (std::size_t code = 1; code < values.size(); ++code) {
    const double gain = std::abs(values[best] - target) - std::abs(values[code] - target);
    if (gain > 0 || (gain == 0 && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

/// Which call: how many rows and columns share a scale.
struct Shares {
  int64_t rows, cols;
};
inline constexpr Shares kShares[] = {{1, 128}, {128, 128}, {128, 1}};

struct QuantizeCase {
  int64_t rows = 0, cols = 0;
  Shares shares{1, 128};
  DType dtype = DType::bf16, out_dtype = DType::e4m3;
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

inline auto quantize_call(const Shares& shares) {
  return shares.cols == 1 ? quantize_128x1 : shares.rows == 1 ? quantize_1x128 : quantize_128x128;
}

inline void check_quantize(Context& context, const QuantizeCase& q, uint64_t seed) {
  SCOPED_TRACE(fmt::format("{} x {} {} to {}, {} x {} a scale, pitches {} {}, power of two: {}", q.rows, q.cols,
                           name_of(q.dtype), name_of(q.out_dtype), q.shares.rows, q.shares.cols, q.x.pitch, q.out.pitch,
                           q.power_of_two));
  Random random(seed);
  const int64_t scale_rows = (q.rows + q.shares.rows - 1) / q.shares.rows;
  const int64_t scale_cols = (q.cols + q.shares.cols - 1) / q.shares.cols;
  Matrix x(context.device(), q.dtype, q.rows, q.cols, 0xff, q.x);
  Matrix out(context.device(), q.out_dtype, q.rows, q.cols, 0x55, q.out);
  Matrix scale(context.device(), DType::f32, scale_rows, scale_cols, 0x55, q.scale);
  fill_wildly(x, random);
  out.poison(), scale.poison();
  quantize_call(q.shares)(context, x.view(), {out.view(), scale.view()}, {.power_of_two_scales = q.power_of_two});
  if (context.device().type == DeviceType::cuda) cuda::synchronize({});
  out.download(), scale.download();
  EXPECT_EQ(out.changed_guard_bytes(), 0);
  EXPECT_EQ(scale.changed_guard_bytes(), 0);

  int64_t wrong = 0;
  for (int64_t group = 0; group < scale_rows; ++group) {
    for (int64_t block = 0; block < scale_cols; ++block) {
      const int64_t end_row = std::min(q.rows, (group + 1) * q.shares.rows);
      const int64_t end_col = std::min(q.cols, (block + 1) * q.shares.cols);
      float largest = 1e-4f;
      for (int64_t i = group * q.shares.rows; i < end_row; ++i)
        for (int64_t j = block * q.shares.cols; j < end_col; ++j)
          largest = std::fmax(largest, std::abs(element(x, i, j)));
      float expected = largest / (q.out_dtype == DType::e4m3 ? 448.0f : 57344.0f);
      if (q.power_of_two && std::isfinite(expected)) {
        int exponent = 0;
        const float fraction = std::frexp(expected, &exponent);
        expected = std::ldexp(1.0f, fraction == 0.5f ? exponent - 1 : exponent);
      }
      const auto got = scale.get<float>(group, block);
      wrong += got != expected;
      for (int64_t i = group * q.shares.rows; i < end_row; ++i)
        for (int64_t j = block * q.shares.cols; j < end_col; ++j)
          wrong += out.get<uint8_t>(i, j) != nearest_fp8(q.out_dtype, element(x, i, j) / expected);
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
      for (const DType out : {DType::e4m3, DType::e5m2})
        for (const Shares& shares : kShares)
          for (const bool power_of_two : {false, true})
            check_quantize(context(), {rows, cols, shares, dtype, out, power_of_two}, ++seed);
}

TEST_P(LayoutTest, QuantizesAnyStrides) {
  uint64_t seed = 100;
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32})
    for (const Shares& shares : kShares) {
      const int64_t scale_rows = shares.rows == 1 ? 131 : 2, scale_cols = shares.cols == 1 ? 300 : 3;
      const QuantizeCase base{131, 300, shares, dtype, seed % 2 ? DType::e4m3 : DType::e5m2};
      const auto check = [&](const Placement& x, const Placement& out, const Placement& scale) {
        QuantizeCase q = base;
        q.x = x, q.out = out, q.scale = scale;
        check_quantize(context(), q, ++seed);
      };
      // Rows that vector loads cannot take, outputs that vector stores cannot, and scales in every layout.
      check({.pitch = 301}, {.pitch = 304}, {});
      check({.pitch = 304}, {.pitch = 307}, {});
      check({.offset = 1}, {.offset = 3}, {});
      check({}, {}, {.pitch = scale_cols + 4});
      check({}, {}, {.pitch = scale_rows + 1, .transposed = true});
      check({}, {}, {.spread = 3});
    }
}

/// What 128×1 scales are for: quantised along its rows, a matrix is, transposed, one with 1×128 scales.
TEST_P(LayoutTest, ScalesOfColumnsAreThoseOfTheTransposedRows) {
  for (const DType out_dtype : {DType::e4m3, DType::e5m2}) {
    const int64_t rows = 300, cols = 200;
    Random random(3);
    Matrix x(context().device(), DType::f32, rows, cols, 0xff),
        transposed(context().device(), DType::f32, cols, rows, 0);
    fill_wildly(x, random);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) transposed.set(j, i, x.get<float>(i, j));
    transposed.upload();
    Matrix out(context().device(), out_dtype, rows, cols, 0), out_t(context().device(), out_dtype, cols, rows, 0);
    Matrix scale(context().device(), DType::f32, 3, cols, 0), scale_t(context().device(), DType::f32, cols, 3, 0);
    quantize_128x1(context(), x.view(), {out.view(), scale.view()});
    quantize_1x128(context(), transposed.view(), {out_t.view(), scale_t.view()});
    if (on_gpu()) cuda::synchronize({});
    for (Matrix* m : {&out, &out_t, &scale, &scale_t}) m->download();
    int64_t different = 0;
    for (int64_t j = 0; j < cols; ++j) {
      for (int64_t i = 0; i < rows; ++i) different += out.get<uint8_t>(i, j) != out_t.get<uint8_t>(j, i);
      for (int64_t block = 0; block < 3; ++block)
        different += scale.get<uint32_t>(block, j) != scale_t.get<uint32_t>(j, block);
    }
    EXPECT_EQ(different, 0);
  }
}

/// Every float of a block's range by its upper 16 bits, the ties between codes and their neighbours among them: scale 1.
TEST_P(LayoutTest, RoundsEveryQuotientAsTheDefinitionDoes) {
  for (const DType out_dtype : {DType::e4m3, DType::e5m2}) {
    const float largest = out_dtype == DType::e4m3 ? 448 : 57344;
    std::vector<float> values;
    for (uint32_t upper = 0; upper < 65536; ++upper)
      for (const uint32_t lower : {0u, 1u, 0x8000u, 0xffffu}) {
        const float value = float_from_bits(upper << 16 | lower);
        if (!(std::abs(value) > largest)) values.push_back(value);  // NaN too
      }
    const int64_t rows = (std::ssize(values) + 126) / 127;
    Matrix x(context().device(), DType::f32, rows, 128, 0), out(context().device(), out_dtype, rows, 128, 0);
    Matrix scale(context().device(), DType::f32, rows, 1, 0);
    for (int64_t i = 0; i < rows; ++i) {
      x.set(i, 127, largest);
      for (int64_t j = 0; j < 127 && i * 127 + j < std::ssize(values); ++j)
        x.set(i, j, values[static_cast<std::size_t>(i * 127 + j)]);
    }
    x.upload();
    quantize_1x128(context(), x.view(), {out.view(), scale.view()});
    if (on_gpu()) cuda::synchronize({});
    out.download(), scale.download();
    int64_t wrong = 0;
    for (int64_t i = 0; i < rows; ++i) {
      wrong += scale.get<float>(i, 0) != 1;
      for (int64_t j = 0; j < 128; ++j) {
        const auto code = out.get<uint8_t>(i, j);
        wrong += code != encode_fp8(out_dtype, x.get<float>(i, j));
        wrong += j % 16 == 0 && code != nearest_fp8(out_dtype, x.get<float>(i, j));
      }
    }
    EXPECT_EQ(wrong, 0) << deep_gemm::name_of(out_dtype);
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
  const auto message = [&](const TensorView& from, const Fp8Tensor& to,
                           const Shares& shares = {1, 128}) -> std::string {
    try {
      quantize_call(shares)(context(), from, to, {});
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
            "quantize_1x128: out.scale is [10, 2], expected [10, 3] = [rows, ceil(cols / 128)] for x of [10, 300]");
  EXPECT_EQ(message(x.view(), {out.view(), scale.view()}, {128, 128}),
            "quantize_128x128: out.scale is [10, 3], expected [1, 3] = [ceil(rows / 128), ceil(cols / 128)] for x of "
            "[10, 300]");
  EXPECT_EQ(message(x.view(), {out.view(), scale.view()}, {128, 1}),
            "quantize_128x1: out.scale is [10, 3], expected [1, 300] = [ceil(rows / 128), cols] for x of [10, 300]");
  EXPECT_EQ(message(x.view(), {x.view(), scale.view()}), "quantize_1x128: out.data is bf16, expected e4m3 or e5m2");
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

TEST_P(LayoutTest, TransposeRejectsGroupsThatOverlap) {
  Matrix in(context().device(), DType::f32, 12, 3, 0), out(context().device(), DType::f32, 48, 1, 0x55);
  TensorView from = in.view(), to = out.view();
  from.rank = to.rank = 3;
  from.shape = to.shape = {2, 6, 3};
  from.strides = {18, 3, 1};
  for (const int64_t apart : {0, 4, 16, -24, 24}) {
    to.strides = {apart, 1, 8};
    if (apart == 24) {
      to_mn_major_aligned(context(), from, to);
    } else {
      try {
        to_mn_major_aligned(context(), from, to);
        ADD_FAILURE() << "accepted groups " << apart << " apart";
      } catch (const Error& error) {
        EXPECT_EQ(std::string(error.what()), fmt::format("to_mn_major_aligned: out has groups {} elements apart, "
                                                         "expected them side by side: each has 3 columns 8 apart",
                                                         apart));
      }
    }
  }
  to.strides = {8, 1, 16};  // column by column, each group's in turn
  to_mn_major_aligned(context(), from, to);
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
