// libcuda.so.1 of the emulator: one Hopper GPU whose memory is the host's. All work is done when it is enqueued, or, of a
// graph, when that is launched. Kernels are shared objects that nvrtc.cpp made.
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include <fmt/format.h>

#include "cuda/api.h"
#include "run.h"

namespace {

using namespace deep_gemm::cuda::api;

constexpr Result kInvalidValue = 1, kOutOfMemory = 2, kInvalidImage = 200, kNotFound = 500, kLaunchFailed = 719;
constexpr std::size_t kAlignment = 256, kPage = 4096;
constexpr unsigned char kSlack = 0xa5;
constexpr std::size_t kSmemOfDriver = 1024;  // that it takes for each CTA

using Work = std::function<Result()>;
struct Recording {
  std::vector<Work> work;
  std::vector<DevicePointer> memory;
};
struct StreamState {
  bool captures = false;
  Recording recording;
};
struct Loaded {
  void* library;
  emulator::Kernel kernel;
  std::string name;
};
struct Recorded {
  std::chrono::steady_clock::time_point time;
};

std::mutex mutex;          // of the machine and of what follows
std::string last_failure;  // of a launch, or a kernel that cannot be loaded
StreamState default_stream;
thread_local std::vector<Context> contexts;
int primary_context;

StreamState& state_of(StreamHandle stream) {
  return stream == nullptr ? default_stream : *static_cast<StreamState*>(stream);
}

/// Does it, or notes it where the stream is being captured.
Result enqueue(StreamHandle stream, Work work) {
  StreamState& state = state_of(stream);
  if (!state.captures) return work();
  state.recording.work.push_back(std::move(work));
  return kSuccess;
}

/// Device memory ends, but for alignment, where a page ends after which nothing may be touched, nor before its first page; what
/// else lies in its pages is `kSlack`.
struct Allocation {
  unsigned char *pages, *data;
  std::size_t page_bytes, bytes;

