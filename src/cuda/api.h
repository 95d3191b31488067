// The part of the CUDA driver API that the library uses, declared here so that building needs no CUDA toolkit.
// tests/host/driver_test.cpp compares every line with <cuda.h> where that is present.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deep_gemm::cuda::api {

using Result = int;
using Device = int;
using DevicePointer = unsigned long long;
using Context = void*;
using Module = void*;
using Function = void*;
using StreamHandle = void*;
using EventHandle = void*;
using GraphHandle = void*;
using GraphExec = void*;

constexpr Result kSuccess = 0;
constexpr Result kErrorStubLibrary = 34;

constexpr int kClockRate = 13;  // CU_DEVICE_ATTRIBUTE_…
constexpr int kMultiprocessorCount = 16;
constexpr int kMemoryClockRate = 36;
constexpr int kGlobalMemoryBusWidth = 37;
constexpr int kL2CacheSize = 38;
constexpr int kComputeCapabilityMajor = 75;
constexpr int kComputeCapabilityMinor = 76;
constexpr int kMaxSharedMemoryPerBlockOptin = 97;

constexpr int kMaxDynamicSharedSizeBytes = 8;  // CU_FUNC_ATTRIBUTE_…
constexpr int kPreferredSharedMemoryCarveout = 9;

constexpr int kClusterDimension = 4;  // CU_LAUNCH_ATTRIBUTE_…
constexpr int kProgrammaticStreamSerialization = 6;

constexpr unsigned kStreamNonBlocking = 1;
constexpr int kCaptureThreadLocal = 1;

constexpr int kTensorMapUint8 = 0;  // CU_TENSOR_MAP_…
constexpr int kTensorMapInt32 = 3;
constexpr int kTensorMapFloat16 = 6;
constexpr int kTensorMapFloat32 = 7;
constexpr int kTensorMapBfloat16 = 9;
constexpr int kTensorMapInterleaveNone = 0;
constexpr int kTensorMapSwizzleNone = 0;
constexpr int kTensorMapSwizzle32 = 1;
constexpr int kTensorMapSwizzle64 = 2;
constexpr int kTensorMapSwizzle128 = 3;
constexpr int kTensorMapPromotion128 = 2;
constexpr int kTensorMapPromotion256 = 3;
constexpr int kTensorMapFillZeros = 0;

struct Uuid {
  char bytes[16];
};

struct LaunchAttribute {
  int id;
  char pad[4];
  union {
    char bytes[64];
    struct {
      unsigned x, y, z;
    } cluster;
    int programmatic;
  } value;
};

struct LaunchConfig {
  unsigned grid_x, grid_y, grid_z;
  unsigned block_x, block_y, block_z;
  unsigned smem_bytes;
  StreamHandle stream;
  LaunchAttribute* attributes;
  unsigned num_attributes;
};

struct TensorMap {
  alignas(64) uint64_t opaque[16];
};

