#include "jit/env.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "fake_nvcc.h"
#include "jit/jit.h"

namespace deep_gemm::jit {
namespace {

using test::ScopedEnv;
using Paths = std::vector<std::filesystem::path>;

TEST(Env, TableHasEachNameOnceAndSaysWhatItMeans) {
  std::set<std::string> names;
  for (const EnvVariable& v : env_variables()) {
    EXPECT_TRUE(names.insert(v.name).second) << v.name;
    EXPECT_TRUE(std::string(v.name).starts_with("DG_"));
    EXPECT_GT(std::string(v.meaning).size(), 20U) << v.name;
    if (v.fallback) {
      EXPECT_TRUE(names.insert(v.fallback).second) << v.fallback;
    }
  }
}

TEST(Env, FirstReleaseNamesAreReadWhereTheNewOnesAreNotSet) {
  for (const EnvVariable& v : env_variables()) {
    const ScopedEnv none(v.name, nullptr);
    if (v.fallback) {
      const ScopedEnv old(v.fallback, "old");
      EXPECT_EQ(env(v.name), "old") << v.name;
      const ScopedEnv empty(v.name, "");
      EXPECT_EQ(env(v.name), "old") << v.name;
      const ScopedEnv current(v.name, "new");
      EXPECT_EQ(env(v.name), "new") << v.name;
    } else {
      EXPECT_EQ(env(v.name), std::nullopt) << v.name;
    }
  }
}

TEST(Env, FlagsAreOnUnlessZero) {
  const ScopedEnv none("DG_JIT_DEBUG", nullptr);
  EXPECT_FALSE(env_flag("DG_JIT_DEBUG"));
  const ScopedEnv zero("DG_JIT_DEBUG", "0");
  EXPECT_FALSE(env_flag("DG_JIT_DEBUG"));
  const ScopedEnv one("DG_JIT_DEBUG", "1");
  EXPECT_TRUE(env_flag("DG_JIT_DEBUG"));
}

TEST(Env, CacheDirectories) {
  const ScopedEnv a("DG_JIT_CACHE_DIR", nullptr), b("DG_CACHE_DIR", nullptr), c("XDG_CACHE_HOME", nullptr),
      d("HOME", nullptr);
  EXPECT_EQ(cache_directories({}), Paths{});
  const ScopedEnv home("HOME", "/home/u");
  EXPECT_EQ(cache_directories({}), Paths{"/home/u/.cache/deep_gemm"});
  const ScopedEnv relative("XDG_CACHE_HOME", "cache");
  EXPECT_EQ(cache_directories({}), Paths{"/home/u/.cache/deep_gemm"});
  const ScopedEnv xdg("XDG_CACHE_HOME", "/xdg");
  EXPECT_EQ(cache_directories({}), Paths{"/xdg/deep_gemm"});
  const ScopedEnv old("DG_CACHE_DIR", "/old");
  EXPECT_EQ(cache_directories({}), Paths{"/old"});
  const ScopedEnv current("DG_JIT_CACHE_DIR", "/shipped::/own:");
  EXPECT_EQ(cache_directories({}), (Paths{"/shipped", "/own"}));
  EXPECT_EQ(cache_directories({"/given", "x"}), (Paths{"/given", "x"}));
}

}  // namespace
}  // namespace deep_gemm::jit
