// What fp8_gemm_nt promises on every backend. The programs of tests/host and tests/device each instantiate the suite
// for theirs; the CPU takes fewer and smaller shapes.
#pragma once

#include <limits>

#include "gemm_support.h"

namespace deep_gemm::test {

class GemmTest : public BackendTest, public testing::WithParamInterface<DeviceType> {
 protected:
  GemmTest() : BackendTest(GetParam()) {}
};

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kRowCounts[] = {0, 1, 7, 63, 64, 65, 127, 129, 4095};

TEST_P(GemmTest, Tails) {
  constexpr LayerShape kLayers[] = {{1, 1},      {7, 16},   {96, 100}, {129, 128},  {200, 130},
                                    {2113, 257}, {7, 7168}, {1, 7168}, {129, 7168}, {2113, 7168}};
  std::vector<Case> cases;
  for (const LayerShape& layer : kLayers)
    for (const int64_t m : kRowCounts)
      for (const DType type : {DType::bf16, DType::f32})
        if (is_fast() || m * layer.n * layer.k < 3'000'000)
          cases.push_back({.m = m, .n = layer.n, .k = layer.k, .d_type = type, .seed = cases.size()});
  check(cases);
}

TEST_P(GemmTest, NothingToDo) {
  for (const DType type : {DType::bf16, DType::f32})
    for (const Accumulate accumulate : {Accumulate::no, Accumulate::in_place, Accumulate::out_of_place})
      for (const std::array<int64_t, 3> mnk : {std::array<int64_t, 3>{0, 200, 300}, {200, 0, 300}, {0, 0, 0}}) {
        Product product(context(), {.m = mnk[0], .n = mnk[1], .k = mnk[2], .d_type = type, .accumulate = accumulate});
        product.run();
        EXPECT_TRUE(product.d().is_poison()) << text(product.description()) << ": wrote";
      }
}

TEST_P(GemmTest, NoProductsGiveZerosOrC) {
  std::vector<Case> cases;
  for (const DType type : {DType::bf16, DType::f32})
    for (const Accumulate accumulate : {Accumulate::no, Accumulate::in_place, Accumulate::out_of_place})
      for (const ScaleLayout scales : {ScaleLayout::none, ScaleLayout::k_major})
        cases.push_back({.m = 130,
                         .n = 200,
                         .k = 0,
                         .d_type = type,
                         .scale_a = scales,
                         .scale_b = scales,
                         .accumulate = accumulate});
  compile_ahead(context(), cases);
  for (const Case& c : cases) {
    Product product(context(), c);
    product.check();
    for (int64_t i = 0; i < c.m; ++i)
      for (int64_t j = 0; j < c.n; ++j) {
        const float expected = c.accumulate == Accumulate::no ? 0.0f : product.c().number(i, j);
        ASSERT_EQ(product.d().number(i, j), expected) << text(c) << " at [" << i << ", " << j << "]";
      }
  }
}

TEST_P(GemmTest, ScalesOfAnyLayout) {
  const int64_t m = is_fast() ? 131 : 35, k = is_fast() ? 700 : 300;
  std::vector<Case> cases;
  for (const ScaleLayout a : kScaleLayouts)
    for (const ScaleLayout b : kScaleLayouts)
      cases.push_back({.m = m, .n = 300, .k = k, .d_type = DType::f32, .scale_a = a, .scale_b = b});
  // One row, one block of k, and both: strides that mean nothing.
  for (const ScaleLayout a : kScaleLayouts) {
    cases.push_back({.m = 1, .n = 300, .k = 700, .scale_a = a});
    cases.push_back({.m = m, .n = 100, .k = 128, .scale_a = a, .scale_b = a});
    cases.push_back({.m = 1, .n = 100, .k = 100, .scale_a = a, .scale_b = a});
  }
  check(cases);
}

TEST_P(GemmTest, ScalesThatAreBroadcast) {
  Product product(context(), {.m = 70, .n = 300, .k = 400, .scale_a = ScaleLayout::k_major});
  Fp8Tensor a = product.tensor_a(), b = product.tensor_b();
  a.scale.strides = {0, 1}, b.scale.strides = {0, 0};
  product.prepare();
  fp8_gemm_nt(context(), a, b, product.d().view());
  product.finish();
  // The same scales written out.
  for (int64_t block = 0; block < 4; ++block) {
    for (int64_t i = 1; i < 70; ++i) product.scale_a().set(i, block, product.scale_a().get<float>(0, block));
    for (int64_t i = 0; i < 3; ++i) product.scale_b().set(i, block, product.scale_b().get<float>(0, 0));
  }
  product.scale_a().upload(), product.scale_b().upload();
  product.expect_right(" with broadcast scales");
}

TEST_P(GemmTest, StridesOfSingleExtentsAreIgnored) {
  for (const int64_t garbage : {int64_t{-7}, int64_t{0}, int64_t{1} << 50})
    for (const std::array<int64_t, 3> mnk :
         {std::array<int64_t, 3>{1, 200, 300}, {70, 1, 300}, {70, 200, 1}, {1, 1, 1}}) {
      const auto with_garbage = [&](TensorView t) {
        for (std::size_t i = 0; i < 2; ++i)
          if (t.shape[i] == 1) t.strides[i] = garbage;
        return t;
      };
      for (const ScaleLayout layout : {ScaleLayout::mn_aligned, ScaleLayout::k_major}) {
        Product product(
            context(),
            {.m = mnk[0], .n = mnk[1], .k = mnk[2], .scale_a = layout, .accumulate = Accumulate::out_of_place});
        Fp8Tensor a = product.tensor_a(), b = product.tensor_b();
        for (Fp8Tensor* operand : {&a, &b})
          operand->data = with_garbage(operand->data), operand->scale = with_garbage(operand->scale);
        product.prepare();
        fp8_gemm_nt(context(), a, b, with_garbage(product.d().view()), {.c = with_garbage(product.c().view())});
        product.finish();
        product.expect_right(fmt::format(" with strides of {} where there is one index", garbage));
      }
    }
}

TEST_P(GemmTest, HugeAndTinyScales) {
  std::vector<Case> cases;
  const std::array<float, 2> magnitudes[] = {{1e30f, 1e-30f}, {1e-30f, 1e30f}, {1e14f, 1e14f}, {1e-16f, 1e-16f}};
  for (const auto& [a, b] : magnitudes)
    for (const DType type : {DType::bf16, DType::f32})
      cases.push_back({.m = 70,
                       .n = 300,
                       .k = 700,
                       .d_type = type,
                       .scale_a = ScaleLayout::k_major,
                       .magnitude_a = a,
                       .magnitude_b = b});
  check(cases);
}

TEST_P(GemmTest, ZeroAndNegativeScales) {
  Product product(context(), {.m = 70, .n = 300, .k = 700, .d_type = DType::f32});
  Random random(5);
  for (Matrix* scale : {&product.scale_a(), &product.scale_b()}) {
    for (int64_t i = 0; i < scale->rows(); ++i)
      for (int64_t j = 0; j < scale->cols(); ++j)
        scale->set(i, j, scale->get<float>(i, j) * static_cast<float>(static_cast<int>(random() % 3) - 1));
    scale->upload();
  }
  product.check();
}

TEST_P(GemmTest, StridedOperands) {
  std::vector<Case> cases;
  for (const int64_t k : {int64_t{1}, int64_t{100}, int64_t{128}, int64_t{257}})
    for (const auto& [a, b] : {std::array<int64_t, 2>{16, 0}, {0, 16}, {4096, 144}})
      cases.push_back({.m = 129, .n = 200, .k = k, .pad_a = a, .pad_b = b});
  check(cases);
}

TEST_P(GemmTest, StridedResult) {
  std::vector<Case> cases;
  for (const DType type : {DType::bf16, DType::f32})
    for (const int64_t n : {int64_t{1}, int64_t{7}, int64_t{200}, int64_t{257}})
      for (const int64_t m : {int64_t{1}, int64_t{70}, int64_t{129}}) {
        const int64_t aligned = (n + 7) / 8 * 8;
        for (const Placement& d : {Placement{.pitch = n},
                                   {.pitch = aligned + 64},
                                   {.pitch = aligned + 1},
                                   {.pitch = aligned + 2},
                                   {.pitch = aligned, .offset = 1},
                                   {.pitch = aligned + 8, .offset = 8},
                                   {.pitch = aligned + 3, .offset = 5}})
          cases.push_back({.m = m, .n = n, .k = 200, .d_type = type, .d = d});
      }
  check(cases);
}

TEST_P(GemmTest, AddsC) {
  std::vector<Case> cases;
  for (const DType type : {DType::bf16, DType::f32})
    for (const std::array<int64_t, 3> mnk : {std::array<int64_t, 3>{1, 1, 1}, {65, 200, 130}, {129, 257, 300}}) {
      const Case base{.m = mnk[0], .n = mnk[1], .k = mnk[2], .d_type = type};
      for (const Placement& d : {Placement{}, {.pitch = mnk[1] + 1, .offset = 3}}) {
        Case in_place = base, out_of_place = base;
        in_place.accumulate = Accumulate::in_place, in_place.d = d;
        out_of_place.accumulate = Accumulate::out_of_place, out_of_place.d = d;
        out_of_place.c = {.pitch = mnk[1] + 5, .offset = 1};
        cases.push_back(in_place), cases.push_back(out_of_place);
        out_of_place.c = {};
        cases.push_back(out_of_place);
      }
    }
  for (const ScaleLayout scales : {ScaleLayout::none, ScaleLayout::k_major})
    cases.push_back(
        {.m = 129, .n = 257, .k = 300, .scale_a = scales, .scale_b = scales, .accumulate = Accumulate::in_place});
  check(cases);
}

/// Puts one strange value into a product and says which elements of D it may change.
struct Spoiler {
  const char* name;
  std::function<void(Product&)> spoil;
  std::function<bool(int64_t row, int64_t col)> reaches;
  bool all_nan;  ///< every element it reaches becomes NaN
};

TEST_P(GemmTest, NaNAndInfinityStayWhereTheyBelong) {
  const auto row = [](int64_t r) { return [r](int64_t i, int64_t) { return i == r; }; };
  const auto cols = [](int64_t first, int64_t last) {
    return [=](int64_t, int64_t j) { return j >= first && j <= last; };
  };
  const auto element = [](int64_t r, int64_t c) { return [=](int64_t i, int64_t j) { return i == r && j == c; }; };
  constexpr int64_t kM = 150, kN = 333, kK = 300;
  const Spoiler spoilers[] = {
      {"NaN in A", [](Product& p) { p.a().set<uint8_t>(67, 299, 0x7f), p.a().upload(); }, row(67), true},
      {"negative NaN in A's last row", [](Product& p) { p.a().set<uint8_t>(149, 0, 0xff), p.a().upload(); }, row(149),
       true},
      {"NaN in B", [](Product& p) { p.b().set<uint8_t>(130, 128, 0x7f), p.b().upload(); }, cols(130, 130), true},
      {"NaN in B's last row", [](Product& p) { p.b().set<uint8_t>(332, 299, 0x7f), p.b().upload(); }, cols(332, 332),
       true},
      {"NaN in A's scales", [](Product& p) { p.scale_a().set(5, 2, kNaN), p.scale_a().upload(); }, row(5), true},
      {"infinity in A's scales", [](Product& p) { p.scale_a().set(128, 1, kInfinity), p.scale_a().upload(); }, row(128),
       false},
      {"NaN in B's scales", [](Product& p) { p.scale_b().set(1, 0, kNaN), p.scale_b().upload(); }, cols(128, 255),
       true},
      {"infinity in B's scales", [](Product& p) { p.scale_b().set(2, 2, -kInfinity), p.scale_b().upload(); },
       cols(256, 332), false},
      {"NaN in C", [](Product& p) { p.c().set_number(64, 70, kNaN), p.c().upload(); }, element(64, 70), true},
      {"infinity in C", [](Product& p) { p.c().set_number(149, 332, kInfinity), p.c().upload(); }, element(149, 332),
       false},
  };
  for (const DType type : {DType::bf16, DType::f32}) {
    const Case description{.m = kM, .n = kN, .k = kK, .d_type = type, .accumulate = Accumulate::out_of_place};
    // Exact operands: infinity times a sum that tensor cores truncate to zero, or beyond, would not be what it should be.
    const auto make_exact = [](Product& product) {
      Random random(9);
      fill_exact_fp8(product.a(), random);
      fill_exact_fp8(product.b(), random);
    };
    Product clean(context(), description);
    make_exact(clean);
    clean.run();
    clean.expect_right();
    for (const Spoiler& spoiler : spoilers) {
      Product spoiled(context(), description);
      make_exact(spoiled);
      spoiler.spoil(spoiled);
      spoiled.run();
      spoiled.expect_right(fmt::format(", {}", spoiler.name));
      for (int64_t i = 0; i < kM; ++i)
        for (int64_t j = 0; j < kN; ++j) {
          const float value = spoiled.d().number(i, j);
          if (!spoiler.reaches(i, j)) {
            ASSERT_EQ(spoiled.d().bits(i, j), clean.d().bits(i, j)) << spoiler.name << " at [" << i << ", " << j << "]";
          } else if (spoiler.all_nan) {
            ASSERT_TRUE(std::isnan(value)) << spoiler.name << " at [" << i << ", " << j << "] gives " << value;
          } else {
            ASSERT_FALSE(std::isfinite(value)) << spoiler.name << " at [" << i << ", " << j << "] gives " << value;
          }
        }
    }
  }
}

/// e4m3 and e5m2 in any mix, by both recipes, into both types of D, added or not.
TEST_P(GemmTest, OperandForms) {
  std::vector<Case> cases;
  for (const OperandTypes& types : kOperandTypes)
    for (const int scale_rows_b : {128, 1})
      for (const DType d_type : {DType::bf16, DType::f32})
        for (const Accumulate accumulate : {Accumulate::no, Accumulate::in_place})
          for (const std::array<int64_t, 3> mnk :
               {std::array<int64_t, 3>{1, 1, 1}, {7, 129, 130}, {65, 200, 257}, {129, 257, 300}, {130, 576, 1024}})
            if (is_fast() || mnk[2] < 1000)
              cases.push_back({.m = mnk[0],
                               .n = mnk[1],
                               .k = mnk[2],
                               .d_type = d_type,
                               .types = types,
                               .scale_rows_b = scale_rows_b,
                               .accumulate = accumulate,
                               .seed = cases.size()});
  check(cases);
}

/// 1×128 scales of B in every layout beside those of A.
TEST_P(GemmTest, ScalesOfBByRow) {
  std::vector<Case> cases;
  for (const ScaleLayout a : kScaleLayouts)
    for (const ScaleLayout b : kScaleLayouts)
      for (const int64_t n : {int64_t{1}, int64_t{131}, int64_t{300}})
        if (is_fast() || n < 300)
          cases.push_back({.m = 70,
                           .n = n,
                           .k = 300,
                           .d_type = DType::f32,
                           .scale_rows_b = 1,
                           .scale_a = a,
                           .scale_b = b,
                           .seed = cases.size()});
  check(cases);
}

/// One scale a row of B that is the same for 128 rows gives the bits of the other recipe.
TEST_P(GemmTest, BothRecipesAgreeWhereTheirScalesDo) {
  const int64_t m = 130, n = 300, k = 400;
  Product by_row(context(), {.m = m, .n = n, .k = k, .d_type = DType::f32, .scale_rows_b = 1});
  Matrix square(context().device(), DType::f32, 3, 4, 0xff);
  for (int64_t block = 0; block < 4; ++block)
    for (int64_t j = 0; j < n; ++j) {
      const auto scale = by_row.scale_b().get<float>(j / 128 * 128, block);
      by_row.scale_b().set(j, block, scale);
      square.set(j / 128, block, scale);
    }
  by_row.scale_b().upload(), square.upload();
  by_row.check();
  Matrix d(context().device(), DType::f32, m, n, 0xff);
  fp8_gemm_nt(context(), by_row.tensor_a(), {by_row.b().view(), square.view()}, d.view());
  if (on_gpu()) cuda::synchronize({});
  d.download();
  int64_t different = 0;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) different += d.bits(i, j) != by_row.d().bits(i, j);
  EXPECT_EQ(different, 0);
}

