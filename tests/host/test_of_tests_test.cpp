// What the suites of tests/*_cases.h would miss, they could not report: each way in which a kernel goes wrong is planted
// into the result of a good call, and the very check that those suites use must fail.
#include <gtest/gtest-spi.h>

#include "gemm_support.h"

namespace deep_gemm::test {
namespace {

struct Plant {
  const char* name;
  void (*spoil)(Product&);
};

void zero(Product& p, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  for (int64_t i = row; i < row + rows; ++i)
    for (int64_t j = col; j < col + cols; ++j) p.d().set_number(i, j, 0);
}

/// Runs the call with elements of type T of an operand changed, then puts the right ones back for the judge.
template <class T, class Change>
void run_changed(Product& p, Matrix& operand, Change&& change) {
  std::vector<T> right;
  for (int64_t i = 0; i < operand.rows(); ++i)
    for (int64_t j = 0; j < operand.cols(); ++j) right.push_back(operand.get<T>(i, j));
  change(operand);
  operand.upload();
  p.run();
  auto next = right.begin();
  for (int64_t i = 0; i < operand.rows(); ++i)
    for (int64_t j = 0; j < operand.cols(); ++j) operand.set(i, j, *next++);
  operand.upload();
}

void flip(Product& p, int64_t i, int64_t j, int bits_from_top) {
  const bool narrow = p.description().d_type == DType::bf16;
  const uint32_t flipped = p.d().bits(i, j) ^ 1u << ((narrow ? 16 : 32) - bits_from_top);
  narrow ? p.d().set(i, j, static_cast<uint16_t>(flipped)) : p.d().set(i, j, flipped);
}

// 300 × 290 × 400: two whole tiles of 128 and a tail each way, four blocks of k with the last one partial.
constexpr int64_t kM = 300, kN = 290, kK = 400;
const Plant kPlants[] = {
    {"a zeroed tile of 128 x 128", [](Product& p) { zero(p, 128, 128, 128, 128); }},
    {"a zeroed tile of 64 x 16", [](Product& p) { zero(p, 64, 64, 16, 16); }},
    {"one zeroed element", [](Product& p) { zero(p, 17, 1, 31, 1); }},
    {"a flipped sign", [](Product& p) { flip(p, 299, 289, 1); }},
    {"a flipped high bit of the exponent", [](Product& p) { flip(p, 0, 0, 3); }},
    {"a flipped low bit of the exponent", [](Product& p) { flip(p, 150, 200, 9); }},
    {"a missing tail of m", [](Product& p) { zero(p, 256, kM - 256, 0, kN); }},
    {"a missing last row", [](Product& p) { zero(p, kM - 1, 1, 0, kN); }},
    {"a missing tail of n", [](Product& p) { zero(p, 0, kM, 256, kN - 256); }},
    {"a missing last column", [](Product& p) { zero(p, 0, kM, kN - 1, 1); }},
    {"a tail that was never written",
     [](Product& p) {
       for (int64_t j = 256; j < kN; ++j) p.d().set_number(kM - 1, j, std::numeric_limits<float>::quiet_NaN());
     }},
    {"two tiles exchanged",
     [](Product& p) {
       for (int64_t i = 0; i < 128; ++i)
         for (int64_t j = 0; j < 128; ++j) {
           const float x = p.d().number(i, j), y = p.d().number(i, j + 128);
           p.d().set_number(i, j, y), p.d().set_number(i, j + 128, x);
         }
     }},
    {"a row written one row too low",
     [](Product& p) {
       for (int64_t j = 0; j < kN; ++j) p.d().set_number(101, j, p.d().number(100, j));
     }},
    {"a skipped block of k",
     [](Product& p) {
       run_changed<uint8_t>(p, p.a(), [](Matrix& a) {
         for (int64_t i = 0; i < kM; ++i)
           for (int64_t j = 128; j < 256; ++j) a.set<uint8_t>(i, j, 0);
       });
     }},
    {"a skipped tail of k",
     [](Product& p) {
       run_changed<uint8_t>(p, p.b(), [](Matrix& b) {
         for (int64_t i = 0; i < kN; ++i)
           for (int64_t j = 384; j < kK; ++j) b.set<uint8_t>(i, j, 0);
       });
     }},
    {"swapped scales of A",
     [](Product& p) {
       run_changed<float>(p, p.scale_a(), [](Matrix& s) {
         for (int64_t i = 0; i < kM; ++i) {
           const auto x = s.get<float>(i, 0), y = s.get<float>(i, 1);
           s.set(i, 0, y), s.set(i, 1, x);
         }
       });
     }},
    {"swapped scales of two of B's rows, or blocks of them",
     [](Product& p) {
       run_changed<float>(p, p.scale_b(), [](Matrix& s) {
         for (int64_t j = 0; j < 4; ++j) {
           const auto x = s.get<float>(0, j), y = s.get<float>(1, j);
           s.set(0, j, y), s.set(1, j, x);
         }
       });
     }},
    {"scales of a row below",
     [](Product& p) {
       run_changed<float>(p, p.scale_a(), [](Matrix& s) {
         for (int64_t i = 0; i + 1 < kM; ++i)
           for (int64_t j = 0; j < 4; ++j) s.set(i, j, s.get<float>(i + 1, j));
       });
     }},
};

struct Form {
  const char* name;
  DType d_type;
  OperandTypes types{};
  int scale_rows_b = 128;
};

class TestOfTests : public testing::TestWithParam<Form> {
 protected:
  Context context_;
  Case case_{.m = kM,
             .n = kN,
             .k = kK,
             .d_type = GetParam().d_type,
             .types = GetParam().types,
             .scale_rows_b = GetParam().scale_rows_b,
             .d = {.pitch = kN + 3}};
};

TEST_P(TestOfTests, EveryPlantedErrorFails) {
  Product product(context_, case_);
  product.run();
  product.expect_right();
  for (const Plant& plant : kPlants) {
    SCOPED_TRACE(plant.name);
    product.run();
    plant.spoil(product);
    product.d().upload();
    // EXPECT_NONFATAL_FAILURE takes no locals, and wants exactly one failure.
    testing::TestPartResultArray failures;
    {
      testing::ScopedFakeTestPartResultReporter catcher(
          testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
      product.expect_right();
    }
    EXPECT_EQ(failures.size(), 1) << "nobody noticed " << plant.name;
  }
  product.run();
  product.expect_right();
}

TEST_P(TestOfTests, AByteWrittenBesideDFails) {
  Product product(context_, case_);
  product.run();
  const TensorView d = product.d().view();
  auto* beside = static_cast<std::byte*>(d.data) + kN * size_of(d.dtype);
  *beside ^= std::byte{1};
  product.d().download();
  EXPECT_EQ(product.d().changed_guard_bytes(), 1);
  *beside ^= std::byte{1};
  product.d().download();
  EXPECT_EQ(product.d().changed_guard_bytes(), 0);
}

INSTANTIATE_TEST_SUITE_P(Cpu, TestOfTests,
                         testing::Values(Form{"bf16", DType::bf16}, Form{"f32", DType::f32},
                                         Form{"e5m2_e4m3", DType::bf16, {DType::e5m2, DType::e4m3}},
                                         Form{"e4m3_e5m2_1d1d", DType::f32, {DType::e4m3, DType::e5m2}, 1},
                                         Form{"e5m2_1d1d", DType::bf16, {DType::e5m2, DType::e5m2}, 1}),
                         [](const auto& form) { return form.param.name; });

}  // namespace
}  // namespace deep_gemm::test
