// Where a command computes, and memory there.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <deep_gemm/gemm.h>

#include "context_impl.h"

namespace deep_gemm::cli {

/// The first CUDA device is one that the library has kernels for.
bool has_hopper_gpu();

/// Warnings of the library go to standard error, all it says where DG_JIT_DEBUG is set.
ContextOptions context_options();

/// Adds `--backend cpu|cuda`.
void add_backend(CLI::App& app, std::string& name);

/// A matrix that owns its memory, on the CPU or on the GPU. Rows start at multiples of 16 bytes.
class Matrix {
 public:
  Matrix() = default;
  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }

 private:
  friend class Backend;
  std::vector<std::byte> host_;
  cuda::DeviceBuffer device_;
  TensorView view_;
};

/// A context, current on the thread that made it.
class Backend {
 public:
  /// `name` is cpu, cuda or empty: cuda where there is a Hopper GPU, else cpu.
  explicit Backend(const std::string& name);

  Context& context() { return context_; }
  bool on_gpu() const { return context_.device().type == DeviceType::cuda; }
  /// "cpu (16 threads)" or the GPU's name.
  std::string description() const;
  DeviceInfo device_info() const;

  /// Uninitialised; of one dtype, row-major.
  Matrix matrix(DType dtype, int64_t rows, int64_t cols) const;
  /// FP32 [mn, blocks] with strides [1, pitch]: scales of A as the kernels take them.
  Matrix mn_major(int64_t mn, int64_t blocks) const;
  void fill(const Matrix& matrix, unsigned char value) const;
  /// A matrix with the elements of `host`, a row-major view of CPU memory.
  Matrix upload(const TensorView& host) const;
  /// The elements as a dense row-major array on the CPU; waits for the GPU.
  std::vector<std::byte> download(const Matrix& matrix) const;
  /// Median time of one call in microseconds, after one call that is not timed where kernels may have to be compiled.
  double time_us(const std::function<void()>& call) const;

 private:
  Matrix allocate(DType dtype, int64_t outer, int64_t pitch) const;
  Context context_;
  std::optional<cuda::DeviceContext::Scope> scope_;
};

}  // namespace deep_gemm::cli
