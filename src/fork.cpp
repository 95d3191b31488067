#include "fork.h"

#include <pthread.h>

#include <atomic>

namespace deep_gemm {
namespace {

std::atomic<unsigned> count = 0;
[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, [] { count.fetch_add(1, std::memory_order_relaxed); });

}  // namespace

unsigned forks() { return count.load(std::memory_order_relaxed); }

}  // namespace deep_gemm
