// fork() copies a process with one of its threads only: locks that the others held stay locked, work they were doing never
// ends. Who keeps state between calls asks here whether it is from before a fork.
#pragma once

namespace deep_gemm {

/// How many forks lie between this process and the one that loaded the library.
unsigned forks();

}  // namespace deep_gemm