// Name in <cuda.h> (whose macros add the version), symbol in the driver, parameters.
#define DG_CUDA_FUNCTIONS(X)                                                                                         \
  X(cuInit, "cuInit", (unsigned))                                                                                    \
  X(cuDriverGetVersion, "cuDriverGetVersion", (int*))                                                                \
  X(cuGetErrorName, "cuGetErrorName", (Result, const char**))                                                        \
  X(cuGetErrorString, "cuGetErrorString", (Result, const char**))                                                    \
  X(cuDeviceGetCount, "cuDeviceGetCount", (int*))                                                                    \
  X(cuDeviceGet, "cuDeviceGet", (Device*, int))                                                                      \
  X(cuDeviceGetName, "cuDeviceGetName", (char*, int, Device))                                                        \
  X(cuDeviceGetUuid, "cuDeviceGetUuid_v2", (Uuid*, Device))                                                          \
  X(cuDeviceTotalMem, "cuDeviceTotalMem_v2", (std::size_t*, Device))                                                 \
  X(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int*, int, Device))                                               \
  X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (Context*, Device))                                        \
  X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (Device))                                             \
  X(cuCtxGetCurrent, "cuCtxGetCurrent", (Context*))                                                                  \
  X(cuCtxPushCurrent, "cuCtxPushCurrent_v2", (Context))                                                              \
  X(cuCtxPopCurrent, "cuCtxPopCurrent_v2", (Context*))                                                               \
  X(cuModuleLoadData, "cuModuleLoadData", (Module*, const void*))                                                    \
  X(cuModuleUnload, "cuModuleUnload", (Module))                                                                      \
  X(cuModuleGetFunction, "cuModuleGetFunction", (Function*, Module, const char*))                                    \
  X(cuFuncSetAttribute, "cuFuncSetAttribute", (Function, int, int))                                                  \
  X(cuOccupancyMaxActiveClusters, "cuOccupancyMaxActiveClusters", (int*, Function, const LaunchConfig*))             \
  X(cuOccupancyMaxActiveBlocksPerMultiprocessor, "cuOccupancyMaxActiveBlocksPerMultiprocessor",                      \
    (int*, Function, int, std::size_t))                                                                              \
  X(cuLaunchKernelEx, "cuLaunchKernelEx", (const LaunchConfig*, Function, void**, void**))                           \
  X(cuTensorMapEncodeTiled, "cuTensorMapEncodeTiled",                                                                \
    (TensorMap*, int, uint32_t, void*, const uint64_t*, const uint64_t*, const uint32_t*, const uint32_t*, int, int, \
     int, int))                                                                                                      \
  X(cuMemAlloc, "cuMemAlloc_v2", (DevicePointer*, std::size_t))                                                      \
  X(cuMemFree, "cuMemFree_v2", (DevicePointer))                                                                      \
  X(cuMemAllocAsync, "cuMemAllocAsync", (DevicePointer*, std::size_t, StreamHandle))                                 \
  X(cuMemFreeAsync, "cuMemFreeAsync", (DevicePointer, StreamHandle))                                                 \
  X(cuMemcpyHtoD, "cuMemcpyHtoD_v2", (DevicePointer, const void*, std::size_t))                                      \
  X(cuMemcpyDtoH, "cuMemcpyDtoH_v2", (void*, DevicePointer, std::size_t))                                            \
  X(cuMemsetD8Async, "cuMemsetD8Async", (DevicePointer, unsigned char, std::size_t, StreamHandle))                   \
  X(cuStreamCreate, "cuStreamCreate", (StreamHandle*, unsigned))                                                     \
  X(cuStreamDestroy, "cuStreamDestroy_v2", (StreamHandle))                                                           \
  X(cuStreamSynchronize, "cuStreamSynchronize", (StreamHandle))                                                      \
  X(cuStreamBeginCapture, "cuStreamBeginCapture_v2", (StreamHandle, int))                                            \
  X(cuStreamEndCapture, "cuStreamEndCapture", (StreamHandle, GraphHandle*))                                          \
  X(cuGraphInstantiate, "cuGraphInstantiateWithFlags", (GraphExec*, GraphHandle, unsigned long long))                \
  X(cuGraphLaunch, "cuGraphLaunch", (GraphExec, StreamHandle))                                                       \
  X(cuGraphExecDestroy, "cuGraphExecDestroy", (GraphExec))                                                           \
  X(cuGraphDestroy, "cuGraphDestroy", (GraphHandle))                                                                 \
  X(cuEventCreate, "cuEventCreate", (EventHandle*, unsigned))                                                        \
  X(cuEventDestroy, "cuEventDestroy_v2", (EventHandle))                                                              \
  X(cuEventRecord, "cuEventRecord", (EventHandle, StreamHandle))                                                     \
  X(cuEventSynchronize, "cuEventSynchronize", (EventHandle))                                                         \
  X(cuEventElapsedTime, "cuEventElapsedTime", (float*, EventHandle, EventHandle))

/// One pointer for each function of the driver.
struct Functions {
#define DG_MEMBER(name, symbol, parameters) Result(*name##_) parameters = nullptr;
  DG_CUDA_FUNCTIONS(DG_MEMBER)
#undef DG_MEMBER
};

}  // namespace deep_gemm::cuda::api
