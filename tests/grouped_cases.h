// What the m_grouped calls promise on every backend. The programs of tests/host and tests/device each instantiate the
// suite for theirs; the CPU takes fewer and smaller shapes.
#pragma once

#include "grouped_support.h"

namespace deep_gemm::test {

class GroupedTest : public BackendTest, public testing::WithParamInterface<DeviceType> {
 protected:
  GroupedTest() : BackendTest(GetParam()) {}

  void check(const std::vector<GroupedCase>& cases) {
    if (on_gpu()) {
      std::vector<GemmConfig> configs;
      for (const GroupedCase& c : cases) {
        const Problem problem = GroupedProduct(context(), c).problem();
        if (problem.m > 0 && problem.n > 0) configs.push_back(plan(problem, context().impl().plan_device).config);
      }
      compile_ahead(context(), configs);
    }
    for (const GroupedCase& c : cases) GroupedProduct(context(), c).check();
  }
};

inline constexpr Layout kLayouts[] = {Layout::contiguous, Layout::offsets, Layout::masked};

inline std::vector<std::vector<int>> group_vectors() {
  return {{0},
          {1},
          {0, 0, 0, 0},
          {1, 7, 63, 64, 65, 129},
          {0, 300, 0, 0, 5, 0},
          {128, 256, 128},
          {0, 0, 0, 513},
          {40, 38, 45, 51, 29, 33, 42, 47, 30, 36}};
}

TEST_P(GroupedTest, GroupsOfAllSizes) {
  std::vector<GroupedCase> cases;
  for (const Layout layout : kLayouts)
    for (const std::vector<int>& rows : group_vectors())
      for (const LayerShape& layer : {LayerShape{200, 130}, {257, 300}, {576, 1024}})
        for (const DType type : {DType::bf16, DType::f32})
          if (is_fast() || (layer.n < 500 && type == DType::bf16))
            cases.push_back(
                {.layout = layout, .rows = rows, .n = layer.n, .k = layer.k, .d_type = type, .seed = cases.size()});
  check(cases);
}

TEST_P(GroupedTest, OperandTypes) {
  std::vector<GroupedCase> cases;
  for (const Layout layout : kLayouts)
    for (const OperandTypes& types : kOperandTypes)
      cases.push_back(
          {.layout = layout, .rows = {70, 0, 129, 3}, .n = 200, .k = 300, .types = types, .seed = cases.size()});
  check(cases);
}

TEST_P(GroupedTest, OffsetsOfEveryAlignment) {
  std::vector<GroupedCase> cases;
  for (const int alignment : {1, 8, 16, 32, 64, 128})
    for (const bool zero_padding : {false, true})
      for (const std::vector<int>& rows : group_vectors())
        for (const DType type : {DType::bf16, DType::f32})
          cases.push_back({.layout = Layout::offsets,
                           .rows = rows,
                           .n = 200,
                           .k = 160,
                           .d_type = type,
                           .alignment = alignment,
                           .zero_padding = zero_padding,
                           .spare_rows = 70,
                           .seed = cases.size()});
  check(cases);
}

TEST_P(GroupedTest, ScalesOfEveryLayout) {
  std::vector<GroupedCase> cases;
  for (const Layout layout : kLayouts)
    for (const ScaleLayout a : kScaleLayouts)
      for (const ScaleLayout b : kScaleLayouts)
        for (const int64_t m_max : {140, 141})  // group pitches of scales that TMA can read, and cannot
          if (is_fast() || a == b)
            cases.push_back({.layout = layout,
                             .rows = {70, 0, 129, 3},
                             .n = 300,
                             .k = 260,
                             .scale_a = a,
                             .scale_b = b,
                             .m_max = m_max,
                             .seed = cases.size()});
  check(cases);
}

TEST_P(GroupedTest, StridedResult) {
  std::vector<GroupedCase> cases;
  for (const Layout layout : kLayouts)
    for (const DType type : {DType::bf16, DType::f32})
      for (const int64_t n : {int64_t{7}, int64_t{200}, int64_t{257}})
        for (const Placement& d : {Placement{.pitch = n}, {.pitch = 320}, {.pitch = 321}, {.pitch = 328, .offset = 1}})
          cases.push_back({.layout = layout,
                           .rows = {70, 0, 129, 3},
                           .n = n,
                           .k = 200,
                           .d_type = type,
                           .d = d,
                           .seed = cases.size()});
  check(cases);
}

TEST_P(GroupedTest, NoDepthGivesZeros) {
  std::vector<GroupedCase> cases;
  for (const Layout layout : kLayouts) cases.push_back({.layout = layout, .rows = {70, 0, 129, 3}, .n = 200, .k = 0});
  check(cases);
}

TEST_P(GroupedTest, ManyGroups) {
  for (const Layout layout : kLayouts) {
    Random random(7);
    std::vector<int> rows(is_fast() || !on_gpu() ? 256 : 70);
    for (int& count : rows) count = random() % 4 ? static_cast<int>(random() % 40) : 0;
    rows[50] = is_fast() ? 3000 : 300;
    GroupedCase description{.layout = layout, .rows = rows, .n = 160, .k = is_fast() ? 512 : 130};
    check({description});
  }
}

/// Numbers that no caller should pass are clamped: no access outside of the tensors, and the other groups are right.
TEST_P(GroupedTest, NumbersOutOfRangeStayInside) {
  for (const Layout layout : kLayouts) {
    GroupedProduct product(context(), {.layout = layout, .rows = {70, 20, 129, 3}, .n = 200, .k = 160});
    product.run();
    product.expect_right();
    const auto first_groups = [&] {
      std::vector<uint32_t> bits;
      for (int64_t row = 0; row < product.ranges().back().begin; ++row)
        for (int64_t j = 0; j < 200; ++j) bits.push_back(product.d().bits(row, j));
      return bits;
    };
    const std::vector<uint32_t> right = first_groups();
    for (const int32_t wrong : {-5, 4, 1000000, INT32_MAX, INT32_MIN}) {
      std::vector<int32_t> numbers = product.numbers();
      // The last group: the others' rows do not depend on it.
      const GroupedProduct::Range last = product.ranges().back();
      if (layout == Layout::contiguous) {
        for (int64_t row = last.begin; row < last.end; ++row) numbers[static_cast<std::size_t>(row)] = wrong;
      } else {
        numbers.back() = wrong;
      }
      product.set_numbers(numbers);
      product.run();
      EXPECT_EQ(product.d().changed_guard_bytes(), 0) << deep_gemm::name_of(layout) << ", " << wrong;
      EXPECT_TRUE(first_groups() == right) << deep_gemm::name_of(layout) << ", " << wrong;
    }
  }
}

TEST_P(GroupedTest, MaskedCountsBeyondAndBelowTheHint) {
  for (const int64_t expected_m : {0, 1, 64, 500, 100000}) {
    GroupedProduct product(
        context(), {.layout = Layout::masked, .rows = {0, 1, 200, 64, 65, 399}, .n = 260, .k = 300, .m_max = 400});
    product.check({}, expected_m);
  }
}

TEST_P(GroupedTest, SameInputsSameBits) {
  for (const Layout layout : kLayouts) {
    GroupedProduct product(context(), {.layout = layout, .rows = {70, 0, 129, 3, 300}, .n = 520, .k = 700});
    product.check();
    const std::vector<std::byte> first = product.d().bytes();
    for (int i = 0; i < (is_fast() ? 100 : 3); ++i) {
      product.run();
      ASSERT_TRUE(product.d().bytes() == first) << deep_gemm::name_of(layout) << ": repeat " << i << " differs";
    }
  }
}

TEST_P(GroupedTest, BadArgumentsWriteNothing) {
  for (const Layout layout : kLayouts) {
    GroupedProduct product(context(), {.layout = layout, .rows = {70, 0, 129, 3}, .n = 200, .k = 300});
    const auto expect_rejected = [&](const auto& change, const std::string& part) {
      Fp8Tensor a = product.tensor_a(), b = product.tensor_b();
      TensorView d = product.tensor_d(), groups_of = product.groups_of();
      GroupedOptions options;
      int64_t expected_m = 0;
      change(a, b, d, groups_of, options, expected_m);
      product.d().poison();
      try {
        if (layout == Layout::masked) {
          m_grouped_fp8_gemm_nt_masked(context(), a, b, d, groups_of, expected_m, options);
        } else if (layout == Layout::offsets) {
          m_grouped_fp8_gemm_nt_offsets(context(), a, b, d, groups_of, options);
        } else {
          m_grouped_fp8_gemm_nt_contiguous(context(), a, b, d, groups_of, options);
        }
        ADD_FAILURE() << deep_gemm::name_of(layout) << ": accepted, though " << part;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << error.what();
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
        EXPECT_EQ(std::string(error.what()).find("m_grouped_fp8_gemm_nt_"), 0u) << error.what();
      }
      product.finish();
      EXPECT_TRUE(product.d().is_poison()) << part << ": an error, and D was written";
    };
    using F = Fp8Tensor;
    using T = TensorView;
    using O = GroupedOptions;
    const std::size_t row_dim = layout == Layout::masked ? 1 : 0;
    expect_rejected([](F&, F& b, T&, T&, O&, int64_t&) { b.data.rank = 2; }, "b has 2 dimensions, expected 3");
    expect_rejected([](F&, F& b, T&, T&, O&, int64_t&) { b.data.shape[2] = 299; }, "b is [4, 200, 299]");
    expect_rejected([](F&, F& b, T&, T&, O&, int64_t&) { b.scale.shape[0] = 3; },
                    "scale_b is [3, 2, 3], expected [4, 2, 3]");
    expect_rejected([&](F& a, F&, T&, T&, O&, int64_t&) { ++a.scale.shape[row_dim]; }, "scale_a is");
    expect_rejected([&](F&, F&, T& d, T&, O&, int64_t&) { --d.shape[row_dim]; }, "d is");
    expect_rejected([](F&, F&, T&, T& g, O&, int64_t&) { g.dtype = DType::f32; }, "is f32, expected i32");
    expect_rejected([](F&, F&, T&, T& g, O&, int64_t&) { ++g.shape[0]; }, "expected [");
    expect_rejected([](F&, F&, T&, T& g, O&, int64_t&) { g.strides[0] = 2; }, "has stride 2, expected 1");
    expect_rejected([](F&, F&, T&, T&, O& o, int64_t&) { o.alignment = 0; }, "alignment is 0");
    expect_rejected([](F&, F&, T&, T&, O& o, int64_t&) { o.num_sms = -1; }, "num_sms is -1");
    if (layout == Layout::masked) {
      expect_rejected([](F& a, F&, T&, T&, O&, int64_t&) { a.data.shape[0] = 3; }, "a is [3,");
      expect_rejected([](F&, F&, T&, T&, O&, int64_t& expected) { expected = -1; }, "expected_m is -1");
    }
    if (!on_gpu()) continue;
    expect_rejected([](F&, F& b, T&, T&, O&, int64_t&) { b.data.strides[0] += 8; }, "b has groups");
  }
}

class KGroupedTest : public BackendTest, public testing::WithParamInterface<DeviceType> {
 protected:
  KGroupedTest() : BackendTest(GetParam()) {}

