// What the GPU's L2 holds when a call starts, and the kernels that read memory.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include <deep_gemm/context.h>
#include <deep_gemm/tensor.h>

#include "cuda/driver.h"

namespace deep_gemm::bench {

enum class Regime {
  cool,       ///< 8 GB memset before each call: dirty lines, and time for the chip to cool
  dirty,      ///< 1 GB memset before each call
  clean,      ///< 1 GB read before each call: what a decode step sees, since the last layer's weights are clean lines
  warm,       ///< nothing between calls
  sustained,  ///< back to back for at least 0.2 s, rotating operands
};
inline constexpr std::array kRegimes{Regime::cool, Regime::dirty, Regime::clean, Regime::warm, Regime::sustained};
const char* name_of(Regime regime);
std::optional<Regime> regime_of(std::string_view name);

/// Kernels that only read memory, one CTA on each SM.
class StreamKernels {
 public:
  enum class Way { bulk, vectors, flush };
  StreamKernels(Context& context, Stream stream);
  /// Enqueues a read of `bytes`, a multiple of 16, at `data`, aligned to 16.
  void read(Way way, const void* data, int64_t bytes);

 private:
  std::array<const cuda::Kernel*, 3> kernels_;
  unsigned num_sms_;
  Stream stream_;
  cuda::DeviceBuffer sink_;
};

/// Puts the L2 into the state of a regime before each call.
class L2State {
 public:
  L2State(Regime regime, int64_t l2_bytes, StreamKernels& kernels, Stream stream);
  /// Enqueues the memset or the read; nothing for `warm` and `sustained`.
  void prepare();

 private:
  Regime regime_;
  StreamKernels& kernels_;
  Stream stream_;
  cuda::DeviceBuffer buffer_;
};

}  // namespace deep_gemm::bench