/// e5m2 has infinities: they spoil their row or column, a product with zero or with its opposite is NaN.
TEST_P(GemmTest, InfinitiesOfE5m2) {
  for (const OperandTypes& types : kOperandTypes) {
    if (types.a != DType::e5m2) continue;
    Product product(context(), {.m = 70, .n = 150, .k = 300, .types = types, .scale_rows_b = 1});
    Random random(4);
    fill_exact_fp8(product.a(), random), fill_exact_fp8(product.b(), random);
    product.a().set<uint8_t>(3, 299, 0x7c);                                        // infinity
    product.a().set<uint8_t>(4, 0, 0xfc);                                          // negative
    product.a().set<uint8_t>(5, 10, 0x7c), product.a().set<uint8_t>(5, 20, 0xfc);  // often both signs
    product.a().set<uint8_t>(6, 77, 0x7d), product.a().set<uint8_t>(7, 78, 0xff);  // NaN
    product.b().set<uint8_t>(9, 299, 0x00);                                        // zero times infinity
    if (types.b == DType::e5m2) product.b().set<uint8_t>(140, 128, 0x7c);
    product.a().upload(), product.b().upload();
    product.check();
    for (int64_t j = 0; j < 150; ++j) {
      const float b = decode_fp8(types.b, product.b().get<uint8_t>(j, 299));
      const float got = product.d().number(3, j);
      if (j == 9) {
        EXPECT_TRUE(std::isnan(got));
      } else if (j != 140) {
        EXPECT_EQ(got, b > 0 ? kInfinity : -kInfinity) << j;
      }
      EXPECT_TRUE(std::isnan(product.d().number(6, j)) && std::isnan(product.d().number(7, j))) << j;
    }
  }
}

