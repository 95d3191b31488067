// Many at once on one cold cache, through the calls that users make. (The store's own races: cache_test.cpp.)
#include <latch>
#include <thread>

#include <deep_gemm/gemm.h>

#include "context_impl.h"

#include "cache_fixture.h"

namespace deep_gemm::jit {
namespace {

class Concurrency : public Cache {
 protected:
  ContextOptions options() const { return {.cache_dirs = {directory().string()}, .compiler = CompilerChoice::nvcc}; }
  /// `work(i)` on `count` threads that start together.
  template <class Work>
  static void together(int count, const Work& work) {
    std::latch start(count);
    std::vector<std::jthread> threads;
    for (int i = 0; i < count; ++i)
      threads.emplace_back([&, i] {
        start.arrive_and_wait();
        work(i);
      });
  }
};

TEST_F(Concurrency, EightThreadsOneContextOneKernel) {
  nvcc_.set_delay("0.2");
  Context context({}, options());
  std::atomic<int> cold = 0;
  together(8, [&](int) { cold += !compile(context, GemmConfig{}).cached; });
  EXPECT_EQ(nvcc_.runs(), 1);
  EXPECT_GE(cold, 1);
  EXPECT_TRUE(compile(context, GemmConfig{}).cached);
}

TEST_F(Concurrency, EightContextsTwoKernels) {
  nvcc_.set_delay("0.1");
  together(8, [&](int i) {
    Context context({}, options());
    GemmConfig config;
    config.stages += i % 2;
    EXPECT_EQ(compile(context, config).registers, 40);
  });
  EXPECT_EQ(nvcc_.runs(), 2);
  EXPECT_EQ(files().size(), 2U);
}

// The thread that compiles fails: all of them hear it, and the next one tries again.
TEST_F(Concurrency, AFailureReachesEveryThread) {
  nvcc_.set_delay("0.2");
  nvcc_.set_fail(true);
  Context context({}, options());
  std::atomic<int> failures = 0;
  together(8, [&](int) {
    try {
      compile(context, GemmConfig{});
    } catch (const Error& e) {
      failures += e.code() == ErrorCode::compiler;
    }
  });
  EXPECT_EQ(failures, 8);
  EXPECT_LT(nvcc_.runs(), 8);
  nvcc_.set_fail(false);
  EXPECT_FALSE(compile(context, GemmConfig{}).cached);
}

// Contexts come and go while others work in the same directory.
TEST_F(Concurrency, ContextsComeAndGo) {
  together(8, [&](int i) {
    for (int j = 0; j < 6; ++j) {
      Context context({}, options());
      GemmConfig config;
      config.stages = 2 + (i + j) % 3;
      EXPECT_EQ(compile(context, config).compiler, "nvcc 13.0");
      if (i == 0) context.impl().store.remove_all();
    }
  });
  for (const std::string& file : files()) EXPECT_TRUE(file.ends_with(".dgk")) << file;
}

}  // namespace
}  // namespace deep_gemm::jit
