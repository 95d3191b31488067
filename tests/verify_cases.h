// Who judges the judge: results known to be right pass, and every kind of error is found. Instantiated for each backend
// by the programs of tests/host and tests/device.
#pragma once

#include <functional>
#include <limits>

#include <deep_gemm/verify/random.cuh>

#include "gemm_support.h"

namespace deep_gemm::test {

class VerifyTest : public BackendTest, public testing::WithParamInterface<DeviceType> {
 protected:
  VerifyTest() : BackendTest(GetParam()) {}
};

/// A product with D computed element by element in double precision, to be spoilt.
class Known {
 public:
  Known(Context& context, const Case& description) : product(context, description), context_(context) { compute(); }

  /// Σ over k of one element and of its magnitudes, C included in the first; `skip`: a block of k to leave out.
  std::pair<double, double> exact(int64_t i, int64_t j, int64_t skip = -1) {
    const Case& c = product.description();
    double sum = c.accumulate == Accumulate::no ? 0 : product.c().number(i, j), magnitude = 0;
    for (int64_t block = 0; block * 128 < c.k; ++block) {
      if (block == skip) continue;
      double products = 0, absolute = 0;
      for (int64_t p = block * 128; p < std::min(c.k, block * 128 + 128); ++p) {
        const double x = decode_fp8(c.types.a, product.a().get<uint8_t>(i, p)),
                     y = decode_fp8(c.types.b, product.b().get<uint8_t>(j, p));
        products += x * y, absolute += std::abs(x * y);
      }
      const float scale =
          (c.scale_a == ScaleLayout::none ? 1 : product.scale_a().get<float>(i, block)) *
          (c.scale_b == ScaleLayout::none ? 1 : product.scale_b().get<float>(j / c.scale_rows_b, block));
      sum += scale * products, magnitude += std::abs(static_cast<double>(scale)) * absolute;
    }
    return {sum, magnitude};
  }
  /// D from `value(i, j)`.
  void fill(const std::function<double(int64_t, int64_t)>& value) {
    for (int64_t i = 0; i < product.d().rows(); ++i)
      for (int64_t j = 0; j < product.d().cols(); ++j) product.d().set_number(i, j, static_cast<float>(value(i, j)));
    product.d().upload();
  }
  void compute() {
    fill([&](int64_t i, int64_t j) { return exact(i, j).first; });
  }
  verify::Report judge() {
    std::optional<TensorView> c;
    if (product.description().accumulate != Accumulate::no) c = product.c().view();
    return verify::verify(context_, product.tensor_a(), product.tensor_b(), c, product.d().view(), {},
                          product.description().recipe());
  }

  Product product;