  void check(const std::vector<KGroupedCase>& cases) {
    if (on_gpu()) {
      std::vector<GemmConfig> configs;
      for (const KGroupedCase& c : cases) {
        const Problem problem = KGroupedProduct(context(), c).problem();
        if (problem.m > 0 && problem.n > 0 && problem.groups > 0)
          configs.push_back(plan(problem, context().impl().plan_device).config);
      }
      compile_ahead(context(), configs);
    }
    for (const KGroupedCase& c : cases) KGroupedProduct(context(), c).check();
  }
};

TEST_P(KGroupedTest, GroupsOfAllDepths) {
  const std::vector<std::vector<int>> all = {{128},
                                             {0},
                                             {0, 0, 0},
                                             {128, 256, 128},
                                             {0, 384, 0, 128, 0},
                                             {256, 0, 0, 1024},
                                             {16, 128, 144},
                                             {112, 0, 16, 400, 32}};
  std::vector<KGroupedCase> cases;
  for (const std::vector<int>& ks : all)
    for (const bool flat : {false, true})
      for (const auto& [m, n] : {std::pair<int64_t, int64_t>{1, 1}, {130, 200}, {65, 257}, {200, 96}})
        for (const bool in_place : {false, true}) {
          const bool whole = std::all_of(ks.begin(), ks.end(), [](int k) { return k % 128 == 0; });
          if (flat && !whole) continue;
          cases.push_back({.m = m,
                           .n = n,
                           .ks = ks,
                           .flat = flat,
                           .types = kOperandTypes[cases.size() / 3 % 4],
                           .in_place = in_place,
                           .seed = cases.size()});
        }
  check(cases);
}

/// The last group may end anywhere; on the CPU all may.
TEST_P(KGroupedTest, StridedGroupsThatEndAnywhere) {
  std::vector<KGroupedCase> cases;
  for (const int last : {1, 7, 100, 127, 129, 255})
    cases.push_back({.m = 70, .n = 130, .ks = {144, 32, 0, last}, .pad = 32, .seed = cases.size()});
  if (!on_gpu())
    for (const std::vector<int>& ks : {std::vector<int>{1, 1, 1}, {7, 0, 129, 300, 1}, {0, 255, 127}})
      cases.push_back({.m = 70, .n = 130, .ks = ks, .types = {DType::e5m2, DType::e4m3}, .seed = cases.size()});
  check(cases);
}

TEST_P(KGroupedTest, ScalesOfEveryLayout) {
  std::vector<KGroupedCase> cases;
  for (const ScaleLayout a : kScaleLayouts)
    for (const ScaleLayout b : kScaleLayouts)
      for (const bool flat : {false, true})
        if ((a == ScaleLayout::none) == (b == ScaleLayout::none) && (is_fast() || a == b))
          cases.push_back({.m = 131,
                           .n = 150,
                           .ks = {256, 0, 128, 384},
                           .flat = flat,
                           .scale_a = a,
                           .scale_b = b,
                           .seed = cases.size()});
  check(cases);
}

TEST_P(KGroupedTest, StridedResult) {
  std::vector<KGroupedCase> cases;
  for (const int64_t n : {int64_t{7}, int64_t{200}, int64_t{257}})
    for (const Placement& d : {Placement{.pitch = n}, {.pitch = 320}, {.pitch = 321}, {.pitch = 324, .offset = 1}})
      for (const bool in_place : {false, true})
        cases.push_back({.m = 130, .n = n, .ks = {128, 0, 272}, .in_place = in_place, .d = d, .seed = cases.size()});
  check(cases);
}

TEST_P(KGroupedTest, ManyGroups) {
  Random random(7);
  std::vector<int> ks(is_fast() ? 300 : 70);
  for (int& k : ks) k = random() % 4 ? 128 * static_cast<int>(random() % 4) : 0;
  ks[33] = is_fast() ? 8192 : 1024;
  for (const bool flat : {false, true}) check({{.m = 72, .n = 136, .ks = ks, .flat = flat}});
}

TEST_P(KGroupedTest, NothingToDo) {
  check({{.m = 0, .n = 200, .ks = {128, 128}}, {.m = 200, .n = 0, .ks = {128, 128}}, {.m = 200, .n = 200, .ks = {}}});
}

/// NaN in one group's part of A, B or the scales, in the last columns before the next group's and the first after the one
/// before: it spoils that group's rows or columns and nothing of its neighbours.
TEST_P(KGroupedTest, NaNStaysInItsGroup) {
  for (const bool flat : {false, true}) {
    const std::vector<int> ks = flat ? std::vector<int>{128, 256, 128, 0, 384} : std::vector<int>{144, 80, 16, 0, 272};
    const KGroupedCase description{.m = 70, .n = 150, .ks = ks, .flat = flat, .pad = flat ? 0 : 16};
    KGroupedProduct clean(context(), description);
    clean.check();
    for (const int64_t group : {0, 1, 2, 4}) {
      const auto k = ks[static_cast<std::size_t>(group)];
      KGroupedProduct spoiled(context(), description);
      for (int64_t p : {int64_t{0}, int64_t{k} - 1}) {
        spoiled.a().set<uint8_t>(3, spoiled.col_of(group) + p, 0x7f);
        spoiled.b().set<uint8_t>(149, spoiled.col_of(group) + p, 0xff);
      }
      spoiled.scale_a().set(69, spoiled.block_of(group + 1) - 1, std::nanf(""));
      spoiled.scale_b().set(0, spoiled.block_of(group), std::nanf(""));
      spoiled.scale_a().upload(), spoiled.scale_b().upload();
      spoiled.copy_operands();
      spoiled.check();
      int64_t wrong = 0;
      for (int64_t row = 0; row < spoiled.d().rows(); ++row)
        for (int64_t j = 0; j < 150; ++j) {
          const int64_t i = row % 70;
          const bool reached = row / 70 == group && (i == 3 || i == 69 || j == 149 || j == 0);
          wrong +=
              reached ? !std::isnan(spoiled.d().number(row, j)) : spoiled.d().bits(row, j) != clean.d().bits(row, j);
        }
      EXPECT_EQ(wrong, 0) << (flat ? "flat" : "strided") << ", group " << group;
    }
  }
}

/// What no group owns, between a row's end and the pitch, is NaN in these operands already; what the groups hold at the
/// same place in the other form gives the same bits.
TEST_P(KGroupedTest, BothFormsGiveTheSameBits) {
  KGroupedCase description{.m = 130, .n = 257, .ks = {256, 0, 128, 640}, .in_place = false};
  KGroupedProduct strided(context(), description);
  description.flat = true;
  KGroupedProduct flat(context(), description);
  strided.check(), flat.check();
  EXPECT_TRUE(strided.d().bytes() == flat.d().bytes());
}

TEST_P(KGroupedTest, SameInputsSameBits) {
  KGroupedProduct product(context(), {.m = 130, .n = 257, .ks = {256, 0, 128, 640}});
  product.check();
  const std::vector<std::byte> first = product.d().bytes();
  for (int i = 0; i < (is_fast() ? 100 : 3); ++i) {
    product.run();
    ASSERT_TRUE(product.d().bytes() == first) << "repeat " << i << " differs";
  }
}

/// The judge of k-grouped products finds a group that was left out, added twice, or has its neighbour's scales.
TEST_P(KGroupedTest, PlantedErrorsAreFound) {
  const KGroupedCase description{.m = 70, .n = 150, .ks = {256, 128, 384}, .in_place = false};
  KGroupedProduct product(context(), description);
  product.check();
  const auto mismatches = [&] {
    product.d().upload();
    return verify::verify_k_grouped(context(), product.tensor_a(), product.tensor_b(), product.tensor_c(),
                                    product.tensor_d(), description.ks);
  };
  const auto in_group = [&](int64_t group, const auto& change) {
    product.finish();
    for (int64_t i = product.row_of(group); i < product.row_of(group + 1); ++i)
      for (int64_t j = 0; j < 150; ++j)
        product.d().set_number(i, j, change(product.d().number(i, j), product.c().number(i, j)));
    const verify::Report report = mismatches();
    EXPECT_GT(report.mismatches, 70 * 150 * 8 / 10);
    EXPECT_LE(report.mismatches, 70 * 150);
    ASSERT_FALSE(report.first.empty());
    EXPECT_EQ(report.first.front().row / 70, group);
    product.run();
  };
  for (const int64_t group : {0, 1, 2}) {
    in_group(group, [](float, float c) { return c; });
    in_group(group, [](float d, float c) { return d - c; });
    in_group(group, [](float d, float c) { return d + (d - c); });
  }
  const auto right = product.scale_b().get<float>(140, 2);
  product.scale_b().set(140, 2, product.scale_b().get<float>(140, 1)), product.scale_b().upload();
  product.run();
  product.scale_b().set(140, 2, right), product.scale_b().upload();
  const verify::Report report = mismatches();
  EXPECT_GT(report.mismatches, 35);
  EXPECT_LE(report.mismatches, 70);
  for (const verify::Mismatch& x : report.first) EXPECT_TRUE(x.row / 70 == 1 && x.col == 140);
}

TEST_P(KGroupedTest, BadArgumentsWriteNothing) {
  for (const bool flat : {false, true}) {
    KGroupedProduct product(context(), {.m = 70, .n = 200, .ks = {128, 0, 256}, .flat = flat});
    using F = Fp8Tensor;
    using T = TensorView;
    using K = std::vector<int>;
    using O = GemmOptions;
    const auto expect_rejected = [&](const auto& change, const std::string& part) {
      F a = product.tensor_a(), b = product.tensor_b();
      T d = product.tensor_d();
      K ks = product.description().ks;
      O options;
      change(a, b, d, ks, options);
      product.d().poison();
      try {
        k_grouped_fp8_gemm_nt(context(), a, b, d, ks, options);
        ADD_FAILURE() << "accepted, though " << part;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << error.what();
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
        EXPECT_EQ(std::string(error.what()).find("k_grouped_fp8_gemm_nt: "), 0u) << error.what();
      }
      product.finish();
      EXPECT_TRUE(product.d().is_poison()) << part << ": an error, and D was written";
    };
    expect_rejected([](F&, F&, T&, K& ks, O&) { ks.push_back(128); }, "d is [3, 70, 200]");
    expect_rejected([](F&, F&, T&, K& ks, O&) { ks[1] = -1; }, "ks[1] is -1");
    expect_rejected([](F&, F&, T&, K& ks, O&) { ks[1] = 128; }, "a is");
    expect_rejected([](F&, F&, T& d, K&, O&) { d.dtype = DType::bf16; }, "d is bf16");
    expect_rejected([](F& a, F&, T&, K&, O&) { a.data.dtype = DType::bf16; }, "a is bf16");
    expect_rejected([](F& a, F&, T&, K&, O&) { --a.data.shape[0]; }, "a is [");
    expect_rejected([](F&, F& b, T&, K&, O&) { ++b.scale.shape[1]; }, "scale_b is [200, 4]");
    expect_rejected([](F&, F& b, T&, K&, O&) { b.scale = {}; }, "scale");
    expect_rejected([](F&, F&, T& d, K&, O& o) { o.c = d, o.c->shape[2] = 199; }, "c is [3, 70, 199]");
    expect_rejected([](F&, F&, T&, K&, O& o) { o.num_sms = -1; }, "num_sms is -1");
    if (flat) expect_rejected([](F&, F&, T&, K& ks, O&) { ks[0] = 100, ks[1] = 28; }, "ks[0] is 100");
  }
}

}  // namespace deep_gemm::test
