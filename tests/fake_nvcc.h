// A stand-in for nvcc: a shell script that counts its runs and "compiles" whatever it is told, so that the cache is tested
// without a CUDA toolkit.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include "jit/process.h"

namespace deep_gemm::test {

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

/// Sets an environment variable (null: unsets it) until the end of the scope.
class ScopedEnv {
 public:
  ScopedEnv(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old, had_ = true;
    if (value)
      setenv(name, value, 1);
    else
      unsetenv(name);
  }
  ~ScopedEnv() {
    if (had_)
      setenv(name_.c_str(), old_.c_str(), 1);
    else
      unsetenv(name_.c_str());
  }
  ScopedEnv(const ScopedEnv&) = delete;
  ScopedEnv& operator=(const ScopedEnv&) = delete;

 private:
  std::string name_, old_;
  bool had_ = false;
};

/// Everybody may enter and read the directory: some tests run as another user.
class FakeNvcc {
 public:
  FakeNvcc() {
    chmod(root_.path().c_str(), 0755);
    set_version("13.0");
    set_cubin(std::string("cubin\0with\nany;bytes", 20));
    set_log("ptxas info    : Used 40 registers\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads");
    write_text(path(), R"SH(#!/bin/sh
here=$(dirname "$0")
if [ "$1" = --version ]; then
  echo "Cuda compilation tools, release $(cat "$here/version"), V$(cat "$here/version").88"
  exit 0
fi
echo run >> "$here/runs"
[ -e "$here/kill" ] && rm "$here/kill" && kill -9 $PPID
[ -e "$here/delay" ] && sleep "$(cat "$here/delay")"
cat "$here/log"
[ -e "$here/fail" ] && exit 1
while [ $# -gt 1 ]; do
  [ "$1" = -o ] && cp "$here/cubin" "$2"
  [ "$1" = -keep-dir ] && echo "the ptx" > "$2/kernel.ptx"
  shift
done
exit 0
)SH");
    chmod(path().c_str(), 0755);
    write_text(root_.path() / "runs", "");
    chmod((root_.path() / "runs").c_str(), 0666);
  }
  std::filesystem::path path() const { return root_.path() / "nvcc"; }
  std::filesystem::path root() const { return root_.path(); }
  void set_version(const std::string& version) const { write_text(root() / "version", version); }
  void set_cubin(const std::string& cubin) const { write_text(root() / "cubin", cubin); }
  void set_log(const std::string& log) const { write_text(root() / "log", log + "\n"); }
  void set_delay(const std::string& seconds) const { write_text(root() / "delay", seconds); }
  void set_fail(bool fail) const {
    if (fail)
      write_text(root() / "fail", "");
    else
      std::filesystem::remove(root() / "fail");
  }
  void kill_the_next_caller() const { write_text(root() / "kill", ""); }
  int runs() const {
    const std::string text = read_text(root() / "runs");
    return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  }

 private:
  jit::TemporaryDirectory root_;
};

}  // namespace deep_gemm::test
