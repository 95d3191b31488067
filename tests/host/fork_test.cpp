// A process that forks: the child works or gets an error, and never hangs.
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "cache_fixture.h"

namespace deep_gemm::jit {
namespace {

using test::in_child;
constexpr unsigned kSeconds = 30;

class Fork : public Cache {
 protected:
  /// Until the stand-in compiler has been started `runs` times.
  void wait_for_runs(int runs) const {
    while (nvcc_.runs() < runs) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
};

TEST_F(Fork, ChildrenReadAndCompile) {
  const auto s = store();
  s->get(kSource);
  EXPECT_EQ(in_child(
                [&] {
                  if (!s->get(kSource).cached) return 1;
                  if (s->get({"other_kernel", "// other\n"}).cached) return 2;
                  if (!s->get({"other_kernel", "// other\n"}).cached) return 3;
                  // And a child of the child.
                  return in_child([&] { return s->get({"third_kernel", "// third\n"}).cached ? 4 : 0; }, kSeconds);
                },
                kSeconds),
            0);
  EXPECT_TRUE(s->get({"other_kernel", "// other\n"}).cached);
  EXPECT_TRUE(s->get({"third_kernel", "// third\n"}).cached);
}

// Forked while another thread compiles: the child has neither that thread nor a right to its locks.
TEST_F(Fork, WhileAThreadCompiles) {
  const KernelSource known{"known_kernel", "// known\n"};
  auto s = store();
  s->get(known);
  nvcc_.set_delay("1");
  std::thread compiling([&] { s->get(kSource); });
  wait_for_runs(2);
  EXPECT_EQ(in_child(
                [&] {
                  if (!s->get(known).cached) return 1;
                  // The parent's thread is making this one: the child waits for its lock on the disk, then reads it.
                  if (!s->get(kSource).cached) return 2;
                  try {
                    s->get({"unknown_kernel", "// unknown\n"});
                    return 3;
                  } catch (const Error& e) {
                    if (e.code() != ErrorCode::unavailable) return 4;
                    if (std::string(e.what()).find("forked while another thread was compiling") == std::string::npos)
                      return 5;
                  }
                  if (s->remove_all().entries != 2) return 6;
                  s.reset();
                  return 0;
                },
                kSeconds),
            0);
  compiling.join();
  EXPECT_EQ(nvcc_.runs(), 2);
}

// The compiler's locks are the process's, not those of the store that compiled.
TEST_F(Fork, WhileAThreadCompilesForAnotherStore) {
  const auto other = store({"other"});
  nvcc_.set_delay("1");
  std::thread compiling([&] { store()->get(kSource); });
  wait_for_runs(1);
  const auto refused = [&] {
    try {
      other->get(kSource);
      return false;
    } catch (const Error& e) {
      return e.code() == ErrorCode::unavailable &&
             std::string(e.what()).find("forked while another thread was compiling") != std::string::npos;
    }
  };
  EXPECT_EQ(in_child(
                [&] {
                  if (!refused()) return 1;
                  return in_child([&] { return refused() ? 0 : 2; }, kSeconds);  // and so it is in its own children
                },
                kSeconds),
            0);
  compiling.join();
  EXPECT_FALSE(other->get(kSource).cached);
  EXPECT_EQ(in_child([&] { return other->get({"later", "// later\n"}).cached ? 1 : 0; }, kSeconds), 0);
}

// To see whether an old entry is to be built again, the compiler is opened, which takes its locks and the loader's.
TEST_F(Fork, WhileAThreadOpensTheCompiler) {
  nvcc_.set_version("12.4");
  store()->get(kSource);
  const fs::path slow = directory("slow"), opened = directory("opened");
  write_text(slow, "#!/bin/sh\ntouch " + opened.string() + "\nsleep 1\nexec " + nvcc_.path().string() + " \"$@\"\n");
  chmod(slow.c_str(), 0755);
  const ScopedEnv compiler("DG_JIT_NVCC_COMPILER", slow.c_str());
  std::thread opening([&] { EXPECT_TRUE(store()->get(kSource).cached); });
  while (!fs::exists(opened)) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_EQ(in_child(
                [&] {
                  if (!store()->get(kSource).cached) return 1;  // an old kernel is better than none
                  try {
                    store()->get({"unknown_kernel", "// unknown\n"});
                    return 2;
                  } catch (const Error& e) {
                    return e.code() == ErrorCode::unavailable ? 0 : 3;
                  }
                },
                kSeconds),
            0);
  opening.join();
}

// The child keeps the parent's lock file open, but not the lock.
TEST_F(Fork, AChildThatLivesOnHoldsNoLock) {
  nvcc_.set_delay("0.3");
  const auto s = store();
  std::thread compiling([&] { s->get(kSource); });
  wait_for_runs(1);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    alarm(kSeconds);
    close(ends[1]);
    char byte;
    _exit(read(ends[0], &byte, 1) == 0 ? 0 : 1);  // until the parent closes its end
  }
  close(ends[0]);
  std::thread waiting([&] { EXPECT_TRUE(store()->get(kSource).cached); });
  compiling.join();
  const auto start = std::chrono::steady_clock::now();
  waiting.join();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  close(ends[1]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(nvcc_.runs(), 1);
}

TEST(ForkCpu, ProductsInTheChildOfABusyProcess) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "NOT TESTED: THREADSANITIZER KNOWS NO THREADS IN A CHILD THAT A PROCESS WITH THREADS FORKED";
#elif defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "NOT TESTED: ADDRESSSANITIZER'S OWN LOCKS STAY TAKEN IN THE CHILD WHERE ANOTHER THREAD HELD THEM";
#endif
  constexpr int64_t kM = 200, kN = 130, kK = 260;
  Context context;
  const std::vector<uint8_t> ones(kN * kK + kM * kK, 0x38);
  const auto multiply = [&] {
    std::vector<float> d(kM * kN);
    fp8_gemm_nt(context, {TensorView::contiguous(ones.data(), DType::e4m3, {kM, kK})},
                {TensorView::contiguous(ones.data(), DType::e4m3, {kN, kK})},
                TensorView::contiguous(d.data(), DType::f32, {kM, kN}));
    return std::ranges::all_of(d, [&](float value) { return value == static_cast<float>(kK); });
  };
  std::atomic<bool> stop = false;
  std::vector<std::jthread> busy;
  for (int i = 0; i < 3; ++i)
    busy.emplace_back([&] {
      while (!stop) EXPECT_TRUE(multiply());
    });
  for (int i = 0; i < 5; ++i) EXPECT_EQ(in_child([&] { return multiply() ? 0 : 1; }, kSeconds), 0);
  stop = true;
}

}  // namespace
}  // namespace deep_gemm::jit
