// The few types and numbers of CUPTI and cuBLASLt that the benchmark uses, so that it builds without a CUDA toolkit.
// abi_check.cpp compares them with NVIDIA's headers wherever those are present.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deep_gemm::bench {

namespace cupti_abi {

using Result = int;
constexpr Result kSuccess = 0;
constexpr Result kMaxLimitReached = 12;  ///< no further record in a buffer
constexpr int kConcurrentKernel = 10;    ///< CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: traces without serialising
constexpr uint32_t kFlushForced = 1;     ///< also hand over buffers that are not full
constexpr std::size_t kBufferAlignment = 8;

/// The head that CUpti_ActivityKernel3 (CUDA 7) to CUpti_ActivityKernel10 (CUDA 13) share.
struct Kernel {
  uint32_t kind;
  uint32_t attributes[3];
  uint64_t start, end;  ///< ns
  uint32_t between[15];
  uint32_t correlation_id;
  int64_t grid_id;
  const char* name;
};

using Request = void(uint8_t** buffer, std::size_t* size, std::size_t* max_records);
using Complete = void(void* context, uint32_t stream, uint8_t* buffer, std::size_t size, std::size_t valid);
using RegisterCallbacks = Result(Request*, Complete*);
using Enable = Result(int kind);
using FlushAll = Result(uint32_t flags);
using GetNextRecord = Result(uint8_t* buffer, std::size_t valid, void** record);
using GetNumDroppedRecords = Result(void* context, uint32_t stream, std::size_t* dropped);
using GetVersion = Result(uint32_t* version);
using GetResultString = Result(Result, const char** text);

}  // namespace cupti_abi

namespace cublaslt_abi {

using Status = int;
constexpr Status kSuccess = 0;
constexpr int kCompute32F = 68;
constexpr int kR32F = 0, kR16BF = 14, kR8FE4M3 = 28;  ///< cudaDataType
constexpr int32_t kOpN = 0, kOpT = 1;
constexpr int kTransA = 3, kTransB = 4, kAScalePointer = 17, kBScalePointer = 18, kFastAccum = 25, kAScaleMode = 31,
              kBScaleMode = 32;  ///< attributes of a matmul descriptor
constexpr int32_t kScaleVec128 = 4, kScaleBlk128x128 = 5;
constexpr int kPreferenceMaxWorkspace = 1;

struct Algo {
  uint64_t data[8];
};
struct HeuristicResult {
  Algo algo;
  std::size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

using Create = Status(void** handle);
using Destroy = Status(void* object);
using GetVersion = std::size_t();
using GetStatusString = const char*(Status);
using MatmulDescCreate = Status(void** desc, int compute_type, int scale_type);
using SetAttribute = Status(void* object, int attribute, const void* value, std::size_t bytes);
using MatrixLayoutCreate = Status(void** layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
using PreferenceCreate = Status(void** preference);
using AlgoGetHeuristic = Status(void* handle, void* desc, void* a, void* b, void* c, void* d, void* preference,
                                int requested, HeuristicResult* results, int* found);
using Matmul = Status(void* handle, void* desc, const void* alpha, const void* a, void* a_layout, const void* b,
                      void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                      const Algo* algo, void* workspace, std::size_t workspace_bytes, void* stream);

}  // namespace cublaslt_abi

}  // namespace deep_gemm::bench
