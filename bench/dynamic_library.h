// NVIDIA's libraries, opened at run time so that the program starts where they are absent.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace deep_gemm::bench {

/// Directories that may hold a CUDA library, best first: `lib64`, `lib` and `extras/CUPTI/lib64` of CUDA_HOME, CUDA_PATH and
/// /usr/local/cuda, then `nvidia/*/lib` of the Python environments that can be found (VIRTUAL_ENV, CONDA_PREFIX,
/// those on PATH, the user's and the system's). Only directories that exist.
std::vector<std::filesystem::path> cuda_library_directories();

/// A shared library that stays open until the process ends: CUPTI and cuBLAS keep threads of their own.
class DynamicLibrary {
 public:
  /// Opens the first of `names` that loads, looking in cuda_library_directories() and then on the loader's path.
  /// Throws Error{unavailable} that says what was looked for.
  explicit DynamicLibrary(std::span<const char* const> names);

  const std::string& path() const { return path_; }
  /// "libcupti.so.13"
  std::string file_name() const { return std::filesystem::path(path_).filename().string(); }
  /// Throws Error{unavailable} where the library lacks `name`.
  template <class Function>
  Function* symbol(const char* name) const {
    return reinterpret_cast<Function*>(address(name));
  }

 private:
  void* address(const char* name) const;
  void* handle_ = nullptr;
  std::string path_;
};

}  // namespace deep_gemm::bench