TEST_P(GemmTest, SameInputsSameBits) {
  for (const LayerShape& layer : {LayerShape{200, 700}, LayerShape{2113, 257}, LayerShape{576, 2048}}) {
    if (!is_fast() && layer.n * layer.k > 400'000) continue;
    Product product(context(), {.m = 130, .n = layer.n, .k = layer.k, .scale_a = ScaleLayout::k_major});
    product.check();
    const std::vector<std::byte> first = product.d().bytes();
    for (int i = 0; i < (is_fast() ? 200 : 5); ++i) {
      product.run();
      ASSERT_TRUE(product.d().bytes() == first) << text(product.description()) << ": repeat " << i << " differs";
    }
  }
}

TEST_P(GemmTest, EightThreadsOneContext) {
  const std::vector<Case> shapes = {{.m = 1, .n = 200, .k = 130},
                                    {.m = 65, .n = 129, .k = 257, .scale_a = ScaleLayout::k_major},
                                    {.m = 64, .n = 96, .k = 300, .d_type = DType::f32, .scale_a = ScaleLayout::none},
                                    {.m = 129, .n = 300, .k = 128, .accumulate = Accumulate::in_place}};
  // No kernel is compiled ahead: the threads meet in the cache.
  Context fresh({on_gpu() ? DeviceType::cuda : DeviceType::cpu, 0});
  in_parallel(is_fast() ? 64 : 16, 8, [&](std::size_t i) {
    const OnDevice current(fresh);
    Case description = shapes[i % shapes.size()];
    description.seed = 100 + i;
    Product product(fresh, description);
    if (on_gpu()) {
      const cuda::OwnedStream stream;
      product.check({.stream = stream});
    } else {
      product.check();
    }
  });
}

TEST_P(GemmTest, BadArgumentsWriteNothing) {
  Product product(context(), {.m = 70, .n = 200, .k = 300, .accumulate = Accumulate::out_of_place});
  const auto expect_rejected = [&](const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                                   const GemmOptions& options, const char* what) {
    product.d().poison();
    try {
      fp8_gemm_nt(context(), a, b, d, options);
      ADD_FAILURE() << what << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << what << ": " << error.what();
    }
    product.finish();
    EXPECT_TRUE(product.d().is_poison()) << what << ": an error, and D was written";
  };
  const Fp8Tensor a = product.tensor_a(), b = product.tensor_b();
  const TensorView d = product.d().view();
  Fp8Tensor bad = a;
  bad.data.shape[1] = 299;
  expect_rejected(bad, b, d, {}, "another k");
  bad = a, bad.scale.shape[1] = 2;
  expect_rejected(bad, b, d, {}, "too few scales");
  bad = b, bad.scale.dtype = DType::bf16;
  expect_rejected(a, bad, d, {}, "bf16 scales");
  TensorView bad_d = d;
  bad_d.strides[0] = 199;
  expect_rejected(a, b, bad_d, {}, "overlapping rows of D");
  TensorView bad_c = product.c().view();
  bad_c.dtype = DType::f32;
  expect_rejected(a, b, d, {.c = bad_c}, "C of another type");
  expect_rejected(a, b, d, {.num_sms = -1}, "num_sms -1");
  if (!on_gpu()) return;
  bad = a, bad.data.data = static_cast<std::byte*>(a.data.data) + 8;
  expect_rejected(bad, b, d, {}, "A 8 bytes off");
  bad = b, bad.data.strides[0] = 300;
  expect_rejected(a, bad, d, {}, "B's pitch 300");
  expect_rejected(a, b, d, {.config = GemmConfig{.tile_m = 100}}, "tile_m 100");
  expect_rejected(a, b, d, {.config = GemmConfig{.d_type = DType::f32}}, "a config for f32");
}

}  // namespace deep_gemm::test
