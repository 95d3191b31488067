// The CPU product against plain loops that share nothing with it, and what only it promises.
#include <gtest/gtest.h>

#include "gemm_support.h"

namespace deep_gemm::test {
namespace {

class CpuGemmTest : public BackendTest {
 protected:
  CpuGemmTest() : BackendTest(DeviceType::cpu) {}
};

/// The value of one element by the definition: no blocks, no FP32.
double by_definition(Product& product, int64_t i, int64_t j) {
  const Case& c = product.description();
  double sum = c.accumulate == Accumulate::no ? 0 : product.c().number(i, j);
  for (int64_t p = 0; p < c.k; ++p) {
    double term =
        decode_e4m3(product.a().get<uint8_t>(i, p)) * static_cast<double>(decode_e4m3(product.b().get<uint8_t>(j, p)));
    if (c.scale_a != ScaleLayout::none) term *= product.scale_a().get<float>(i, p / 128);
    if (c.scale_b != ScaleLayout::none) term *= product.scale_b().get<float>(j / 128, p / 128);
    sum += term;
  }
  return sum;
}

TEST_F(CpuGemmTest, IsTheProductByDefinition) {
  uint64_t seed = 0;
  for (const int64_t m : {1, 7, 65, 129})
    for (const auto& [n, k] : {LayerShape{1, 1}, {50, 16}, {130, 130}, {257, 257}})
      for (const DType type : {DType::bf16, DType::f32})
        for (const Accumulate accumulate : {Accumulate::no, Accumulate::in_place}) {
          Product product(context(),
                          {.m = m, .n = n, .k = k, .d_type = type, .accumulate = accumulate, .seed = ++seed});
          product.run();
          EXPECT_EQ(product.d().changed_guard_bytes(), 0);
          int64_t wrong = 0;
          const double norm = 60 * 60 * 0x1p-14 * static_cast<double>(k);
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
              const double want = by_definition(product, i, j);
              wrong += !(std::abs(product.d().number(i, j) - want) <=
                         std::abs(want) * (type == DType::bf16 ? 0x1.01p-8 : 0x1p-22) + norm * 0x1p-18);
            }
          EXPECT_EQ(wrong, 0) << text(product.description());
        }
}

/// A row's bits depend on nothing but its inputs: not on how many rows, columns and threads there are.
TEST_F(CpuGemmTest, ARowsBitsDoNotDependOnTheShapeAroundIt) {
  Product whole(context(), {.m = 300, .n = 500, .k = 700, .d_type = DType::f32});
  whole.run();
  for (const int64_t m : {1, 2, 5, 64, 257}) {
    for (const int64_t n : {1, 100, 449}) {
      Matrix d(Device{}, DType::f32, m, n, 0xff);
      Fp8Tensor a = whole.tensor_a(), b = whole.tensor_b();
      a.data.shape[0] = a.scale.shape[0] = m;
      b.data.shape[0] = n, b.scale.shape[0] = (n + 127) / 128;
      fp8_gemm_nt(context(), a, b, d.view());
      int64_t different = 0;
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) different += d.bits(i, j) != whole.d().bits(i, j);
      EXPECT_EQ(different, 0) << m << " x " << n;
    }
  }
}

TEST_F(CpuGemmTest, RepeatsBitForBit) {
  Product product(context(), {.m = 200, .n = 300, .k = 500, .d_type = DType::f32});
  product.run();
  const std::vector<std::byte> first = product.d().bytes();
  for (int i = 0; i < 3; ++i) {
    product.run();
    EXPECT_EQ(product.d().bytes(), first);
  }
}

}  // namespace
}  // namespace deep_gemm::test
