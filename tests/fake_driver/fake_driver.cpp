// A libcuda.so.1 that keeps no GPU: it records calls, so that src/cuda is tested on any machine. Environment:
// FAKE_DRIVER_VERSION (13000), FAKE_DEVICES (1), FAKE_CC (90), FAKE_FAIL (name of a function that returns an error).
// Images that begin with '!' are broken, with '?' of another architecture, with '$' too large for the GPU's memory.
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/api.h"

namespace {

using namespace deep_gemm::cuda::api;

std::mutex mutex;
std::string recorded;
thread_local std::vector<Context> contexts;

int number(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  return value ? std::atoi(value) : otherwise;
}

// Records a call; the result it returns to its caller.
template <class... Args>
Result call(const char* name, const Args&... args) {
  const std::scoped_lock lock(mutex);
  recorded += name;
  ((recorded += " " + std::to_string(args)), ...);
  recorded += "\n";
  const char* failing = std::getenv("FAKE_FAIL");
  return failing && std::strcmp(failing, name) == 0 ? 1 : kSuccess;
}

void* handle(unsigned long long value) { return reinterpret_cast<void*>(value); }
unsigned long long value_of(const void* pointer) { return reinterpret_cast<unsigned long long>(pointer); }

}  // namespace

#define FAKE_DECLARE(name, symbol, parameters) extern "C" Result fake_##name parameters __asm__(symbol);
DG_CUDA_FUNCTIONS(FAKE_DECLARE)

extern "C" const char* fake_driver_log() { return recorded.c_str(); }
extern "C" void fake_driver_clear() { recorded.clear(); }
/// Called with the parameters of each product's launch, where it is set: no other kernel has dynamic shared memory.
extern "C" {
void (*fake_driver_on_launch)(void** params) = nullptr;
}

