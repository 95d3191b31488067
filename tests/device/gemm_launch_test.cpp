// How calls are enqueued: streams, graph capture, programmatic dependent launch, a limited number of SMs.
#include "gemm_support.h"

namespace deep_gemm::test {
namespace {

class GemmLaunchTest : public BackendTest {
 protected:
  GemmLaunchTest() : BackendTest(DeviceType::cuda) {}
};

/// Other operands in the same memory.
void change(Product& product, uint64_t seed) {
  Random random(seed);
  fill_fp8(product.a(), random);
  fill_fp8(product.b(), random);
  fill_scales(product.scale_a(), 0x1p-6f, random);
  fill_scales(product.scale_b(), 0x1p-8f, random);
}

TEST_F(GemmLaunchTest, GraphsReplayWithChangedInputs) {
  for (const ScaleLayout scales : {ScaleLayout::mn_aligned, ScaleLayout::k_major})  // without scratch memory, and with
    for (const Accumulate accumulate : {Accumulate::no, Accumulate::in_place})
      for (const int64_t m : {int64_t{7}, int64_t{300}}) {
        const cuda::OwnedStream stream;
        Product product(context(), {.m = m, .n = 520, .k = 700, .scale_a = scales, .accumulate = accumulate});
        const GemmOptions options{.stream = stream};
        product.check(options);  // compiles: nothing may be loaded during a capture
        cuda::begin_capture(stream);
        product.call(options);
        const cuda::Graph graph(stream);
        for (uint64_t replay = 1; replay <= 3; ++replay) {
          change(product, replay);
          product.prepare();
          graph.launch(stream);
          product.finish(stream);
          product.expect_right(fmt::format(", replay {}", replay), stream);
        }
      }
}

TEST_F(GemmLaunchTest, TwoStreamsAtOnce) {
  const cuda::OwnedStream streams[2];
  // Both need scratch memory, so that sharing it between the streams would show. The first is long, the second short.
  Product products[2] = {Product(context(), {.m = 1000, .n = 2113, .k = 2000, .scale_a = ScaleLayout::k_major}),
                         Product(context(), {.m = 65, .n = 300, .k = 7168, .scale_a = ScaleLayout::spread, .seed = 2})};
  for (std::size_t i = 0; i < 2; ++i) products[i].check({.stream = streams[i]});
  for (Product& product : products) product.prepare();
  for (int repeat = 0; repeat < (is_fast() ? 20 : 1); ++repeat)
    for (std::size_t i = 0; i < 2; ++i) products[i].call({.stream = streams[i]});
  for (std::size_t i = 0; i < 2; ++i) {
    products[i].finish(streams[i]);
    products[i].expect_right(fmt::format(", stream {}", i), streams[i]);
  }
}

/// D2 = quantised(A·Bᵀ) · Wᵀ, then D3 = D3 + A·Bᵀ many times: each call reads what the one before wrote.
std::vector<std::byte> run_chain(Context& context, bool programmatic, Stream stream) {
  // B is written by none of the launches.
  const GemmOptions options{
      .stream = stream, .programmatic_launch = programmatic, .weights_are_constant = programmatic};
  Product first(context, {.m = 300, .n = 512, .k = 700, .seed = 3});
  Product second(context, {.m = 300, .n = 200, .k = 512, .seed = 4});
  Product sums(context, {.m = 300, .n = 512, .k = 257, .accumulate = Accumulate::in_place, .seed = 5});
  Product copies(context, {.m = 300, .n = 512, .k = 257, .accumulate = Accumulate::out_of_place, .seed = 6});
  for (Product* product : {&first, &second, &sums, &copies}) product->prepare();
  for (int repeat = 0; repeat < 10; ++repeat) {
    first.call(options);
    quantize_1x128(context, first.d().view(), second.tensor_a(), {.stream = stream});
    second.call(options);
    sums.call(options);
    GemmOptions copy = options;  // C is what the launch just before writes
    copy.c = sums.d().view();
    fp8_gemm_nt(context, copies.tensor_a(), copies.tensor_b(), copies.d().view(), copy);
  }
  std::vector<std::byte> all;
  for (Product* product : {&first, &second, &sums, &copies}) {
    product->finish(stream);
    all.insert(all.end(), product->d().bytes().begin(), product->d().bytes().end());
  }
  first.expect_right(", first of a chain", stream);
  second.a().download(), second.scale_a().download();
  second.expect_right(", second of a chain", stream);
  return all;
}

TEST_F(GemmLaunchTest, ProgrammaticLaunchesWaitForTheirInputs) {
  const cuda::OwnedStream stream;
  const std::vector<std::byte> expected = run_chain(context(), false, stream);
  for (int repeat = 0; repeat < 5; ++repeat)
    EXPECT_TRUE(run_chain(context(), true, stream) == expected) << "repeat " << repeat << " of the programmatic chain";
}

TEST_F(GemmLaunchTest, GraphsOfProgrammaticLaunchesReplay) {
  const cuda::OwnedStream stream;
  Product sums(context(), {.m = 300, .n = 512, .k = 700, .accumulate = Accumulate::in_place});
  const auto add_three_times = [&](const GemmOptions& options) {
    for (int i = 0; i < 3; ++i) sums.call(options);
  };
  sums.prepare();
  add_three_times({.stream = stream});
  sums.finish(stream);
  const std::vector<std::byte> expected = sums.d().bytes();
  cuda::begin_capture(stream);
  add_three_times({.stream = stream, .programmatic_launch = true});
  const cuda::Graph graph(stream);
  for (int replay = 0; replay < 3; ++replay) {
    sums.prepare();
    graph.launch(stream);
    sums.finish(stream);
    EXPECT_TRUE(sums.d().bytes() == expected) << "replay " << replay;
  }
}

TEST_F(GemmLaunchTest, FewSms) {
  std::vector<Case> cases;
  std::vector<GemmConfig> configs;
  for (const int64_t m : {int64_t{1}, int64_t{130}, int64_t{1025}})
    cases.push_back({.m = m, .n = 520, .k = 700, .scale_a = ScaleLayout::k_major});
  constexpr int kCounts[] = {1, 7, 66, 132, 1000};
  for (const Case& c : cases)
    for (const int num_sms : kCounts) {
      Problem problem = c.problem();
      problem.num_sms = num_sms;
      configs.push_back(plan(problem, context().impl().plan_device).config);
    }
  compile_ahead(context(), configs);
  for (const Case& c : cases)
    for (const int num_sms : kCounts) Product(context(), c).check({.num_sms = num_sms});
}

}  // namespace
}  // namespace deep_gemm::test
