// The grouped products' promises on the CPU.
#include "grouped_cases.h"

namespace deep_gemm::test {
INSTANTIATE_TEST_SUITE_P(Cpu, GroupedTest, testing::Values(DeviceType::cpu), [](const auto&) { return "cpu"; });
INSTANTIATE_TEST_SUITE_P(Cpu, KGroupedTest, testing::Values(DeviceType::cpu), [](const auto&) { return "cpu"; });

/// A group at a time by fp8_gemm_nt is the same product, bit for bit.
TEST_P(KGroupedTest, EachGroupIsADenseProduct) {
  KGroupedProduct product(context(), {.m = 70, .n = 150, .ks = {200, 0, 31, 129}});
  product.run();
  for (int64_t g = 0; g < 4; ++g) {
    const int64_t k = product.description().ks[static_cast<std::size_t>(g)];
    const auto slice = [](TensorView t, int64_t begin, int64_t count) {
      return t.transposed().rows(begin, begin + count).transposed();
    };
    Matrix d(context().device(), DType::f32, 70, 150, 0xff);
    const Fp8Tensor a = product.tensor_a(), b = product.tensor_b();
    GemmOptions options;
    options.c = product.tensor_c().at(g);
    options.recipe = {1, 1, 128};
    const int64_t blocks = (k + 127) / 128;
    fp8_gemm_nt(context(), {slice(a.data, product.col_of(g), k), slice(a.scale, product.block_of(g), blocks)},
                {slice(b.data, product.col_of(g), k), slice(b.scale, product.block_of(g), blocks)}, d.view(), options);
    int64_t different = 0;
    for (int64_t i = 0; i < 70; ++i)
      for (int64_t j = 0; j < 150; ++j) different += d.bits(i, j) != product.d().bits(product.row_of(g) + i, j);
    EXPECT_EQ(different, 0) << "group " << g;
  }
}

}  // namespace deep_gemm::test
