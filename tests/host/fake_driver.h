// Tests with tests/fake_driver before the real driver, each in a process of its own.
#pragma once

#include <dlfcn.h>

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "self_process.h"

namespace deep_gemm::test {

/// A symbol of the fake driver; null where it is not loaded.
inline void* fake_symbol(const char* name) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  return library ? dlsym(library, name) : nullptr;
}

/// The calls of the driver since the last time.
inline std::string fake_log() {
  const auto log = reinterpret_cast<const char* (*)()>(fake_symbol("fake_driver_log"));
  const auto clear = reinterpret_cast<void (*)()>(fake_symbol("fake_driver_clear"));
  if (!log || !clear) return "this is not the fake driver";
  std::string text = log();
  clear();
  return text;
}

inline void run_with_fake_driver(const std::string& test, std::vector<std::string> environment = {}) {
  environment.insert(environment.begin(), "LD_LIBRARY_PATH=" DG_FAKE_DRIVER_DIR);
  const jit::ProcessResult result = run_self(test, environment);
  EXPECT_EQ(result.status, 0) << result.output;
}

}  // namespace deep_gemm::test

/// The test `suite`.`name`, whose body follows; then its environment, "NAME=value" each.
#define DG_FAKE_DRIVER_TEST(suite, name, ...)                                                           \
  TEST(suite, name) {                                                                                   \
    deep_gemm::test::run_with_fake_driver("Fake" #suite ".DISABLED_" #name __VA_OPT__(, ) __VA_ARGS__); \
  }                                                                                                     \
  TEST(Fake##suite, DISABLED_##name)
