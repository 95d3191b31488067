// Work shared out over the cores.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <future>
#include <system_error>
#include <thread>
#include <vector>

namespace deep_gemm::cpu {

/// How many threads a job is worth: one a core, at most one a task, and none for less than `kOperationsPerThread`, which
/// take longer than starting a thread does.
inline int64_t thread_count(int64_t tasks, double operations) {
  constexpr double kOperationsPerThread = 1 << 20;
  const int64_t cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
  return std::clamp<int64_t>(static_cast<int64_t>(std::min(operations / kOperationsPerThread, 1e6)), 1,
                             std::min(cores, std::max<int64_t>(1, tasks)));
}

/// Calls `work(next)` on `threads` threads, this one included; `next()` numbers the tasks from 0 up, so each call works
/// until it gets a number beyond its last task. An exception of any of them is thrown here after all have ended.
template <class Work>
void run_workers(int64_t threads, const Work& work) {
  std::atomic<int64_t> counter = 0;
  const auto next = [&] { return counter.fetch_add(1, std::memory_order_relaxed); };
  std::vector<std::future<void>> others;
  try {
    for (int64_t i = 1; i < threads; ++i) others.push_back(std::async(std::launch::async, [&] { work(next); }));
  } catch (const std::system_error&) {
    // The system gives no more threads; those there are do the work.
  }
  work(next);
  for (auto& other : others) other.get();
}

/// Calls `f(i)` once for every i in [0, tasks), spread over the cores that `operations` are worth.
template <class F>
void parallel_for(int64_t tasks, double operations, const F& f) {
  run_workers(thread_count(tasks, operations), [&](const auto& next) {
    for (int64_t i = next(); i < tasks; i = next()) f(i);
  });
}

}  // namespace deep_gemm::cpu
