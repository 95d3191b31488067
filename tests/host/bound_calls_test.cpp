// Calls that come again: the same launch as the first time, and only where every argument is the same.
#include "gemm/bound_calls.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <latch>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "child_process.h"
#include "fake_driver.h"
#include "fake_nvcc.h"
#include "gemm/check.h"

namespace deep_gemm {
namespace {

constexpr Device kGpu{DeviceType::cuda, 0};

void* address(std::uintptr_t value) { return reinterpret_cast<void*>(value); }

TensorView view(std::uintptr_t at, DType dtype, std::initializer_list<int64_t> shape) {
  return TensorView::contiguous(address(at), dtype, shape, kGpu);
}

/// Scales as TMA reads them.
TensorView aligned(std::uintptr_t at, int64_t rows, int64_t blocks) {
  TensorView t = view(at, DType::f32, {rows, blocks});
  t.strides = {1, tma_aligned_rows(rows)};
  return t;
}

/// 64 × 512 · (512 × 512)ᵀ, at addresses that nothing looks at.
struct Dense {
  Fp8Tensor a{view(0x10000, DType::e4m3, {64, 512}), aligned(0x20000, 64, 4)};
  Fp8Tensor b{view(0x30000, DType::e4m3, {512, 512}), view(0x90000, DType::f32, {4, 4})};
  TensorView d = view(0xA0000, DType::bf16, {64, 512});
  GemmOptions options{};
};

struct Grouped {
  Layout layout = Layout::contiguous;
  Fp8Tensor a{view(0x10000, DType::e4m3, {256, 512}), aligned(0x40000, 256, 4)};
  Fp8Tensor b{view(0x100000, DType::e4m3, {2, 512, 512}), view(0x90000, DType::f32, {2, 4, 4})};
  TensorView d = view(0xA0000, DType::bf16, {256, 512});
  TensorView groups_of = view(0x50000, DType::i32, {256});
  int64_t expected_m = 0;
  GroupedOptions options{};

  explicit Grouped(Layout which) : layout(which) {
    if (layout != Layout::contiguous) groups_of.shape[0] = 2;
    if (layout != Layout::masked) return;
    a.data = view(0x10000, DType::e4m3, {2, 128, 512});
    a.scale = view(0x40000, DType::f32, {2, 128, 4});
    a.scale.strides = {512, 1, 128};
    d = view(0xA0000, DType::bf16, {2, 128, 512});
  }
};

void run(Context& context, const Dense& c) { fp8_gemm_nt(context, c.a, c.b, c.d, c.options); }
void run(Context& context, const Grouped& c) {
  if (c.layout == Layout::contiguous) m_grouped_fp8_gemm_nt_contiguous(context, c.a, c.b, c.d, c.groups_of, c.options);
  if (c.layout == Layout::offsets) m_grouped_fp8_gemm_nt_offsets(context, c.a, c.b, c.d, c.groups_of, c.options);
  if (c.layout == Layout::masked)
    m_grouped_fp8_gemm_nt_masked(context, c.a, c.b, c.d, c.groups_of, c.expected_m, c.options);
}

/// The arguments of a product's launch, without what happens to lie between the fields.
std::string bytes_of(void** params) {
  std::string bytes(static_cast<const char*>(params[0]), sizeof(GemmArgs));
  const auto clear = [&](std::size_t from, std::size_t to) { bytes.replace(from, to - from, to - from, '\0'); };
  constexpr std::size_t kWork = offsetof(GemmArgs, work);
  clear(offsetof(GemmArgs, in_place) + sizeof(bool), kWork);
  clear(kWork + offsetof(Work, zero_padding) + sizeof(bool), kWork + offsetof(Work, layout));
  clear(offsetof(GemmArgs, tma_cols) + sizeof(uint32_t), sizeof(GemmArgs));
  return bytes;
}

// Of the fake driver's last launch.
std::string last_args;

/// What the driver heard of a call: the launch (context, cluster, grid, stream …), the kernel's arguments, and how many
/// tensor maps were encoded for it, which is 0 for a call that was bound before.
struct Heard {
  std::string launch{}, args{};
  int encoded = 0;
};

/// A compiler that compiles nothing, and a cache of what it made.
struct Compiler {
  test::FakeNvcc nvcc;
  test::ScopedEnv environment{"DG_JIT_NVCC_COMPILER", nvcc.path().c_str()};
  jit::TemporaryDirectory cache;
};

/// A GPU's context.
class Gpu {
 public:
  Gpu() {
    static const Compiler compiler;
    context_ = std::make_unique<Context>(
        kGpu, ContextOptions{.cache_dirs = {compiler.cache.path().string()}, .compiler = CompilerChoice::nvcc});
    *static_cast<void (**)(void**)>(test::fake_symbol("fake_driver_on_launch")) = [](void** params) {
      last_args = bytes_of(params);
    };
  }
  Context& context() { return *context_; }
  void destroy_context() { context_.reset(); }

