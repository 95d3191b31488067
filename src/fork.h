// fork() copies a process with one of its threads only: locks that the others held stay locked, work they were doing never
// ends. Who keeps state between calls asks here whether it is from before a fork.
#pragma once

namespace deep_gemm {

/// How many forks lie between this process and the one that loaded the library.
unsigned forks();

/// Lives while a thread is in the run-time compiler. That has locks of its own, which belong to the process, whichever
/// object of ours asked for the compiling.
class CompilerUse {
 public:
  CompilerUse();
  ~CompilerUse();
  CompilerUse(const CompilerUse&) = delete;
  CompilerUse& operator=(const CompilerUse&) = delete;
};
/// Whether this process, or one that it descends from, was forked during a CompilerUse: the compiler may wait for ever.
bool compiler_is_lost();

}  // namespace deep_gemm