Result fake_cuInit(unsigned) { return call("cuInit"); }
Result fake_cuDriverGetVersion(int* version) { return *version = number("FAKE_DRIVER_VERSION", 13000), kSuccess; }
struct Error {
  Result result;
  const char *name, *text;
  char image;  // whose first byte gives it
};
static constexpr Error kErrors[] = {
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument", 0},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory", '$'},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid", '!'},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device", '?'},
};
Result fake_cuGetErrorName(Result result, const char** name) {
  *name = nullptr;
  for (const Error& error : kErrors)
    if (error.result == result) *name = error.name;
  return kSuccess;
}
Result fake_cuGetErrorString(Result result, const char** text) {
  *text = nullptr;
  for (const Error& error : kErrors)
    if (error.result == result) *text = error.text;
  return kSuccess;
}
Result fake_cuDeviceGetCount(int* count) { return *count = number("FAKE_DEVICES", 1), kSuccess; }
Result fake_cuDeviceGet(Device* device, int index) { return *device = index, call("cuDeviceGet", index); }
Result fake_cuDeviceGetName(char* name, int bytes, Device) {
  return std::strncpy(name, "Fake GPU", static_cast<std::size_t>(bytes)), kSuccess;
}
Result fake_cuDeviceGetUuid(Uuid* uuid, Device) {
  for (int i = 0; i < 16; ++i) uuid->bytes[i] = static_cast<char>(0x11 * i);
  return kSuccess;
}
Result fake_cuDeviceTotalMem(std::size_t* bytes, Device) { return *bytes = std::size_t{80} << 30, kSuccess; }
Result fake_cuDeviceGetAttribute(int* value, int attribute, Device) {
  switch (attribute) {
    case kClockRate:
      *value = 1980000;
      break;
    case kMultiprocessorCount:
      *value = 133;
      break;
    case kMemoryClockRate:
      *value = 2619000;
      break;
    case kGlobalMemoryBusWidth:
      *value = 5120;
      break;
    case kL2CacheSize:
      *value = 50 << 20;
      break;
    case kComputeCapabilityMajor:
      *value = number("FAKE_CC", 90) / 10;
      break;
    case kComputeCapabilityMinor:
      *value = number("FAKE_CC", 90) % 10;
      break;
    case kMaxSharedMemoryPerBlockOptin:
      *value = 232448;
      break;
    default:
      return 1;
  }
  return kSuccess;
}
Result fake_cuDevicePrimaryCtxRetain(Context* context, Device device) {
  return *context = handle(0xC0 + static_cast<unsigned>(device)), call("cuDevicePrimaryCtxRetain", device);
}
Result fake_cuDevicePrimaryCtxRelease(Device device) { return call("cuDevicePrimaryCtxRelease", device); }
Result fake_cuCtxGetCurrent(Context* context) {
  return *context = contexts.empty() ? nullptr : contexts.back(), kSuccess;
}
Result fake_cuCtxPushCurrent(Context context) {
  return contexts.push_back(context), call("cuCtxPushCurrent", value_of(context));
}
Result fake_cuCtxPopCurrent(Context* context) {
  *context = contexts.back();
  contexts.pop_back();
  return call("cuCtxPopCurrent", value_of(*context));
}
// Modules and their functions belong to the context that they were loaded in: 0xD0 and 0xF0 for that of device 0.
Result fake_cuModuleLoadData(Module* module, const void* image) {
  const char first = *static_cast<const char*>(image);
  *module = handle(value_of(contexts.empty() ? nullptr : contexts.back()) + 0x10);
  const Result result = call("cuModuleLoadData", static_cast<int>(first));
  for (const Error& error : kErrors)
    if (error.image != 0 && error.image == first) return error.result;
  return result;
}
Result fake_cuModuleUnload(Module module) {
  return call("cuModuleUnload", value_of(module), value_of(contexts.empty() ? nullptr : contexts.back()));
}
Result fake_cuModuleGetFunction(Function* function, Module module, const char* name) {
  return *function = handle(value_of(module) + 0x20), call(name) + call("cuModuleGetFunction");
}
Result fake_cuFuncSetAttribute(Function function, int attribute, int value) {
  return call("cuFuncSetAttribute", value_of(function), attribute, value);
}
static Result record_launch(const char* name, const LaunchConfig* c) {
  for (unsigned i = 0; i < c->num_attributes; ++i) {
    const LaunchAttribute& a = c->attributes[i];
    const auto& cluster = a.value.cluster;
    if (a.id == kClusterDimension) call("cluster", cluster.x, cluster.y, cluster.z);
    if (a.id == kProgrammaticStreamSerialization) call("programmatic", a.value.programmatic);
  }
  return call(name, c->grid_x, c->grid_y, c->grid_z, c->block_x, c->block_y, c->block_z, c->smem_bytes,
              value_of(c->stream), c->num_attributes);
}
Result fake_cuOccupancyMaxActiveClusters(int* clusters, Function, const LaunchConfig* config) {
  return *clusters = 66, record_launch("cuOccupancyMaxActiveClusters", config);
}
Result fake_cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function, int threads, std::size_t smem_bytes) {
  return *blocks = 3, call("cuOccupancyMaxActiveBlocksPerMultiprocessor", threads, smem_bytes);
}
Result fake_cuLaunchKernelEx(const LaunchConfig* config, Function function, void** params, void** extra) {
  if (fake_driver_on_launch && config->smem_bytes > 0) fake_driver_on_launch(params);
  call("params", *static_cast<int*>(params[0]), value_of(function), value_of(extra));
  return record_launch("cuLaunchKernelEx", config);
}
Result fake_cuTensorMapEncodeTiled(TensorMap* map, int type, uint32_t rank, void* base, const uint64_t* dims,
                                   const uint64_t* strides, const uint32_t* box, const uint32_t* element_strides,
                                   int interleave, int swizzle, int promotion, int fill) {
  for (uint32_t i = 0; i < rank; ++i) call("dim", dims[i], i + 1 < rank ? strides[i] : 0, box[i], element_strides[i]);
  *map = {{static_cast<uint64_t>(type), static_cast<uint64_t>(swizzle), rank, value_of(base)}};
  map->opaque[15] = 0x5A;
  for (uint32_t i = 0; i < rank && i < 4; ++i) {
    map->opaque[4 + i] = dims[i];
    if (i + 1 < rank) map->opaque[8 + i] = strides[i];
    map->opaque[11 + i] = box[i];
  }
  return call("cuTensorMapEncodeTiled", type, rank, value_of(base), interleave, swizzle, promotion, fill);
}
static Result allocate(const char* name, DevicePointer* pointer, std::size_t bytes, StreamHandle stream) {
  const Result result = call(name, bytes, value_of(stream));
  if (result == kSuccess) *pointer = value_of(std::malloc(bytes));
  return result;
}
static Result release(const char* name, DevicePointer pointer, StreamHandle stream) {
  return std::free(handle(pointer)), call(name, value_of(stream));
}
Result fake_cuMemAlloc(DevicePointer* pointer, std::size_t bytes) {
  return allocate("cuMemAlloc", pointer, bytes, nullptr);
}
Result fake_cuMemFree(DevicePointer pointer) { return release("cuMemFree", pointer, nullptr); }
Result fake_cuMemAllocAsync(DevicePointer* pointer, std::size_t bytes, StreamHandle stream) {
  return allocate("cuMemAllocAsync", pointer, bytes, stream);
}
Result fake_cuMemFreeAsync(DevicePointer pointer, StreamHandle stream) {
  return release("cuMemFreeAsync", pointer, stream);
}
Result fake_cuMemcpyHtoD(DevicePointer to, const void* from, std::size_t bytes) {
  return std::memcpy(handle(to), from, bytes), call("cuMemcpyHtoD", bytes);
}
Result fake_cuMemcpyDtoH(void* to, DevicePointer from, std::size_t bytes) {
  return std::memcpy(to, handle(from), bytes), call("cuMemcpyDtoH", bytes);
}
Result fake_cuMemsetD8Async(DevicePointer to, unsigned char value, std::size_t bytes, StreamHandle stream) {
  return std::memset(handle(to), value, bytes), call("cuMemsetD8Async", bytes, value_of(stream));
}
Result fake_cuStreamCreate(StreamHandle* stream, unsigned flags) {
  return *stream = handle(0x50), call("cuStreamCreate", flags);
}
Result fake_cuStreamDestroy(StreamHandle stream) { return call("cuStreamDestroy", value_of(stream)); }
Result fake_cuStreamSynchronize(StreamHandle stream) { return call("cuStreamSynchronize", value_of(stream)); }
Result fake_cuStreamBeginCapture(StreamHandle stream, int mode) {
  return call("cuStreamBeginCapture", value_of(stream), mode);
}
Result fake_cuStreamEndCapture(StreamHandle stream, GraphHandle* graph) {
  return *graph = handle(0x60), call("cuStreamEndCapture", value_of(stream));
}
Result fake_cuGraphInstantiate(GraphExec* exec, GraphHandle graph, unsigned long long flags) {
  return *exec = handle(0x61), call("cuGraphInstantiate", value_of(graph), flags);
}
Result fake_cuGraphLaunch(GraphExec exec, StreamHandle stream) {
  return call("cuGraphLaunch", value_of(exec), value_of(stream));
}
Result fake_cuGraphExecDestroy(GraphExec exec) { return call("cuGraphExecDestroy", value_of(exec)); }
Result fake_cuGraphDestroy(GraphHandle graph) { return call("cuGraphDestroy", value_of(graph)); }
Result fake_cuEventCreate(EventHandle* event, unsigned flags) {
  return *event = handle(0x70), call("cuEventCreate", flags);
}
Result fake_cuEventDestroy(EventHandle event) { return call("cuEventDestroy", value_of(event)); }
Result fake_cuEventRecord(EventHandle event, StreamHandle stream) {
  return call("cuEventRecord", value_of(event), value_of(stream));
}
Result fake_cuEventSynchronize(EventHandle event) { return call("cuEventSynchronize", value_of(event)); }
Result fake_cuEventElapsedTime(float* ms, EventHandle start, EventHandle end) {
  return *ms = 1.5F, call("cuEventElapsedTime", value_of(start), value_of(end));
}
