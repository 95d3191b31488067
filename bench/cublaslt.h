// The rival: cuBLASLt's FP8 product with 1×128 and 128×128 scales (Hopper, from CUDA 12.9 on), opened at run time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <deep_gemm/tensor.h>

#include "bench/abi.h"
#include "cuda/driver.h"

namespace deep_gemm::bench {

/// The library with a handle and workspace in the current CUDA context.
class CublasLt {
 public:
  CublasLt();  ///< throws Error{unavailable} where the library is absent, too old or refuses the device
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  /// "13.1.0"
  std::string version() const;
  /// "libcublasLt.so.13"
  std::string file_name() const;

  struct Functions;

 private:
  friend class CublasLtProduct;
  std::unique_ptr<Functions> functions_;
  void* handle_ = nullptr;
  cuda::DeviceBuffer workspace_;
};

/// D = A·Bᵀ for one shape. In cuBLAS's column-major terms Dᵀ [n, m] = B [n, k] · Aᵀ: its A is our B (op T, 128×128 scales),
/// its B our A (1×128 scales). Operands as fp8_gemm_nt takes them, but scales exactly in cuBLAS's layouts: `a.scale` [m, kb]
/// with strides [1, m rounded up to 4], `b.scale` [nb, kb] with strides [kb rounded up to 4, 1].
class CublasLtProduct {
 public:
  /// Throws Error{invalid_argument} where the scales lie otherwise and Error{unavailable} where cuBLASLt has no kernel.
  CublasLtProduct(CublasLt& library, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d);
  ~CublasLtProduct();
  CublasLtProduct(const CublasLtProduct&) = delete;
  CublasLtProduct& operator=(const CublasLtProduct&) = delete;

  /// How many kernels its heuristic proposed, best guess first; at most 8.
  int algorithms() const { return static_cast<int>(algorithms_.size()); }
  /// Enqueues the product with the given proposal on operands of the constructor's shapes and strides.
  void run(int algorithm, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, Stream stream);

 private:
  void release();
  CublasLt& library_;
  void *desc_ = nullptr, *a_layout_ = nullptr, *b_layout_ = nullptr, *d_layout_ = nullptr, *preference_ = nullptr;
  std::vector<cublaslt_abi::HeuristicResult> algorithms_;
};

}  // namespace deep_gemm::bench
