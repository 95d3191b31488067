// Compares abi.h with NVIDIA's headers where the build finds them; compiles to nothing elsewhere.
#include "bench/abi.h"

#if __has_include(<cupti.h>)
#include <cupti.h>

namespace deep_gemm::bench::cupti_abi {
static_assert(kSuccess == CUPTI_SUCCESS && kMaxLimitReached == CUPTI_ERROR_MAX_LIMIT_REACHED);
static_assert(kConcurrentKernel == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
static_assert(kFlushForced == CUPTI_ACTIVITY_FLAG_FLUSH_FORCED && kBufferAlignment == ACTIVITY_RECORD_ALIGNMENT);
#if CUPTI_API_VERSION >= 130000
using Newest = CUpti_ActivityKernel10;
#else
using Newest = CUpti_ActivityKernel9;
#endif
static_assert(offsetof(Kernel, kind) == offsetof(Newest, kind) && offsetof(Kernel, start) == offsetof(Newest, start) &&
              offsetof(Kernel, end) == offsetof(Newest, end) && offsetof(Kernel, name) == offsetof(Newest, name) &&
              offsetof(Kernel, correlation_id) == offsetof(Newest, correlationId));
static_assert(sizeof(CUptiResult) == sizeof(Result) && sizeof(CUpti_ActivityKind) == sizeof(int));
}  // namespace deep_gemm::bench::cupti_abi
#endif

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

namespace deep_gemm::bench::cublaslt_abi {
static_assert(kSuccess == CUBLAS_STATUS_SUCCESS && kCompute32F == CUBLAS_COMPUTE_32F);
static_assert(kR32F == CUDA_R_32F && kR16BF == CUDA_R_16BF && kR8FE4M3 == CUDA_R_8F_E4M3);
static_assert(kOpN == CUBLAS_OP_N && kOpT == CUBLAS_OP_T && sizeof(cublasOperation_t) == sizeof(int32_t));
static_assert(kTransA == CUBLASLT_MATMUL_DESC_TRANSA && kTransB == CUBLASLT_MATMUL_DESC_TRANSB);
static_assert(kAScalePointer == CUBLASLT_MATMUL_DESC_A_SCALE_POINTER &&
              kBScalePointer == CUBLASLT_MATMUL_DESC_B_SCALE_POINTER);
static_assert(kFastAccum == CUBLASLT_MATMUL_DESC_FAST_ACCUM);
static_assert(kPreferenceMaxWorkspace == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
#if CUBLAS_VERSION >= 120900 || CUBLAS_VER_MAJOR >= 13
static_assert(kAScaleMode == CUBLASLT_MATMUL_DESC_A_SCALE_MODE && kBScaleMode == CUBLASLT_MATMUL_DESC_B_SCALE_MODE);
static_assert(kScaleVec128 == CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F &&
              kScaleBlk128x128 == CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F);
#endif
static_assert(sizeof(HeuristicResult) == sizeof(cublasLtMatmulHeuristicResult_t) &&
              offsetof(HeuristicResult, workspace_bytes) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) &&
              offsetof(HeuristicResult, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));
}  // namespace deep_gemm::bench::cublaslt_abi
#endif