  bool is_intact() const {
    const auto is_slack = [](unsigned char byte) { return byte == kSlack; };
    return std::all_of(pages, data, is_slack) && std::all_of(data + bytes, pages + page_bytes, is_slack);
  }
};
std::map<DevicePointer, Allocation> allocations;

Result allocate(DevicePointer* pointer, std::size_t bytes) {
  if (bytes == 0) return kInvalidValue;
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t page_bytes = (rounded + kPage - 1) / kPage * kPage;
  void* all = mmap(nullptr, kPage + page_bytes + kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) return kOutOfMemory;
  unsigned char* const pages = static_cast<unsigned char*>(all) + kPage;
  mprotect(pages, page_bytes, PROT_READ | PROT_WRITE);
  const Allocation made{pages, pages + page_bytes - rounded, page_bytes, bytes};
  std::fill(pages, pages + page_bytes, kSlack);
  std::fill(made.data, made.data + bytes, 0xff);
  *pointer = reinterpret_cast<DevicePointer>(made.data);
  const std::scoped_lock lock(mutex);
  allocations[*pointer] = made;
  return kSuccess;
}

Result release(DevicePointer pointer) {
  if (pointer == 0) return kSuccess;
  const std::scoped_lock lock(mutex);
  const auto found = allocations.find(pointer);
  if (found == allocations.end()) return kInvalidValue;
  munmap(found->second.pages - kPage, kPage + found->second.page_bytes + kPage);
  return allocations.erase(found), kSuccess;
}

void* host(DevicePointer pointer) { return reinterpret_cast<void*>(pointer); }

int sms() {
  const char* value = std::getenv("DG_EMULATOR_SMS");
  return value ? std::atoi(value) : 132;
}

Result launch(const LaunchConfig& config, const Loaded& loaded, void** params) {
  emulator::Launch launch{.grid = {config.grid_x, config.grid_y, config.grid_z},
                          .block = {config.block_x, config.block_y, config.block_z},
                          .cluster = 1,
                          .smem_bytes = config.smem_bytes,
                          .call = loaded.kernel.call,
                          .params = params};
  for (unsigned i = 0; i < config.num_attributes; ++i)
    if (config.attributes[i].id == kClusterDimension) launch.cluster = config.attributes[i].value.cluster.x;
  const unsigned threads = config.block_x * config.block_y * config.block_z;
  if (config.grid_x == 0 || config.grid_y == 0 || config.grid_z == 0 || threads == 0 || threads > 1024 ||
      config.smem_bytes > emulator::kSmemBytes || launch.cluster == 0 || launch.cluster > 8 ||
      config.grid_x % launch.cluster != 0)
    return kInvalidValue;
  const std::scoped_lock lock(mutex);
  const auto start = std::chrono::steady_clock::now();
  last_failure = emulator::run(launch);
  for (const auto& [pointer, allocation] : allocations)
    if (last_failure.empty() && !allocation.is_intact())
      last_failure = fmt::format("{} wrote beside an allocation of {} bytes", loaded.name, allocation.bytes);
  if (std::getenv("DG_EMULATOR_LOG"))
    fmt::print(stderr, "{}: grid {}, clusters of {}, {} threads, {:.1f} ms\n", loaded.name,
               launch.grid.x * launch.grid.y * launch.grid.z, launch.cluster, threads,
               std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  return last_failure.empty() ? kSuccess : kLaunchFailed;
}

/// Bytes of an ELF file of which only the beginning is known; 0 where it is none, or is for a GPU.
std::size_t image_bytes(const void* image) {
  Elf64_Ehdr header;
  std::memcpy(&header, image, sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine == EM_CUDA) return 0;
  return header.e_shoff + static_cast<std::size_t>(header.e_shentsize) * header.e_shnum;
}

}  // namespace

#define EMULATED(name, symbol, parameters) \
  extern "C" __attribute__((visibility("default"))) Result emulated_##name parameters __asm__(symbol);
DG_CUDA_FUNCTIONS(EMULATED)

Result emulated_cuInit(unsigned) { return kSuccess; }
Result emulated_cuDriverGetVersion(int* version) { return *version = 13000, kSuccess; }
Result emulated_cuGetErrorName(Result result, const char** name) {
  switch (result) {
    case kInvalidValue:
      return *name = "CUDA_ERROR_INVALID_VALUE", kSuccess;
    case kOutOfMemory:
      return *name = "CUDA_ERROR_OUT_OF_MEMORY", kSuccess;
    case kInvalidImage:
      return *name = "CUDA_ERROR_INVALID_IMAGE", kSuccess;
    case kNotFound:
      return *name = "CUDA_ERROR_NOT_FOUND", kSuccess;
    case kLaunchFailed:
      return *name = "CUDA_ERROR_LAUNCH_FAILED", kSuccess;
    default:
      return *name = nullptr, kInvalidValue;
  }
}
Result emulated_cuGetErrorString(Result result, const char** text) {
  const bool is_told = result == kLaunchFailed || result == kInvalidImage;
  return *text = is_told ? last_failure.c_str() : "an error of the emulated driver", kSuccess;
}
Result emulated_cuDeviceGetCount(int* count) { return *count = 1, kSuccess; }
Result emulated_cuDeviceGet(Device* device, int index) {
  return *device = index, index == 0 ? kSuccess : kInvalidValue;
}
Result emulated_cuDeviceGetName(char* name, int bytes, Device) {
  return std::strncpy(name, "emulated Hopper", static_cast<std::size_t>(bytes)), kSuccess;
}
Result emulated_cuDeviceGetUuid(Uuid* uuid, Device) { return *uuid = {}, kSuccess; }
Result emulated_cuDeviceTotalMem(std::size_t* bytes, Device) { return *bytes = std::size_t{80} << 30, kSuccess; }
// The figures of an H100 SXM, so that plans are those of one.
Result emulated_cuDeviceGetAttribute(int* value, int attribute, Device) {
  switch (attribute) {
    case kClockRate:
      return *value = 1980000, kSuccess;
    case kMultiprocessorCount:
      return *value = sms(), kSuccess;
    case kMemoryClockRate:
      return *value = 2619000, kSuccess;
    case kGlobalMemoryBusWidth:
      return *value = 5120, kSuccess;
    case kL2CacheSize:
      return *value = 50 << 20, kSuccess;
    case kComputeCapabilityMajor:
      return *value = 9, kSuccess;
    case kComputeCapabilityMinor:
      return *value = 0, kSuccess;
    case kMaxSharedMemoryPerBlockOptin:
      return *value = emulator::kSmemBytes, kSuccess;
    default:
      return kInvalidValue;
  }
}
Result emulated_cuDevicePrimaryCtxRetain(Context* context, Device) { return *context = &primary_context, kSuccess; }
Result emulated_cuDevicePrimaryCtxRelease(Device) { return kSuccess; }
Result emulated_cuCtxGetCurrent(Context* context) {
  return *context = contexts.empty() ? nullptr : contexts.back(), kSuccess;
}
Result emulated_cuCtxPushCurrent(Context context) { return contexts.push_back(context), kSuccess; }
Result emulated_cuCtxPopCurrent(Context* context) {
  if (contexts.empty()) return kInvalidValue;
  *context = contexts.back();
  return contexts.pop_back(), kSuccess;
}
Result emulated_cuModuleLoadData(Module* module, const void* image) {
  const auto refuse = [](const char* why) {
    const std::scoped_lock lock(mutex);
    last_failure = why;
    return kInvalidImage;
  };
  const std::size_t bytes = image_bytes(image);
  if (bytes == 0) return refuse("this is no kernel for the emulator");
  std::string path = (std::filesystem::temp_directory_path() / "deep_gemm_kernel.XXXXXX.so").string();
  const int file = mkstemps(path.data(), 3);
  if (file < 0) return kOutOfMemory;
  void* library = nullptr;
  if (write(file, image, bytes) == static_cast<ssize_t>(bytes)) library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  close(file);
  if (!std::getenv("DG_EMULATOR_DEBUG")) unlink(path.c_str());  // a debugger reads it
  if (!library) return refuse(dlerror());
  const auto kernel = reinterpret_cast<emulator::Kernel (*)()>(dlsym(library, "emulated_kernel"));
  if (!kernel) return dlclose(library), refuse("this is no kernel for the emulator");
  *module = new Loaded{library, kernel(), ""};
  return kSuccess;
}
Result emulated_cuModuleUnload(Module module) {
  auto* const loaded = static_cast<Loaded*>(module);
  dlclose(loaded->library);
  delete loaded;
  return kSuccess;
}
Result emulated_cuModuleGetFunction(Function* function, Module module, const char* name) {
  auto* const loaded = static_cast<Loaded*>(module);
  loaded->name = name;
  return *function = module, dlsym(loaded->library, name) ? kSuccess : kNotFound;
}
Result emulated_cuFuncSetAttribute(Function, int attribute, int value) {
  return attribute == kMaxDynamicSharedSizeBytes && value > static_cast<int>(emulator::kSmemBytes) ? kInvalidValue
                                                                                                   : kSuccess;
}
Result emulated_cuOccupancyMaxActiveClusters(int* clusters, Function, const LaunchConfig* config) {
  return *clusters = sms() / static_cast<int>(config->grid_x), kSuccess;
}
Result emulated_cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function, int threads,
                                                            std::size_t smem_bytes) {
  const auto by_smem = static_cast<int>((emulator::kSmemBytes + kSmemOfDriver) / (smem_bytes + kSmemOfDriver));
  return *blocks = std::min(by_smem, 2048 / threads), kSuccess;
}
Result emulated_cuLaunchKernelEx(const LaunchConfig* config, Function function, void** params, void**) {
  const auto* loaded = static_cast<const Loaded*>(function);
  if (!state_of(config->stream).captures) return launch(*config, *loaded, params);
  // Attributes and parameters are the caller's.
  std::vector<LaunchAttribute> attributes(config->attributes, config->attributes + config->num_attributes);
  std::vector<std::vector<std::byte>> values;
  for (unsigned i = 0; i < loaded->kernel.params; ++i) {
    const auto* first = static_cast<const std::byte*>(params[i]);
    values.emplace_back(first, first + loaded->kernel.param_bytes[i]);
  }
  return enqueue(config->stream, [copy = *config, loaded, attributes, values]() mutable {
    copy.attributes = attributes.data();
    // Parameters may need more than a vector's alignment.
    std::vector<void*> at;
    for (const auto& value : values) {
      void* aligned = std::aligned_alloc(128, (value.size() + 127) / 128 * 128);
      at.push_back(std::memcpy(aligned, value.data(), value.size()));
    }
    const Result result = launch(copy, *loaded, at.data());
    for (void* value : at) std::free(value);
    return result;
  });
}
// What the driver API says of the arguments of cuTensorMapEncodeTiled.
Result emulated_cuTensorMapEncodeTiled(TensorMap* out, int type, uint32_t rank, void* base, const uint64_t* dims,
                                       const uint64_t* strides, const uint32_t* box, const uint32_t* element_strides,
                                       int interleave, int swizzle, int, int) {
  constexpr uint32_t kSwizzledBytes[] = {0, 32, 64, 128};
  const uint32_t element = type == kTensorMapUint8                                   ? 1
                           : type == kTensorMapFloat32 || type == kTensorMapInt32    ? 4
                           : type == kTensorMapFloat16 || type == kTensorMapBfloat16 ? 2
                                                                                     : 0;
  if (element == 0 || rank < 1 || rank > 5 || interleave != kTensorMapInterleaveNone || swizzle < 0 || swizzle > 3 ||
      reinterpret_cast<std::uintptr_t>(base) % 16 != 0 || reinterpret_cast<std::uintptr_t>(out) % 64 != 0)
    return kInvalidValue;
  emulator::Map map{.magic = emulator::Map::kMagic,
                    .rank = rank,
                    .is_f32 = type == kTensorMapFloat32,
                    .element = element,
                    .base = reinterpret_cast<uint64_t>(base),
                    .dims = {},
                    .strides = {},
                    .box = {},
                    .swizzle = kSwizzledBytes[swizzle]};
  for (uint32_t i = 0; i < rank; ++i) {
    if (dims[i] == 0 || dims[i] > uint64_t{1} << 32 || box[i] == 0 || box[i] > 256 || element_strides[i] != 1)
      return kInvalidValue;
    map.dims[i] = dims[i], map.box[i] = box[i];
    if (i + 1 == rank) continue;
    if (strides[i] % 16 != 0 || strides[i] >= uint64_t{1} << 40) return kInvalidValue;
    map.strides[i] = strides[i];
  }
  const uint32_t row_bytes = box[0] * element;
  if (row_bytes % 16 != 0 || (map.swizzle > 0 && row_bytes > map.swizzle)) return kInvalidValue;
  std::memset(out, 0, sizeof *out);
  std::memcpy(out, &map, sizeof map);
  return kSuccess;
}
Result emulated_cuMemAlloc(DevicePointer* pointer, std::size_t bytes) { return allocate(pointer, bytes); }
Result emulated_cuMemFree(DevicePointer pointer) { return release(pointer); }
Result emulated_cuMemAllocAsync(DevicePointer* pointer, std::size_t bytes, StreamHandle stream) {
  const Result result = allocate(pointer, bytes);
  StreamState& state = state_of(stream);
  if (result == kSuccess && state.captures) state.recording.memory.push_back(*pointer);
  return result;
}
Result emulated_cuMemFreeAsync(DevicePointer pointer, StreamHandle stream) {
  return state_of(stream).captures ? kSuccess : release(pointer);  // a graph's memory goes with it
}
Result emulated_cuMemcpyHtoD(DevicePointer to, const void* from, std::size_t bytes) {
  return std::memcpy(host(to), from, bytes), kSuccess;
}
Result emulated_cuMemcpyDtoH(void* to, DevicePointer from, std::size_t bytes) {
  return std::memcpy(to, host(from), bytes), kSuccess;
}
Result emulated_cuMemsetD8Async(DevicePointer to, unsigned char value, std::size_t bytes, StreamHandle stream) {
  return enqueue(stream, [=] { return std::memset(host(to), value, bytes), kSuccess; });
}
Result emulated_cuStreamCreate(StreamHandle* stream, unsigned) { return *stream = new StreamState, kSuccess; }
Result emulated_cuStreamDestroy(StreamHandle stream) { return delete static_cast<StreamState*>(stream), kSuccess; }
Result emulated_cuStreamSynchronize(StreamHandle) { return kSuccess; }
Result emulated_cuStreamBeginCapture(StreamHandle stream, int) { return state_of(stream).captures = true, kSuccess; }
Result emulated_cuStreamEndCapture(StreamHandle stream, GraphHandle* graph) {
  StreamState& state = state_of(stream);
  *graph = new Recording(std::move(state.recording));
  state.recording = {}, state.captures = false;
  return kSuccess;
}
Result emulated_cuGraphInstantiate(GraphExec* exec, GraphHandle graph, unsigned long long) {
  return *exec = new std::vector<Work>(static_cast<Recording*>(graph)->work), kSuccess;
}
Result emulated_cuGraphLaunch(GraphExec exec, StreamHandle) {
  for (Work& work : *static_cast<std::vector<Work>*>(exec))
    if (const Result result = work(); result != kSuccess) return result;
  return kSuccess;
}
Result emulated_cuGraphExecDestroy(GraphExec exec) { return delete static_cast<std::vector<Work>*>(exec), kSuccess; }
Result emulated_cuGraphDestroy(GraphHandle graph) {
  auto* const recording = static_cast<Recording*>(graph);
  Result result = kSuccess;
  for (const DevicePointer memory : recording->memory) result = std::max(result, release(memory));
  return delete recording, result;
}
Result emulated_cuEventCreate(EventHandle* event, unsigned) { return *event = new Recorded, kSuccess; }
Result emulated_cuEventDestroy(EventHandle event) { return delete static_cast<Recorded*>(event), kSuccess; }
Result emulated_cuEventRecord(EventHandle event, StreamHandle) {
  return static_cast<Recorded*>(event)->time = std::chrono::steady_clock::now(), kSuccess;
}
Result emulated_cuEventSynchronize(EventHandle) { return kSuccess; }
Result emulated_cuEventElapsedTime(float* ms, EventHandle start, EventHandle end) {
  const auto passed = static_cast<Recorded*>(end)->time - static_cast<Recorded*>(start)->time;
  return *ms = std::chrono::duration<float, std::milli>(passed).count(), kSuccess;
}
