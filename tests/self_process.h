// Runs one disabled test of this program in a process of its own, with its own environment.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "jit/process.h"

namespace deep_gemm::test {

inline std::vector<std::string> self_command(const std::string& test,
                                             const std::vector<std::string>& environment = {}) {
  std::vector<std::string> argv{"/usr/bin/env"};
  argv.insert(argv.end(), environment.begin(), environment.end());
  argv.insert(argv.end(), {std::filesystem::read_symlink("/proc/self/exe").string(), "--gtest_filter=" + test,
                           "--gtest_also_run_disabled_tests", "--gtest_color=no"});
  return argv;
}

inline jit::ProcessResult run_self(const std::string& test, const std::vector<std::string>& environment = {}) {
  jit::ProcessResult result = jit::run_process(self_command(test, environment));
  if (result.output.find("[  PASSED  ] 1 test.") == std::string::npos && result.status == 0) result.status = -1;
  return result;
}

}  // namespace deep_gemm::test
