// The grouped products' promises on a GPU, and what only a GPU promises: all kernels, graphs, streams.
#include "gemm/plan.h"
#include "grouped_cases.h"

namespace deep_gemm::test {
INSTANTIATE_TEST_SUITE_P(Gpu, GroupedTest, testing::Values(DeviceType::cuda), [](const auto&) { return "cuda"; });
INSTANTIATE_TEST_SUITE_P(Gpu, KGroupedTest, testing::Values(DeviceType::cuda), [](const auto&) { return "cuda"; });

namespace {

class GroupedDeviceTest : public BackendTest {
 protected:
  GroupedDeviceTest() : BackendTest(DeviceType::cuda) {}
};

TEST_F(GroupedDeviceTest, KernelsOfEveryShape) {
  for (const Layout layout : kLayouts) {
    GroupedProduct product(context(), {.layout = layout,
                                       .rows = {0, 1, 200, 64, 0, 65, is_fast() ? 399 : 140, 130},
                                       .n = is_fast() ? 1100 : 330,
                                       .k = 520});
    const Problem problem = product.problem(100);
    std::vector<GemmConfig> configs;
    std::size_t count = 0;
    for (const GemmConfig& c : candidates(problem, context().impl().plan_device))
      if (c.tile_n == 32 || c.tile_n == 112 || c.tile_n == 128 || c.tile_n == 192)
        if (is_fast() || count++ % 7 == 0) configs.push_back(c);  // not only those of one tile or cluster
    ASSERT_GE(configs.size(), is_fast() ? 8u : 4u);
    compile_ahead(context(), configs);
    for (const GemmConfig& config : configs)
      for (const int num_sms : {0, 10})
        if (is_fast() || num_sms != 0) product.check({.num_sms = num_sms, .config = config});
  }
}

TEST_F(GroupedDeviceTest, GraphsReplayWithChangedCounts) {
  const cuda::OwnedStream stream;
  GroupedProduct product(context(),
                         {.layout = Layout::masked, .rows = {300, 300, 300, 300}, .n = 520, .k = 700, .m_max = 300});
  const GroupedOptions options{.stream = stream};
  product.check(options, 64);
  cuda::begin_capture(stream);
  product.call(options, 64);
  const cuda::Graph graph(stream);
  for (const std::vector<int>& rows :
       {std::vector<int>{0, 0, 0, 0}, {1, 300, 7, 64}, {65, 0, 0, 129}, {300, 1, 2, 3}}) {
    product.change_counts(rows);
    product.d().poison();
    graph.launch(stream);
    product.finish(stream);
    product.expect_right(", replayed", stream);
  }
}

TEST_F(GroupedDeviceTest, TwoStreamsAtOnce) {
  const cuda::OwnedStream streams[2];
  GroupedProduct products[2] = {
      GroupedProduct(
          context(),
          {.layout = Layout::offsets, .rows = {300, 0, 5, 64}, .n = 1030, .k = 2000, .scale_a = ScaleLayout::k_major}),
      GroupedProduct(
          context(),
          {.layout = Layout::masked, .rows = {3, 99}, .n = 300, .k = 7168, .scale_a = ScaleLayout::spread, .seed = 2})};
  for (std::size_t i = 0; i < 2; ++i) products[i].check({.stream = streams[i]});
  for (GroupedProduct& product : products) product.d().poison();
  for (int repeat = 0; repeat < (is_fast() ? 20 : 1); ++repeat)
    for (std::size_t i = 0; i < 2; ++i) products[i].call({.stream = streams[i]});
  for (std::size_t i = 0; i < 2; ++i) {
    products[i].finish(streams[i]);
    products[i].expect_right(fmt::format(", stream {}", i), streams[i]);
  }
}

}  // namespace
}  // namespace deep_gemm::test