 private:
  Context& context_;
};

TEST_P(VerifyTest, PassesWhatIsRight) {
  for (const DType type : {DType::bf16, DType::f32})
    for (const Accumulate accumulate : {Accumulate::no, Accumulate::out_of_place})
      for (const ScaleLayout scales : kScaleLayouts) {
        Known known(context(), {.m = 70,
                                .n = 135,
                                .k = 290,
                                .d_type = type,
                                .scale_a = scales,
                                .scale_b = scales,
                                .accumulate = accumulate,
                                .pad_a = 16,
                                .d = {.pitch = 139}});
        const verify::Report report = known.judge();
        EXPECT_EQ(report.elements, 70 * 135);
        EXPECT_EQ(report.mismatches, 0);
        EXPECT_LE(report.worst_ratio, 1);
        EXPECT_LT(report.global_score, 1e-5);
        EXPECT_TRUE(report.first.empty());
      }
}

TEST_P(VerifyTest, PassesWhatIsRightInEveryForm) {
  for (const OperandTypes& types : kOperandTypes)
    for (const int scale_rows_b : {128, 1})
      for (const int64_t n : {int64_t{1}, int64_t{135}}) {
        Known known(context(), {.m = 70, .n = n, .k = 290, .types = types, .scale_rows_b = scale_rows_b});
        const verify::Report report = known.judge();
        EXPECT_EQ(report.elements, 70 * n);
        EXPECT_EQ(report.mismatches, 0) << text(known.product.description());
        EXPECT_LT(report.global_score, 1e-5);
      }
}

/// A type or a recipe taken for the other is no rounding error.
TEST_P(VerifyTest, FindsTheWrongForm) {
  for (const OperandTypes& types : kOperandTypes) {
    Known known(context(), {.m = 64, .n = 300, .k = 300, .types = types, .scale_rows_b = 1});
    for (const bool in_a : {true, false}) {
      Fp8Tensor a = known.product.tensor_a(), b = known.product.tensor_b();
      DType& type = (in_a ? a : b).data.dtype;
      type = type == DType::e4m3 ? DType::e5m2 : DType::e4m3;
      const verify::Report report =
          verify::verify(context(), a, b, std::nullopt, known.product.d().view(), {}, Recipe{1, 1, 128});
      EXPECT_GT(report.mismatches, 64 * 300 * 9 / 10) << (in_a ? "A" : "B");
    }
    // The first scale of each 128 rows for all of them.
    Fp8Tensor b = known.product.tensor_b();
    b.scale.shape[0] = 3, b.scale.strides[0] *= 128;
    const verify::Report report =
        verify::verify(context(), known.product.tensor_a(), b, std::nullopt, known.product.d().view());
    EXPECT_GT(report.mismatches, 64 * 297 * 9 / 10);
    EXPECT_EQ(known.judge().mismatches, 0);
  }
}

TEST_P(VerifyTest, FindsSwappedScalesOfRowsOfB) {
  Known known(context(), {.m = 64, .n = 200, .k = 300, .scale_rows_b = 1});
  const auto first = known.product.scale_b().get<float>(130, 1), second = known.product.scale_b().get<float>(131, 1);
  known.product.scale_b().set(130, 1, second), known.product.scale_b().set(131, 1, first);
  known.product.scale_b().upload();
  const verify::Report report = known.judge();
  EXPECT_GT(report.mismatches, 64);
  for (const verify::Mismatch& x : report.first) EXPECT_TRUE(x.col == 130 || x.col == 131) << x.col;
}

TEST_P(VerifyTest, FindsAZeroedTile) {
  Known known(context(), {.m = 300, .n = 300, .k = 256});
  for (int64_t i = 128; i < 256; ++i)
    for (int64_t j = 128; j < 256; ++j) known.product.d().set_number(i, j, 0);
  known.product.d().upload();
  const verify::Report report = known.judge();
  EXPECT_GT(report.mismatches, 128 * 128 * 9 / 10);
  EXPECT_LE(report.mismatches, 128 * 128);
  ASSERT_EQ(report.first.size(), 16u);
  for (const verify::Mismatch& x : report.first) {
    EXPECT_EQ(x.row, 128);
    EXPECT_TRUE(x.col >= 128 && x.col < 256) << x.col;
  }
}

TEST_P(VerifyTest, FindsOneFlippedBit) {
  for (const DType type : {DType::bf16, DType::f32}) {
    Known known(context(), {.m = 130, .n = 140, .k = 300, .d_type = type});
    const int bits = type == DType::bf16 ? 16 : 32;
    Matrix& d = known.product.d();
    const uint32_t right = d.bits(129, 17);
    // The sign and all bits of the exponent.
    for (int bit = bits - 9; bit < bits; ++bit) {
      const uint32_t flipped = right ^ 1u << bit;
      type == DType::bf16 ? d.set(129, 17, static_cast<uint16_t>(flipped)) : d.set(129, 17, flipped);
      d.upload();
      const verify::Report report = known.judge();
      EXPECT_EQ(report.mismatches, 1) << "bit " << bit;
      ASSERT_EQ(report.first.size(), 1u);
      EXPECT_EQ(report.first[0].row, 129);
      EXPECT_EQ(report.first[0].col, 17);
      EXPECT_EQ(report.first[0].got, d.number(129, 17));
      EXPECT_DOUBLE_EQ(report.first[0].expected, known.exact(129, 17).first);
      EXPECT_GT(report.worst_ratio, 1);
    }
  }
}

TEST_P(VerifyTest, FindsASkippedBlockOfK) {
  Known known(context(), {.m = 64, .n = 64, .k = 1024});
  known.fill([&](int64_t i, int64_t j) { return known.exact(i, j, 3).first; });
  EXPECT_GT(known.judge().mismatches, 64 * 64 * 3 / 4);
}

TEST_P(VerifyTest, FindsSwappedScales) {
  Known known(context(), {.m = 64, .n = 64, .k = 300});
  const auto first = known.product.scale_a().get<float>(5, 0), second = known.product.scale_a().get<float>(5, 1);
  known.product.scale_a().set(5, 0, second), known.product.scale_a().set(5, 1, first);
  known.product.scale_a().upload();
  const verify::Report report = known.judge();
  EXPECT_GT(report.mismatches, 32);
  EXPECT_LE(report.mismatches, 64);
  for (const verify::Mismatch& x : report.first) EXPECT_EQ(x.row, 5);
}

TEST_P(VerifyTest, FindsSwappedScalesOfB) {
  Known known(context(), {.m = 64, .n = 200, .k = 300});
  for (int64_t j = 0; j < 3; ++j) {
    const auto first = known.product.scale_b().get<float>(0, j), second = known.product.scale_b().get<float>(1, j);
    known.product.scale_b().set(0, j, second), known.product.scale_b().set(1, j, first);
  }
  known.product.scale_b().upload();
  EXPECT_GT(known.judge().mismatches, 64 * 200 / 2);
}

TEST_P(VerifyTest, FindsAMissingTail) {
  // Beyond the last whole tile of 128, or of 16, or one row, one column: zeros, or what lay there before.
  for (const float left : {0.0f, std::numeric_limits<float>::quiet_NaN()})
    for (const auto& [row, col] :
         {std::pair<int64_t, int64_t>{128, 0}, {0, 128}, {160, 0}, {0, 144}, {170, 0}, {0, 148}}) {
      Known known(context(), {.m = 171, .n = 149, .k = 130});
      for (int64_t i = row; i < 171; ++i)
        for (int64_t j = col; j < 149; ++j) known.product.d().set_number(i, j, left);
      known.product.d().upload();
      const verify::Report report = known.judge();
      EXPECT_GT(report.mismatches, (171 - row) * (149 - col) * 9 / 10);
      EXPECT_LE(report.mismatches, (171 - row) * (149 - col));
      ASSERT_FALSE(report.first.empty());
      EXPECT_GE(report.first[0].row, row);
      EXPECT_GE(report.first[0].col, col);
    }
  Known known(context(), {.m = 64, .n = 64, .k = 300});  // the last 44 of k
  known.fill([&](int64_t i, int64_t j) { return known.exact(i, j, 2).first; });
  EXPECT_GT(known.judge().mismatches, 64 * 64 / 2);
}

TEST_P(VerifyTest, TheBoundIsWhereItIsSaidToBe) {
  Known known(context(), {.m = 20, .n = 30, .k = 500, .d_type = DType::f32, .accumulate = Accumulate::out_of_place});
  for (const double sign : {-1.0, 1.0}) {
    const auto off_by = [&](double factor) {
      known.fill([&](int64_t i, int64_t j) {
        const auto [sum, magnitude] = known.exact(i, j);
        return sum + sign * factor * magnitude * 0x1p-10;
      });
      return known.judge();
    };
    const verify::Report inside = off_by(0.99), outside = off_by(1.02);
    EXPECT_EQ(inside.mismatches, 0);
    EXPECT_NEAR(inside.worst_ratio, 0.99, 0.01);
    EXPECT_EQ(outside.mismatches, 20 * 30);
    ASSERT_EQ(outside.first.size(), 16u);
    for (std::size_t i = 0; i < 16; ++i) {
      EXPECT_EQ(outside.first[i].row, 0);
      EXPECT_EQ(outside.first[i].col, static_cast<int64_t>(i));
      EXPECT_NEAR(std::abs(outside.first[i].got - outside.first[i].expected) / outside.first[i].bound, 1.02, 0.02);
    }
  }
}

TEST_P(VerifyTest, TheScoreIsTheFieldsMeasure) {
  Known known(context(), {.m = 40, .n = 50, .k = 128, .d_type = DType::f32});
  double xy = 0, squares = 0;
  known.fill([&](int64_t i, int64_t j) { return known.exact(i, j).first * (j % 2 ? 1.5 : 1); });
  for (int64_t i = 0; i < 40; ++i)
    for (int64_t j = 0; j < 50; ++j) {
      const double x = known.product.d().number(i, j), y = known.exact(i, j).first;
      xy += x * y, squares += x * x + y * y;
    }
  EXPECT_NEAR(known.judge().global_score, 1 - 2 * xy / squares, 1e-6);
}

TEST_P(VerifyTest, NaNAndInfinityBelongWhereTheyBelong) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();
  for (const DType type : {DType::bf16, DType::f32}) {
    Known known(context(), {.m = 70, .n = 80, .k = 200, .d_type = type});
    known.product.a().set<uint8_t>(3, 150, 0x7f), known.product.a().upload();
    known.product.scale_a().set(4, 0, kInf), known.product.scale_a().upload();
    known.compute();
    EXPECT_TRUE(std::isnan(known.product.d().number(3, 0)));
    EXPECT_TRUE(std::isinf(known.product.d().number(4, 0)));
    EXPECT_EQ(known.judge().mismatches, 0);
    const auto spoil = [&](int64_t i, int64_t j, float value) {
      known.compute();
      known.product.d().set_number(i, j, value), known.product.d().upload();
      const verify::Report report = known.judge();
      EXPECT_EQ(report.mismatches, 1) << value << " at " << i << ", " << j;
      EXPECT_EQ(report.worst_ratio, HUGE_VAL);
    };
    spoil(3, 7, 1.0f);  // lost NaN
    spoil(3, 7, kInf);
    spoil(4, 7, -known.product.d().number(4, 7));  // wrong sign
    spoil(4, 7, 3e38f);
    spoil(4, 7, kNaN);
    spoil(5, 7, kNaN);  // leaked
    spoil(5, 7, -kInf);
  }
}

