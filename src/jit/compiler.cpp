#include "jit/compiler.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <sstream>

#include "jit/env.h"
#include "text.h"

namespace deep_gemm::jit {
namespace fs = std::filesystem;
namespace {

// The number that stands before `unit` in `line`; 0 where there is none.
int number_before(const std::string& line, std::string_view unit) {
  std::size_t at = line.find(unit);
  if (at == std::string::npos) return 0;
  const std::size_t end = at;
  while (at > 0 && line[at - 1] >= '0' && line[at - 1] <= '9') --at;
  return at == end ? 0 : std::atoi(line.c_str() + at);
}

}  // namespace

std::vector<std::string> code_flags() {
  std::vector<std::string> flags{"--std=c++20"};
  if (env_flag("DG_JIT_WITH_LINEINFO")) flags.emplace_back("-lineinfo");
  if (env_flag("DG_JIT_DEBUG_BARRIERS")) flags.emplace_back("-DDG_DEBUG_BARRIERS");
  return flags;
}

int cuda_version_of(std::string_view compiler) {
  int major = 0, minor = 0;
  const std::size_t space = compiler.rfind(' ');
  if (space == std::string_view::npos) return 0;
  // Not a stream, for which the program's locale may make the point a separator of thousands.
  const std::string_view version = compiler.substr(space + 1);
  const char* const end = version.data() + version.size();
  const auto [dot, error] = std::from_chars(version.data(), end, major);
  if (error != std::errc() || dot == end || *dot != '.') return 0;
  return std::from_chars(dot + 1, end, minor).ec == std::errc() ? major * 1000 + minor * 10 : 0;
}

std::string version_text(int cuda_version) {
  return fmt::format("{}.{}", cuda_version / 1000, cuda_version % 1000 / 10);
}

std::vector<fs::path> toolkit_roots() {
  std::vector<fs::path> roots;
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"})
    if (const char* value = std::getenv(name); value && *value) roots.emplace_back(value);
  roots.emplace_back("/usr/local/cuda");
  std::error_code error;
  std::vector<fs::path> versions;
  for (fs::directory_iterator it("/usr/local", error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with("cuda-")) versions.push_back(it->path());
  std::sort(versions.begin(), versions.end());
  roots.insert(roots.end(), versions.begin(), versions.end());
  return roots;
}

void read_ptxas_log(Binary& binary, const KernelSource& source) {
  const bool may_be_slow = env_flag("DG_JIT_DEBUG_BARRIERS");  // whose printf serialises them
  std::istringstream stream(binary.log);
  for (std::string line; std::getline(stream, line);) {
    if (!may_be_slow && line.find("wgmma") != std::string::npos && line.find("serialized") != std::string::npos)
      fail(ErrorCode::compiler, "kernel {}: {} serialised its wgmma instructions, which costs most of the speed:\n{}",
           source.entry, binary.compiler, binary.log);
    binary.registers = std::max(binary.registers, number_before(line, " registers"));
    binary.spill_bytes += number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
  }
}

void fail_compile(const KernelSource& source, const std::string& compiler, const std::string& log) {
  fail(ErrorCode::compiler, "kernel {} does not compile with {}:\n{}", source.entry, compiler, log);
}

std::unique_ptr<Compiler> open_compiler(CompilerChoice choice) {
  const bool nvrtc =
      choice == CompilerChoice::nvrtc || (choice == CompilerChoice::automatic && env("DG_JIT_USE_NVRTC") != "0");
  return nvrtc ? open_nvrtc() : open_nvcc();
}

}  // namespace deep_gemm::jit