  template <class AnyCall>
  Heard hear(const AnyCall& call) {
    test::fake_log();
    run(*context_, call);
    Heard heard{.args = last_args};
    std::string log = test::fake_log();
    for (std::size_t end; (end = log.find('\n')) != std::string::npos; log.erase(0, end + 1)) {
      const std::string line = log.substr(0, end + 1);
      heard.encoded += line.starts_with("cuTensorMapEncodeTiled");
      for (const char* part : {"cuCtx", "params", "cluster", "programmatic", "cuLaunch"})
        if (line.starts_with(part)) heard.launch += line;
    }
    return heard;
  }

 private:
  std::unique_ptr<Context> context_;
};

/// A call twice on one context, and once on another, where it is the first.
template <class AnyCall>
void expect_same_again(const AnyCall& call) {
  Gpu gpu, other;
  const Heard cold = gpu.hear(call), again = gpu.hear(call), elsewhere = other.hear(call);
  EXPECT_GE(cold.encoded, 3);
  EXPECT_EQ(again.encoded, 0);
  EXPECT_EQ(elsewhere.encoded, cold.encoded);
  EXPECT_NE(cold.launch.find("cuCtxPushCurrent 192\n"), std::string::npos) << cold.launch;
  EXPECT_NE(cold.launch.find("cuLaunchKernelEx"), std::string::npos) << cold.launch;
  for (const Heard& heard : {again, elsewhere}) {
    EXPECT_EQ(heard.launch, cold.launch);
    EXPECT_EQ(heard.args, cold.args) << "the kernel's arguments differ";
  }
}

template <class Function>
std::string error_of(Function&& function) {
  try {
    function();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(BoundCalls, AreFoundByEveryFieldOfTheCall) {
  const Grouped grouped(Layout::masked);
  const GroupedOptions options{
      .num_sms = 100, .workspace = view(0x60000, DType::f32, {100}), .alignment = 8, .config = GemmConfig{}};
  Call base(Layout::masked, grouped.a, grouped.b, grouped.d, grouped.groups_of, 3, options);
  base.c = view(0xB0000, DType::bf16, {2, 128, 512});
  BoundCalls calls;
  calls.keep(base, {});
  ASSERT_TRUE(calls.find(base));
  int changes = 0;
  const auto expect_other = [&](const std::function<void(Call&)>& change) {
    Call other = base;
    change(other);
    EXPECT_FALSE(calls.find(other)) << "change " << changes;
    EXPECT_TRUE(calls.find(base));
    ++changes;
  };
  using View = TensorView& (*)(Call&);
  for (const View of :
       {View([](Call& c) -> TensorView& { return c.a.data; }), View([](Call& c) -> TensorView& { return c.a.scale; }),
        View([](Call& c) -> TensorView& { return c.b.data; }), View([](Call& c) -> TensorView& { return c.b.scale; }),
        View([](Call& c) -> TensorView& { return c.d; }), View([](Call& c) -> TensorView& { return *c.c; }),
        View([](Call& c) -> TensorView& { return c.group_rows.tensor; }),
        View([](Call& c) -> TensorView& { return c.workspace; })}) {
    expect_other([&](Call& c) { of(c).data = address(0xF0000); });
    expect_other([&](Call& c) { of(c).dtype = DType::f16; });
    expect_other([&](Call& c) { of(c).rank = 0; });
    expect_other([&](Call& c) { of(c).device.type = DeviceType::cpu; });
    expect_other([&](Call& c) { of(c).device.index = 1; });
    for (std::size_t dim = 0; dim < TensorView::kMaxRank; ++dim) {
      expect_other([&](Call& c) { of(c).shape[dim] += 16; });
      expect_other([&](Call& c) { of(c).strides[dim] += 16; });
    }
  }
  expect_other([](Call& c) { c.layout = Layout::dense; });
  expect_other([](Call& c) { c.c.reset(); });
  expect_other([](Call& c) { c.group_rows.alignment = 16; });
  expect_other([](Call& c) { c.group_rows.zero_padding = true; });
  expect_other([](Call& c) { c.expected_m = 4; });
  expect_other([](Call& c) { c.recipe.rows_a = 128; });
  expect_other([](Call& c) { c.recipe.rows_b = 1; });
  expect_other([](Call& c) { c.recipe.cols = 64; });
  expect_other([](Call& c) { c.num_sms = 0; });
  expect_other([](Call& c) { c.batch_invariant = true; });
  expect_other([](Call& c) { c.programmatic = true; });
  expect_other([](Call& c) { c.weights_are_constant = true; });
  expect_other([](Call& c) { c.config.reset(); });
  expect_other([](Call& c) { c.config->scaled_a = false; });
  expect_other([](Call& c) { c.config->unroll = 2; });
  EXPECT_EQ(changes, 8 * 11 + 15);
}

Call numbered(std::uintptr_t number) {
  return {Layout::dense, {}, {}, view(0x1000 + number * 256, DType::bf16, {1, 1}), GemmOptions{}};
}

BoundCall marked(std::uintptr_t number) {
  BoundCall bound{};
  bound.args.d_data = address(number);
  return bound;
}

TEST(BoundCalls, NewOnesReplaceOldOnes) {
  constexpr std::uintptr_t kAll = BoundCalls::kSets * BoundCalls::kWays;
  BoundCalls calls;
  for (std::uintptr_t i = 0; i < 8 * kAll; ++i) {
    calls.keep(numbered(i), marked(i));
    ASSERT_TRUE(calls.find(numbered(i)));
  }
  std::uintptr_t kept = 0;
  for (std::uintptr_t i = 0; i < 8 * kAll; ++i)
    if (const std::optional<BoundCall> found = calls.find(numbered(i))) {
      EXPECT_EQ(found->args.d_data, address(i));
      ++kept;
    }
  EXPECT_LE(kept, kAll);
  EXPECT_GE(kept, kAll / 2) << "sets are used unevenly";
}

TEST(BoundCalls, TheOldestOfASetGoesFirst) {
  std::vector<Call> of_one_set;
  for (std::uintptr_t i = 0; of_one_set.size() < BoundCalls::kWays + 1; ++i)
    if (numbered(i).hash() % BoundCalls::kSets == 0) of_one_set.push_back(numbered(i));
  BoundCalls calls;
  for (std::size_t i = 0; i < BoundCalls::kWays; ++i) {
    calls.keep(of_one_set[i], {});
    calls.keep(of_one_set[i], {});  // takes no second place
  }
  for (std::size_t i = 0; i < BoundCalls::kWays; ++i) EXPECT_TRUE(calls.find(of_one_set[i])) << i;
  calls.keep(of_one_set.back(), {});
  EXPECT_FALSE(calls.find(of_one_set[0]));
  for (std::size_t i = 1; i < of_one_set.size(); ++i) EXPECT_TRUE(calls.find(of_one_set[i])) << i;
}

// The tests below run in processes of their own, on the fake driver.

DG_FAKE_DRIVER_TEST(BoundCalls, LaunchTheSameAgain) {
  expect_same_again(Dense());
  Dense with_c;
  with_c.options.c = view(0xB0000, DType::bf16, {64, 512});
  expect_same_again(with_c);
  Dense invariant;
  invariant.options = {
      .num_sms = 60, .batch_invariant = true, .programmatic_launch = true, .weights_are_constant = true};
  expect_same_again(invariant);
  Dense rows_of_b;
  rows_of_b.b.scale = aligned(0x90000, 512, 4);
  rows_of_b.options.recipe = {1, 1, 128};
  expect_same_again(rows_of_b);
  Dense chosen;
  chosen.options.config = GemmConfig{.tile_m = 64};
  chosen.options.workspace = view(0x60000, DType::f32, {100});
  expect_same_again(chosen);
  for (const Layout layout : {Layout::contiguous, Layout::offsets, Layout::masked}) expect_same_again(Grouped(layout));
}

DG_FAKE_DRIVER_TEST(BoundCalls, TheStreamIsThatOfEachCall) {
  Gpu gpu;
  Dense call;
  const Heard cold = gpu.hear(call);
  call.options.stream.handle = address(0x1234);
  const Heard again = gpu.hear(call);
  EXPECT_EQ(again.encoded, 0);
  EXPECT_EQ(again.args, cold.args);
  EXPECT_NE(again.launch, cold.launch);
  EXPECT_NE(again.launch.find(" 4660 "), std::string::npos) << again.launch;
}

/// After `base` has been made, a change makes a call of its own, the one that it is on a context that never saw `base`.
template <class AnyCall>
void expect_others(const AnyCall& base, const std::vector<std::function<void(AnyCall&)>>& changes) {
  Gpu gpu;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    gpu.hear(base);
    AnyCall other = base;
    changes[i](other);
    const Heard first = gpu.hear(other), again = gpu.hear(other), elsewhere = Gpu().hear(other);
    EXPECT_GT(first.encoded, 0) << "change " << i;
    EXPECT_EQ(first.args, elsewhere.args) << "change " << i;
    EXPECT_EQ(first.launch, elsewhere.launch) << "change " << i;
    EXPECT_EQ(again.args, elsewhere.args) << "change " << i;
    EXPECT_EQ(again.launch, elsewhere.launch) << "change " << i;
    EXPECT_EQ(again.encoded, 0) << "change " << i;
  }
}

DG_FAKE_DRIVER_TEST(BoundCalls, OtherArgumentsAreOtherCalls) {
  // Who adds an option adds it to Call as well and, below, to what makes another call.
  {
    [[maybe_unused]] const auto& [stream, c, recipe, num_sms, batch_invariant, programmatic, constant, workspace,
                                  config] = GemmOptions{};
  }
  {
    [[maybe_unused]] const auto& [stream, num_sms, programmatic, batch_invariant, constant, workspace, alignment,
                                  zero_padding, config] = GroupedOptions{};
  }
  expect_others<Dense>({}, {[](Dense& c) { c.a.data.data = address(0x18000); },
                            [](Dense& c) { c.a.data.dtype = DType::e5m2; },
                            [](Dense& c) { c.a.data.strides[0] = 1024; },
                            [](Dense& c) { c.a.scale.data = address(0x28000); },
                            [](Dense& c) { c.a.scale.strides[1] = 128; },
                            [](Dense& c) { c.a.scale = {}; },
                            [](Dense& c) { c.b.data.data = address(0x38000); },
                            [](Dense& c) { c.b.data.dtype = DType::e5m2; },
                            [](Dense& c) { c.b.data.strides[0] = 1024; },
                            [](Dense& c) { c.b.scale.data = address(0x98000); },
                            [](Dense& c) {
                              c.b.scale.strides = {1, 4};
                            },
                            [](Dense& c) { c.b.scale = {}; },
                            [](Dense& c) { c.d.data = address(0xA8000); },
                            [](Dense& c) { c.d.dtype = DType::f32; },
                            [](Dense& c) { c.d.strides[0] = 1024; },
                            [](Dense& c) {
                              c.options.c = view(0xB0000, DType::bf16, {64, 512});
                            },
                            [](Dense& c) { c.options.c = c.d; },
                            [](Dense& c) { c.options.num_sms = 5; },
                            [](Dense& c) { c.options.batch_invariant = true; },
                            [](Dense& c) { c.options.programmatic_launch = true; },
                            [](Dense& c) { c.options.programmatic_launch = c.options.weights_are_constant = true; },
                            [](Dense& c) { c.options.config = GemmConfig{.tile_m = 64, .tile_n = 32}; },
                            [](Dense& c) { c.a.data.shape[0] = c.a.scale.shape[0] = c.d.shape[0] = 32; },
                            [](Dense& c) {
                              c.b.data.shape[0] = c.d.shape[1] = 384;
                              c.b.scale.shape[0] = 3;
                            },
                            [](Dense& c) {
                              c.a.data.shape[1] = c.b.data.shape[1] = 384;
                              c.a.scale.shape[1] = c.b.scale.shape[1] = 3;
                            }});
  expect_others<Grouped>(
      Grouped(Layout::offsets),
      {[](Grouped& c) { c.groups_of.data = address(0x58000); }, [](Grouped& c) { c.options.alignment = 8; },
       [](Grouped& c) { c.options.zero_padding = true; }, [](Grouped& c) { c.options.num_sms = 5; }});
  // The same tensors and sizes in another layout, and another plan.
  Grouped all_rows(Layout::contiguous);
  all_rows.groups_of = view(0x50000, DType::i32, {256});
  expect_others<Grouped>(all_rows, {[](Grouped& c) {
                           c.layout = Layout::offsets;
                           c.groups_of.shape[0] = 2;
                         }});
  expect_others<Grouped>(Grouped(Layout::masked), {[](Grouped& c) { c.expected_m = 1; }});
}

DG_FAKE_DRIVER_TEST(BoundCalls, WhatFailedIsNotKept) {
  Gpu gpu;
  Dense call;
  gpu.hear(call);
  // A wrong argument beside a call that is kept.
  Dense wrong = call;
  wrong.options.c = TensorView{};
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(error_of([&] { gpu.hear(wrong); }), "fp8_gemm_nt: c has 0 dimensions, expected 2");
  wrong = call;
  wrong.d.shape[0] = 63;
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(error_of([&] { gpu.hear(wrong); }), "fp8_gemm_nt: d is [63, 512], expected [64, 512] = [m, n]");
  Grouped negative(Layout::masked);
  gpu.hear(negative);
  negative.expected_m = -1;
  EXPECT_NE(error_of([&] { gpu.hear(negative); }), "no error");
  // A driver that refuses.
  for (const char* function : {"cuTensorMapEncodeTiled", "cuLaunchKernelEx"}) {
    call.d.data = address(0xC0000);
    for (int i = 0; i < 2; ++i) {
      const test::ScopedEnv failing("FAKE_FAIL", function);
      test::fake_log();
      EXPECT_NE(error_of([&] { gpu.hear(call); }).find(function), std::string::npos);
      EXPECT_NE(test::fake_log().find("cuTensorMapEncodeTiled"), std::string::npos) << "kept after an error";
    }
  }
  EXPECT_GT(gpu.hear(call).encoded, 0);
  EXPECT_EQ(gpu.hear(call).encoded, 0);
  // The launch of a kept call may fail as well.
  {
    const test::ScopedEnv failing("FAKE_FAIL", "cuLaunchKernelEx");
    EXPECT_NE(error_of([&] { gpu.hear(call); }).find("cuLaunchKernelEx"), std::string::npos);
  }
  EXPECT_EQ(gpu.hear(call).encoded, 0);
}

// The memory of transposed scales is another one each time.
DG_FAKE_DRIVER_TEST(BoundCalls, TransposedScalesAreNotKept) {
  Gpu gpu;
  Dense call;
  call.a.scale = view(0x20000, DType::f32, {64, 4});
  for (int i = 0; i < 3; ++i) EXPECT_GT(gpu.hear(call).encoded, 0);
  call.options.workspace = view(0x60000, DType::f32, {256});
  for (int i = 0; i < 3; ++i) EXPECT_GT(gpu.hear(call).encoded, 0);
}

DG_FAKE_DRIVER_TEST(BoundCalls, AfterForkTheyAreAnError) {
  Gpu gpu;
  const Dense call;
  gpu.hear(call);
  EXPECT_EQ(gpu.hear(call).encoded, 0);
  EXPECT_EQ(test::in_child(
                [&] {
                  const std::string error = error_of([&] { run(gpu.context(), call); });
                  return error.find("before this process was forked") == std::string::npos ? 1 : 0;
                },
                30),
            0);
  EXPECT_EQ(gpu.hear(call).encoded, 0);
}

DG_FAKE_DRIVER_TEST(BoundCalls, KernelsAreUnloadedWithTheContext) {
  Gpu gpu;
  gpu.hear(Dense());
  gpu.destroy_context();
  const std::string log = test::fake_log();
  const std::size_t unloaded = log.find("cuModuleUnload 208 192\n");
  EXPECT_NE(unloaded, std::string::npos) << log;
  EXPECT_LT(unloaded, log.find("cuDevicePrimaryCtxRelease 0\n")) << log;
}

// Each launch carries the arguments of a call that was made, and each call makes one.
DG_FAKE_DRIVER_TEST(BoundCalls, EightThreadsOneContext) {
  constexpr int kThreads = 8, kCalls = 300, kOwn = 40;
  const auto call_to = [](std::uintptr_t d) {
    Dense call;
    call.d.data = address(0x1000000 + d * 0x10000);
    return call;
  };
  std::map<const void*, std::string> expected;
  Gpu gpu;
  for (std::uintptr_t d = 0; d <= kThreads * kOwn; ++d) expected[call_to(d).d.data] = gpu.hear(call_to(d)).args;
  static std::mutex mutex;
  static std::vector<std::string> launched;
  *static_cast<void (**)(void**)>(test::fake_symbol("fake_driver_on_launch")) = [](void** params) {
    const std::scoped_lock lock(mutex);
    launched.push_back(bytes_of(params));
  };
  std::latch start(kThreads);
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < kThreads; ++thread)
    threads.emplace_back([&, thread] {
      start.arrive_and_wait();
      for (int i = 0; i < kCalls; ++i) {
        // One that all of them make, and more of its own than fit together with those of the others.
        run(gpu.context(), call_to(0));
        run(gpu.context(), call_to(static_cast<std::uintptr_t>(1 + thread * kOwn + i % kOwn)));
      }
    });
  threads.clear();
  EXPECT_EQ(launched.size(), static_cast<std::size_t>(kThreads) * kCalls * 2);
  std::map<const void*, int> count;
  for (const std::string& args : launched) {
    GemmArgs read;
    std::memcpy(static_cast<void*>(&read), args.data(), sizeof read);
    ++count[read.d_data];
    ASSERT_EQ(args, expected.at(read.d_data));
  }
  EXPECT_EQ(count[call_to(0).d.data], kThreads * kCalls);
  EXPECT_EQ(count.size(), expected.size());
}

}  // namespace
}  // namespace deep_gemm
