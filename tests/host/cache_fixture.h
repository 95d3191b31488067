// The disk cache with a compiler that compiles nothing.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "child_process.h"
#include "cuda/driver.h"
#include "fake_nvcc.h"
#include "jit/jit.h"

namespace deep_gemm::jit {

namespace fs = std::filesystem;
using test::read_text;
using test::ScopedEnv;
using test::write_text;

inline const KernelSource kSource{"some_kernel", "// text of a kernel\n"};

inline std::string bytes_of(const Binary& binary) {
  return {reinterpret_cast<const char*>(binary.cubin.data()), binary.cubin.size()};
}

class Cache : public testing::Test {
 protected:
  void SetUp() override {
    if (const int driver = cuda::driver_version(); driver != 0 && driver < 13020)
      GTEST_SKIP() << "the stand-in compiler says up to CUDA 13.2, which this machine's driver cannot load";
    chmod(scratch_.path().c_str(), 0755);
  }

  fs::path directory(const std::string& name = "cache") const { return scratch_.path() / name; }
  fs::path entry_path(const std::string& name = "cache", const KernelSource& source = kSource) const {
    return directory(name) / (KernelStore::key(source) + ".dgk");
  }
  std::unique_ptr<KernelStore> store(std::vector<std::string> names = {"cache"}) {
    std::vector<fs::path> directories;
    for (const std::string& name : names) directories.push_back(directory(name));
    return std::make_unique<KernelStore>(directories, CompilerChoice::nvcc,
                                         [this](LogLevel level, const std::string& text) {
                                           const std::scoped_lock lock(mutex_);
                                           if (level == LogLevel::warning)
                                             warnings_.push_back(text);
                                           else
                                             log_ += text + "\n";
                                         });
  }
  std::vector<std::string> files(const std::string& name = "cache") const {
    std::vector<std::string> found;
    if (fs::exists(directory(name)))
      for (const auto& file : fs::directory_iterator(directory(name))) found.push_back(file.path().filename());
    std::erase(found, "locks");
    std::ranges::sort(found);
    return found;
  }

  test::FakeNvcc nvcc_;
  ScopedEnv compiler_{"DG_JIT_NVCC_COMPILER", nvcc_.path().c_str()};
  TemporaryDirectory scratch_;
  std::mutex mutex_;
  std::vector<std::string> warnings_;
  std::string log_;
};

}  // namespace deep_gemm::jit