TEST_P(VerifyTest, InfinitiesOfE5m2BelongWhereTheyBelong) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  Known known(context(), {.m = 70, .n = 80, .k = 200, .types = {DType::e5m2, DType::e4m3}, .scale_rows_b = 1});
  known.product.a().set<uint8_t>(3, 150, 0x7c), known.product.a().upload();
  known.product.b().set<uint8_t>(11, 150, 0x00), known.product.b().upload();  // zero times infinity
  known.compute();
  EXPECT_TRUE(std::isnan(known.product.d().number(3, 11)));
  EXPECT_EQ(known.judge().mismatches, 0);
  for (const auto& [row, col] : {std::pair<int64_t, int64_t>{3, 11}, {3, 12}, {4, 12}}) {
    known.compute();
    const float right = known.product.d().number(row, col);
    known.product.d().set_number(row, col, std::isinf(right) ? -right : kInf), known.product.d().upload();
    EXPECT_EQ(known.judge().mismatches, 1) << row << ", " << col;
  }
}

TEST_P(VerifyTest, OverflowMayBeInfinity) {
  for (const DType type : {DType::bf16, DType::f32}) {
    Known known(context(), {.m = 8, .n = 8, .k = 128, .d_type = type, .magnitude_a = 0x1p70f, .magnitude_b = 0x1p50f});
    known.product.scale_a().set(2, 0, 0x1p40f), known.product.scale_a().upload();
    known.compute();
    EXPECT_EQ(known.judge().mismatches, 0);
    known.fill([&](int64_t i, int64_t j) {
      return std::clamp(known.exact(i, j).first, -3.3895313892515355e38, 3.3895313892515355e38);
    });
    EXPECT_GT(known.judge().mismatches, 0) << "saturation instead of overflow";
    known.compute();
    known.product.d().set_number(2, 2, std::numeric_limits<float>::infinity()), known.product.d().upload();
    EXPECT_EQ(known.judge().mismatches, 1) << "an infinity where the row is far from overflow";
  }
}

