// The state that calls share: a device, options and the kernels compiled so far.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <deep_gemm/tensor.h>

namespace deep_gemm {

enum class LogLevel { debug, info, warning };

/// Which compiler turns kernels into machine code.
enum class CompilerChoice {
  automatic,  ///< NVRTC, unless the environment variable DG_JIT_USE_NVRTC=0 asks for nvcc
  nvrtc,
  nvcc,
};

struct ContextOptions {
  /// Directories of the disk cache, searched in order; a new entry goes to the first that takes it. Empty:
  /// DG_JIT_CACHE_DIR (`a:b`), else DG_CACHE_DIR, else `$XDG_CACHE_HOME/deep_gemm`, else `~/.cache/deep_gemm`. Where none
  /// can be written, kernels live in memory only. Users who trust each other may share a directory that all of them may
  /// write (mode 1777).
  std::vector<std::string> cache_dirs{};
  CompilerChoice compiler = CompilerChoice::automatic;
  /// Receives what the library has to say (what was compiled, from where, how long; entries moved aside). May be called
  /// from any thread, also from several at once. Empty: nothing is said; the library never prints.
  std::function<void(LogLevel, const std::string&)> log{};
};

/// A device with its kernel cache. All functions that take a Context may be called from several threads at once with the
/// same one. Creating a CUDA context opens the driver and retains the device's primary context (the one that the CUDA
/// runtime, PyTorch and others use); creating a CPU context touches no driver.
class Context {
 public:
  /// Throws Error{unavailable} where `device` is CUDA and there is no driver or no such device, or it is not sm_90.
  explicit Context(Device device = {}, ContextOptions options = {});
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device device() const;

  struct Impl;
  Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace deep_gemm
