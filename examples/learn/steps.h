// The five kernels of docs/learn as the host sees them: what they need of a launch, and the launch.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <deep_gemm/gemm.h>

#include "cuda/driver.h"
#include "jit/jit.h"

namespace deep_gemm::learn {

/// A file of examples/learn, taken into the program when it was built.
struct KernelText {
  std::string_view file, text;
};
std::span<const KernelText> kernel_texts();

struct Step {
  const char* file;
  const char* entry;
  const char* name;
  const char* what_is_new;
  unsigned tile_m, tile_n;  ///< what a thread block computes
  unsigned threads, smem_bytes, cluster;
  bool tma, tma_scales;  ///< the kernel takes A and B, and A's scales, as tensor maps
};
/// In order; step i is the element i - 1.
std::span<const Step> steps();

/// A step's file, and assertions that its numbers are those of `step`.
jit::KernelSource source(const Step& step);

/// m and n are multiples of 256, k of 128, all at most 65536: these kernels have no code for tails. Throws
/// Error{invalid_argument} otherwise.
void check_shape(int64_t m, int64_t n, int64_t k);

/// Compiles or finds a step's kernel. Needs no GPU.
jit::Binary compile(Context& context, const Step& step);

/// A step's kernel on the context's GPU.
class Kernel {
 public:
  Kernel(Context& context, const Step& step);
  /// Enqueues D = A·Bᵀ. A and B are e4m3 without gaps between rows; A's scales [m, k / 128] are MN-major without gaps, B's
  /// [n / 128, k / 128] have stride 1 along k; D is bf16 without gaps.
  void operator()(const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, Stream stream = {}) const;

 private:
  const Step& step_;
  cuda::Kernel kernel_;
};

}  // namespace deep_gemm::learn