TEST_P(VerifyTest, EmptyProducts) {
  for (const std::array<int64_t, 3>& mnk : {std::array<int64_t, 3>{0, 5, 130}, {5, 0, 130}, {5, 6, 0}}) {
    Known known(context(), {.m = mnk[0], .n = mnk[1], .k = mnk[2]});
    const verify::Report report = known.judge();
    EXPECT_EQ(report.elements, mnk[0] * mnk[1]);
    EXPECT_EQ(report.mismatches, 0);
    EXPECT_EQ(report.global_score, 0);
  }
}

TEST_P(VerifyTest, RandomE5m2IsWhatItSays) {
  Matrix codes(context().device(), DType::e5m2, 400, 1000, 0x11, {.pitch = 1008});
  verify::fill_random(context(), codes.view(), {.seed = 7});
  if (on_gpu()) cuda::synchronize({});
  codes.download();
  EXPECT_EQ(codes.changed_guard_bytes(), 0);
  double sum = 0, squares = 0;
  int64_t extremes = 0, denormals = 0, zeros = 0, differences = 0, special = 0;
  for (int64_t i = 0; i < 400; ++i) {
    for (int64_t j = 0; j < 1000; ++j) {
      const auto code = codes.get<uint8_t>(i, j);
      differences += code != random_e5m2(mix_bits(14), static_cast<uint64_t>(i * 1000 + j));
      special += (code & 0x7f) >= 0x7c;
      extremes += (code & 0x7f) == 0x7b;
      denormals += (code & 0x7f) > 0 && (code & 0x7f) < 4;
      zeros += (code & 0x7f) == 0;
      const double value = decode_e5m2(code) / 128;
      sum += value, squares += value * value;
    }
  }
  EXPECT_EQ(differences, 0);
  EXPECT_EQ(special, 0);
  EXPECT_NEAR(static_cast<double>(extremes) / 4e5, 0.012, 0.006);
  EXPECT_GT(denormals, 50);
  EXPECT_GT(zeros, 20);
  EXPECT_NEAR(sum / 4e5, 0, 1);
  EXPECT_NEAR(std::sqrt(squares / 4e5), 160, 3);
}

