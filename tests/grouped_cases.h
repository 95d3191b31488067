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
          if (on_gpu() || (layer.n < 500 && type == DType::bf16))
            cases.push_back(
                {.layout = layout, .rows = rows, .n = layer.n, .k = layer.k, .d_type = type, .seed = cases.size()});
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
          if (on_gpu() || a == b)
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
    std::vector<int> rows(256);
    for (int& count : rows) count = random() % 4 ? static_cast<int>(random() % 40) : 0;
    rows[100] = on_gpu() ? 3000 : 300;
    GroupedCase description{.layout = layout, .rows = rows, .n = 160, .k = on_gpu() ? 512 : 130};
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
    for (int i = 0; i < (on_gpu() ? 100 : 3); ++i) {
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

}  // namespace deep_gemm::test
