#include "jit/env.h"

#include <algorithm>
#include <cstdlib>

namespace deep_gemm::jit {
namespace {

constexpr EnvVariable kVariables[] = {
    {"DG_JIT_CACHE_DIR", "DG_CACHE_DIR",
     "Directories of the disk cache, separated by colons: read in order; a new entry goes to the first that takes it. "
     "Default: $XDG_CACHE_HOME/deep_gemm, else ~/.cache/deep_gemm"},
    {"DG_JIT_USE_NVRTC", nullptr, "0: compile with nvcc instead of NVRTC"},
    {"DG_NVRTC_LIBRARY", nullptr, "Path of the NVRTC library to use; nothing else is searched"},
    {"DG_JIT_NVCC_COMPILER", "DG_NVCC_COMPILER", "Path of the nvcc to use; nothing else is searched"},
    {"DG_JIT_WITH_LINEINFO", nullptr, "1: kernels carry line numbers for profilers (another cache entry)"},
    {"DG_JIT_DEBUG_BARRIERS", nullptr,
     "1: kernels that wait for over a second print barrier, stage and tile, and trap (another cache entry)"},
    {"DG_JIT_PTXAS_CHECK", nullptr, "1: a kernel that spills registers is an error"},
    {"DG_JIT_PTXAS_VERBOSE", "DG_PTXAS_VERBOSE", "1: log what ptxas says of each kernel compiled"},
    {"DG_JIT_PRINT_COMPILER_COMMAND", "DG_JIT_PRINT_NVCC_COMMAND",
     "1: log the compiler's library or program, and flags"},
    {"DG_JIT_DUMP_PTX", nullptr, "1: write the PTX of each kernel compiled beside its cache entry (KEY.ptx)"},
    {"DG_JIT_DUMP_SASS", nullptr,
     "1: write the machine code of each kernel compiled beside its cache entry (KEY.sass); needs nvdisasm in "
     "CUDA_HOME/bin or on PATH"},
    {"DG_JIT_DEBUG", nullptr,
     "1: write the source of each kernel compiled beside its cache entry (KEY.cu), log command and ptxas"},
};

}  // namespace

std::span<const EnvVariable> env_variables() { return kVariables; }

std::optional<std::string> env(std::string_view name) {
  const auto variable =
      std::find_if(std::begin(kVariables), std::end(kVariables), [&](const EnvVariable& v) { return v.name == name; });
  for (const char* candidate : {variable->name, variable->fallback})
    if (const char* value = candidate ? std::getenv(candidate) : nullptr; value && *value) return value;
  return std::nullopt;
}

bool env_flag(std::string_view name) { return env(name).value_or("0") != "0"; }

}  // namespace deep_gemm::jit
