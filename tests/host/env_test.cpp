#include "jit/env.h"

#include <filesystem>
#include <regex>
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

/// The table of docs/env.md.
std::string documentation() {
  std::string text =
      "| variable | in the first release | meaning |\n"
      "| --- | --- | --- |\n";
  for (const EnvVariable& v : env_variables()) {
    text += std::string("| `") + v.name + "` | ";
    if (v.fallback) text += std::string("`") + v.fallback + "` ";
    text += std::string("| ") + v.meaning + " |\n";
  }
  return text;
}

TEST(Env, DocumentationIsTheTable) {
  const std::string page = test::read_text(DG_SOURCE_DIR "/docs/env.md"), table = documentation();
  ASSERT_FALSE(page.empty());
  EXPECT_NE(page.find("\n\n" + table + "\n"), std::string::npos) << "docs/env.md should contain\n" << table;
}

// Whatever is read of the environment, anywhere, stands on the page.
TEST(Env, DocumentationNamesEveryVariableThatIsRead) {
  namespace fs = std::filesystem;
  const std::string page = test::read_text(DG_SOURCE_DIR "/docs/env.md");
  const std::regex name("\"([A-Z][A-Z0-9_]{3,})\"");
  std::set<std::string> found;
  for (const char* root : {"src", "cli", "bench", "python/deep_gemm"}) {
    const fs::path directory = fs::path(DG_SOURCE_DIR) / root;
    if (!fs::exists(directory)) continue;
    for (const auto& file : fs::recursive_directory_iterator(directory)) {
      const fs::path extension = file.path().extension();
      if (extension != ".cpp" && extension != ".h" && extension != ".py") continue;
      const std::string text = test::read_text(file.path());
      if (text.find("getenv") == text.npos && text.find("environ") == text.npos && text.find("env(") == text.npos)
        continue;
      for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end; ++it)
        if (!(*it)[1].str().starts_with("CUDA_ERROR_")) found.insert((*it)[1]);  // what the driver calls its errors
    }
  }
  EXPECT_GT(found.size(), 15U);
  for (const std::string& variable : found)
    EXPECT_NE(page.find("`" + variable + "`"), std::string::npos) << variable << " is not in docs/env.md";
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
  const ScopedEnv no_home("HOME", "home");
  EXPECT_EQ(cache_directories({}), Paths{}) << "relative ones are ignored";
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
  const ScopedEnv none("DG_JIT_CACHE_DIR", ":");
  EXPECT_EQ(cache_directories({}), Paths{});
  const ScopedEnv twice("DG_JIT_CACHE_DIR", "/a:/b:/a/:/b/../a");
  EXPECT_EQ(cache_directories({}), (Paths{"/a", "/b"}));
  EXPECT_EQ(cache_directories({"x", "/a", "./x"}), (Paths{"x", "/a"}));
  EXPECT_THROW(cache_directories({"/a", ""}), Error);
}

}  // namespace
}  // namespace deep_gemm::jit
