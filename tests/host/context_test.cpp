// What calls share: the map of plans and kernels, and one context for many threads.
#include "context_impl.h"

#include <gtest/gtest.h>

#include <chrono>
#include <latch>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "gemm/plan.h"

namespace deep_gemm {
namespace {

using IntMap = OnceMap<int, std::string, std::hash<int>>;

/// `work(thread)` on `count` threads that start together.
template <class Work>
void together(int count, Work&& work) {
  std::latch start(count);
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i)
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      work(i);
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(OnceMap, MakesAValueOnceForThreadsThatMissTogether) {
  IntMap map;
  std::atomic<int> made[10] = {};
  together(8, [&](int thread) {
    for (int i = 0; i < 10; ++i) {
      const int key = (i + thread) % 10;
      const std::string& value = map.get(key, [&] {
        std::this_thread::yield();
        ++made[key];
        return std::to_string(key);
      });
      EXPECT_EQ(value, std::to_string(key));
    }
  });
  for (const std::atomic<int>& count : made) EXPECT_EQ(count, 1);
}

TEST(OnceMap, ReferencesStayValidWhileItGrows) {
  IntMap map;
  const std::string& first = map.get(0, [] { return std::string(100, 'x'); });
  for (int key = 1; key < 1000; ++key) map.get(key, [] { return std::string("y"); });
  EXPECT_EQ(first, std::string(100, 'x'));
  EXPECT_EQ(&map.get(0, []() -> std::string { throw std::logic_error("made twice"); }), &first);
}

TEST(OnceMap, AnExceptionLeavesTheKeyMissing) {
  IntMap map;
  int tries = 0;
  for (int i = 0; i < 3; ++i) {
    EXPECT_THROW(map.get(7,
                         [&]() -> std::string {
                           ++tries;
                           throw std::runtime_error("no compiler");
                         }),
                 std::runtime_error);
  }
  EXPECT_EQ(tries, 3);
  EXPECT_EQ(map.get(7, [] { return std::string("made"); }), "made");
}

TEST(OnceMap, ThreadsThatWaitedTryThemselvesAfterAnException) {
  IntMap map;
  std::atomic<int> tries = 0, failures = 0;
  together(8, [&](int) {
    try {
      EXPECT_EQ(map.get(1,
                        [&]() -> std::string {
                          if (++tries <= 3) throw std::runtime_error("not yet");
                          return "made";
                        }),
                "made");
    } catch (const std::runtime_error&) {
      ++failures;
    }
  });
  EXPECT_EQ(failures, 3);
  EXPECT_EQ(tries, 4);
}

TEST(OnceMap, OtherKeysAreServedWhileOneIsMade) {
  IntMap map;
  map.get(1, [] { return std::string("one"); });
  const std::string& slow = map.get(2, [&] {
    // A compilation holds up nobody: neither hits nor misses of other keys, even from another thread.
    std::thread([&] {
      EXPECT_EQ(map.get(1, [] { return std::string("again"); }), "one");
      EXPECT_EQ(map.get(3, [] { return std::string("three"); }), "three");
    }).join();
    return std::string("two");
  });
  EXPECT_EQ(slow, "two");
}

TEST(Hashes, FollowEveryField) {
  std::set<std::size_t> hashes;
  const GemmConfig base{};
  std::vector<GemmConfig> configs = {base};
  const auto with = [&](auto change) {
    configs.push_back(base);
    change(configs.back());
  };
  with([](GemmConfig& c) { c.d_type = DType::f32; });
  with([](GemmConfig& c) { c.scaled_a = false; });
  with([](GemmConfig& c) { c.accumulate = true; });
  with([](GemmConfig& c) { c.tile_m = 64; });
  with([](GemmConfig& c) { c.tile_n = 64; });
  with([](GemmConfig& c) { c.stages = 5; });
  with([](GemmConfig& c) { c.cluster = 2; });
  with([](GemmConfig& c) { c.multicast = Multicast::a; });
  with([](GemmConfig& c) { c.unroll = 2; });
  with([](GemmConfig& c) { c.split_k = true; });
  with([](GemmConfig& c) { c.ctas_per_sm = 2; });
  with([](GemmConfig& c) { c.kept_blocks = 4; });
  with([](GemmConfig& c) { c.scale_rows_b = 1; });
  with([](GemmConfig& c) { c.a_type = DType::e5m2; });
  with([](GemmConfig& c) { c.b_type = DType::e5m2; });
  for (const GemmConfig& c : configs) {
    hashes.insert(ConfigHash()(c));
    EXPECT_EQ(ConfigHash()(c), ConfigHash()(GemmConfig(c)));
  }
  EXPECT_EQ(hashes.size(), configs.size());

  hashes.clear();
  std::size_t problems = 0;
  for (const int64_t m : {1, 2})
    for (const int64_t n : {1, 2})
      for (const int64_t k : {1, 2})
        for (const DType type : {DType::bf16, DType::f32})
          for (int flags = 0; flags < 128; ++flags)
            for (const int num_sms : {0, 1}) {
              const auto flag = [&](int bit) { return (flags >> bit & 1) != 0; };
              hashes.insert(ProblemHash()({.m = m,
                                           .n = n,
                                           .k = k,
                                           .d_type = type,
                                           .scaled_a = flag(0),
                                           .scaled_b = flag(1),
                                           .accumulate = flag(2),
                                           .a_type = flag(3) ? DType::e5m2 : DType::e4m3,
                                           .b_type = flag(4) ? DType::e5m2 : DType::e4m3,
                                           .scale_rows_b = flag(5) ? 1 : 128,
                                           .batch_invariant = flag(6),
                                           .num_sms = num_sms}));
              ++problems;
            }
  EXPECT_EQ(hashes.size(), problems);
}

TEST(Context, OnTheCpuOpensNoDriver) {
  const Context context;
  EXPECT_EQ(context.device(), (Device{DeviceType::cpu, 0}));
  EXPECT_EQ(context.impl().cuda, nullptr);
}

TEST(Context, EightThreadsPlanTheSameOnOneContext) {
  Context context;
  const auto problem = [](int i) { return Problem{.m = i + 1, .n = 4096, .k = 7168}; };
  together(8, [&](int) {
    for (int i = 0; i < 8; ++i) {
      const GemmPlan& shared =
          context.impl().plans.get(problem(i), [&] { return plan(problem(i), DeviceInfo::h100()); });
      EXPECT_EQ(shared.config, plan(problem(i), DeviceInfo::h100()).config);
    }
  });
}

TEST(Context, EightThreadsMultiplyOnOneContext) {
  constexpr int64_t kM = 33, kN = 130, kK = 200;
  Context context;
  // Ones and powers of two: sums are exact, so every thread knows its result to the bit.
  const std::vector<uint8_t> ones(kN * kK, 0x38);
  const std::vector<float> scale_b(2 * 2, 0.5f);
  together(8, [&](int thread) {
    const auto code = static_cast<uint8_t>(0x38 + 8 * (thread % 4));  // 1, 2, 4, 8
    const std::vector<uint8_t> a(kM * kK, code);
    const std::vector<float> scale_a(kM * 2, static_cast<float>(thread + 1));
    for (int repeat = 0; repeat < 5; ++repeat) {
      std::vector<float> d(kM * kN, -1);
      fp8_gemm_nt(context,
                  {TensorView::contiguous(a.data(), DType::e4m3, {kM, kK}),
                   TensorView::contiguous(scale_a.data(), DType::f32, {kM, 2})},
                  {TensorView::contiguous(ones.data(), DType::e4m3, {kN, kK}),
                   TensorView::contiguous(scale_b.data(), DType::f32, {2, 2})},
                  TensorView::contiguous(d.data(), DType::f32, {kM, kN}));
      const float expected = kK * static_cast<float>(1 << thread % 4) * static_cast<float>(thread + 1) * 0.5f;
      for (const float value : d) ASSERT_EQ(value, expected) << "thread " << thread;
    }
  });
}

}  // namespace
}  // namespace deep_gemm
