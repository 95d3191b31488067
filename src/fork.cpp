#include "fork.h"

#include <pthread.h>

#include <atomic>

namespace deep_gemm {
namespace {

std::atomic<unsigned> count = 0;
std::atomic<int> compiling = 0;
std::atomic<bool> lost = false;

// In the child, before anything else runs there.
void note_fork() {
  count.fetch_add(1, std::memory_order_relaxed);
  if (compiling != 0) lost = true;
}
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, note_fork);

}  // namespace

unsigned forks() { return count.load(std::memory_order_relaxed); }

CompilerUse::CompilerUse() { compiling += 1; }
CompilerUse::~CompilerUse() { compiling -= 1; }
bool compiler_is_lost() { return lost; }

}  // namespace deep_gemm