TEST_P(VerifyTest, RandomOperandsAreWhatTheySay) {
  Matrix codes(context().device(), DType::e4m3, 400, 1000, 0x11),
      again(context().device(), DType::e4m3, 400, 1000, 0x22, {.pitch = 1008});
  Matrix scales(context().device(), DType::f32, 400, 8, 0x11, {.transposed = true}),
      other(context().device(), DType::e4m3, 400, 1000, 0);
  verify::fill_random(context(), Fp8Tensor{codes.view(), scales.view()}, {.seed = 7, .scale_spread = 6});
  verify::fill_random(context(), again.view(), {.seed = 7});
  verify::fill_random(context(), other.view(), {.seed = 8});
  Matrix normal(context().device(), DType::f32, 300, 300, 0x11),
      rounded(context().device(), DType::bf16, 300, 300, 0x11);
  verify::fill_random(context(), normal.view(), {.seed = 7});
  verify::fill_random(context(), rounded.view(), {.seed = 7});
  if (on_gpu()) cuda::synchronize({});
  for (Matrix* x : {&codes, &again, &scales, &other, &normal, &rounded}) {
    x->download();
    EXPECT_EQ(x->changed_guard_bytes(), 0);
  }
  double sum = 0, squares = 0;
  int64_t same = 0, extremes = 0, denormals = 0, differences = 0;
  for (int64_t i = 0; i < 400; ++i) {
    for (int64_t j = 0; j < 1000; ++j) {
      const auto code = codes.get<uint8_t>(i, j);
      // The same function of seed and index everywhere: this is what makes both backends' operands the same.
      differences += code != random_e4m3(mix_bits(14), static_cast<uint64_t>(i * 1000 + j));
      differences += code != again.get<uint8_t>(i, j);
      same += code == other.get<uint8_t>(i, j);
      extremes += (code & 0x7f) == 0x7e;
      denormals += (code & 0x7f) < 8;
      const double value = decode_e4m3(code);
      sum += value, squares += value * value;
    }
  }
  EXPECT_EQ(differences, 0);
  EXPECT_LT(same, 400'000 / 10);
  EXPECT_NEAR(static_cast<double>(extremes) / 4e5, 0.007, 0.002);
  EXPECT_GT(denormals, 50);
  EXPECT_NEAR(sum / 4e5, 0, 1);
  EXPECT_NEAR(std::sqrt(squares / 4e5), 160, 3);
  double logs = 0;
  for (int64_t i = 0; i < 400; ++i) {
    for (int64_t j = 0; j < 8; ++j) {
      const double log = std::log2(scales.get<float>(i, j));
      EXPECT_TRUE(log >= -10 && log <= -4) << log;
      logs += log;
    }
  }
  EXPECT_NEAR(logs / 3200, -7, 0.1);
  double normal_squares = 0;
  for (int64_t i = 0; i < 300; ++i) {
    for (int64_t j = 0; j < 300; ++j) {
      normal_squares += std::pow(normal.get<float>(i, j), 2);
      EXPECT_EQ(encode_bf16(normal.get<float>(i, j)), rounded.get<uint16_t>(i, j));
    }
  }
  EXPECT_NEAR(normal_squares / 9e4, 1, 0.02);
}

}  // namespace deep_gemm::test
