// What NVRTC and nvcc have in common: flags, where toolkits lie, and reading what ptxas says.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "jit/jit.h"

namespace deep_gemm::jit {

constexpr std::string_view kArch = "sm_90a";

/// The flags that change machine code, the same for every compiler; part of the cache key.
std::vector<std::string> code_flags();

/// "NVRTC 13.0" -> 13000, as CUDA numbers versions.
int cuda_version_of(std::string_view compiler);
/// 13000 -> "13.0"
std::string version_text(int cuda_version);

/// Toolkit roots: CUDA_HOME, CUDA_PATH, /usr/local/cuda, /usr/local/cuda-*.
std::vector<std::filesystem::path> toolkit_roots();

/// Takes registers and spills out of `binary.log`. Throws Error{compiler} where ptxas serialised wgmma instructions:
/// such a kernel computes the right thing at a fraction of the speed.
void read_ptxas_log(Binary& binary, const KernelSource& source);

[[noreturn]] void fail_compile(const KernelSource& source, const std::string& compiler, const std::string& log);

std::unique_ptr<Compiler> open_nvrtc();
std::unique_ptr<Compiler> open_nvcc();

}  // namespace deep_gemm::jit
