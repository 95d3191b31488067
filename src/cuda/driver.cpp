#include "cuda/driver.h"

#include <dlfcn.h>

#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cuda/api.h"
#include "fork.h"
#include "text.h"

namespace deep_gemm::cuda {
namespace {

using namespace api;

struct Driver {
  Functions f;
  int version = 0;
  std::string missing;  // what keeps CUDA from working and how to get it; empty: it works
  unsigned started_after = forks();

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      missing =
          "the NVIDIA driver is missing (libcuda.so.1 cannot be loaded): install it from the distribution or "
          "nvidia.com/drivers, and start containers with --gpus all; the CPU backend works without it";
      return;
    }
    const char* lacking = nullptr;
    const auto load = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, symbol));
      if (!function && !lacking) lacking = symbol;
    };
#define DG_LOAD(name, symbol, parameters) load(f.name##_, symbol);
    DG_CUDA_FUNCTIONS(DG_LOAD)
#undef DG_LOAD
    if (f.cuDriverGetVersion_ && f.cuDriverGetVersion_(&version) != kSuccess) version = 0;
    if (lacking) {
      missing = fmt::format(
          "the NVIDIA driver is too old: libcuda.so.1 (CUDA {}.{}) lacks {}; CUDA 12.0 or newer is needed, the CPU "
          "backend works without it",
          version / 1000, version % 1000 / 10, lacking);
      return;
    }
    if (const Result result = f.cuInit_(0); result == kErrorStubLibrary) {
      missing =
          "the NVIDIA driver is missing: libcuda.so.1 is the CUDA toolkit's stub; take its directory off "
          "LD_LIBRARY_PATH and install the driver; the CPU backend works without it";
      version = 0;
    } else if (result != kSuccess) {
      missing = fmt::format("the NVIDIA driver does not start: {}; the CPU backend works without it",
                            describe("cuInit", result));
    }
  }

  std::string describe(const char* function, Result result) const {
    const char *name = nullptr, *text = nullptr;
    f.cuGetErrorName_(result, &name);
    f.cuGetErrorString_(result, &text);
    return fmt::format("{}: {} ({})", function, name ? name : fmt::format("error {}", result), text ? text : "unknown");
  }
};

// Never unloaded: destructors of static objects may still call the driver.
const Driver& driver() {
  static const Driver& instance = *new Driver;
  return instance;
}

const Functions& functions() {
  const Driver& d = driver();
  if (!d.missing.empty()) [[unlikely]]
    fail(ErrorCode::unavailable, "{}", d.missing);
  if (d.started_after != forks()) [[unlikely]]
    fail(ErrorCode::unavailable,
         "CUDA was started before this process was forked, and does not work in the child: fork before the first use, "
         "or "
         "start processes afresh (in Python, multiprocessing's \"spawn\")");
  return d.f;
}

[[noreturn, gnu::cold]] void fail_cuda(const char* function, Result result, const std::string& detail = {}) {
  fail(ErrorCode::cuda, "{}{}", driver().describe(function, result), detail.empty() ? "" : "; " + detail);
}

#define DG_CALL(name, ...)                                                                         \
  do {                                                                                             \
    if (const Result result_ = functions().name##_(__VA_ARGS__); result_ != kSuccess) [[unlikely]] \
      fail_cuda(#name, result_);                                                                   \
  } while (false)

DevicePointer address(const void* pointer) { return reinterpret_cast<DevicePointer>(pointer); }

int attribute(int which, api::Device device) {
  int value = 0;
  DG_CALL(cuDeviceGetAttribute, &value, which, device);
  return value;
}

api::Device device_handle(int index) {
  const Functions& f = functions();
  int count = 0;
  DG_CALL(cuDeviceGetCount, &count);
  if (index < 0 || index >= count)
    fail(ErrorCode::unavailable, "there is no cuda:{}: this machine has {} CUDA device{}", index, count,
         count == 1 ? "" : "s");
  api::Device device = 0;
  if (const Result result = f.cuDeviceGet_(&device, index); result != kSuccess) fail_cuda("cuDeviceGet", result);
  return device;
}

int tensor_map_type(DType dtype) {
  switch (dtype) {
    case DType::e4m3:
    case DType::e5m2:
      break;
    case DType::bf16:
      return kTensorMapBfloat16;
    case DType::f16:
      return kTensorMapFloat16;
    case DType::f32:
      return kTensorMapFloat32;
    case DType::i32:
      return kTensorMapInt32;
  }
  return kTensorMapUint8;
}

int tensor_map_swizzle(TensorMapSpec::Swizzle swizzle) {
  switch (swizzle) {
    case TensorMapSpec::Swizzle::none:
      break;
    case TensorMapSpec::Swizzle::b32:
      return kTensorMapSwizzle32;
    case TensorMapSpec::Swizzle::b64:
      return kTensorMapSwizzle64;
    case TensorMapSpec::Swizzle::b128:
      return kTensorMapSwizzle128;
  }
  return kTensorMapSwizzleNone;
}

// A config whose attributes live beside it, on the stack.
struct Launch {
  LaunchAttribute attributes[2];
  LaunchConfig config;

  Launch(const LaunchSpec& spec, StreamHandle stream)
      : config{spec.grid[0],
               spec.grid[1],
               spec.grid[2],
               spec.block_threads,
               1,
               1,
               spec.smem_bytes,
               stream,
               attributes,
               0} {
    if (spec.cluster > 1) {
      LaunchAttribute& a = attributes[config.num_attributes++];
      a.id = kClusterDimension;
      a.value.cluster = {spec.cluster, 1, 1};
    }
    if (spec.programmatic) {
      LaunchAttribute& a = attributes[config.num_attributes++];
      a.id = kProgrammaticStreamSerialization;
      a.value.programmatic = 1;
    }
  }
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;
};

}  // namespace

int driver_version(std::string* why) noexcept {
  const Driver& d = driver();
  if (why) *why = d.missing;
  return d.version;
}

int device_count() noexcept {
  const Driver& d = driver();
  int count = 0;
  if (d.missing.empty() && d.f.cuDeviceGetCount_(&count) != kSuccess) count = 0;
  return count;
}

DeviceProperties device_properties(int index) {
  const api::Device device = device_handle(index);
  DeviceProperties p;
  char name[256] = {};
  DG_CALL(cuDeviceGetName, name, sizeof name - 1, device);
  p.info.name = name;
  p.info.num_sms = attribute(kMultiprocessorCount, device);
  p.info.smem_bytes = attribute(kMaxSharedMemoryPerBlockOptin, device);
  p.info.l2_bytes = attribute(kL2CacheSize, device);
  p.info.clock_ghz = attribute(kClockRate, device) * 1e-6;
  // Two transfers a memory clock.
  p.info.hbm_gbytes_per_s =
      attribute(kMemoryClockRate, device) * 1e-6 * 2 * attribute(kGlobalMemoryBusWidth, device) / 8;
  p.info.max_clusters_of_2 = p.info.num_sms / 2;
  // Clusters do not span GPCs, which have 16 or 18 SMs, or a few less.
  p.info.max_clusters_of_4 = p.info.num_sms * 30 / 132;
  p.info.max_clusters_of_8 = p.info.num_sms * 15 / 132;
  p.compute_capability = attribute(kComputeCapabilityMajor, device) * 10 + attribute(kComputeCapabilityMinor, device);
  std::size_t bytes = 0;
  DG_CALL(cuDeviceTotalMem, &bytes, device);
  p.memory_bytes = static_cast<int64_t>(bytes);
  Uuid uuid{};
  DG_CALL(cuDeviceGetUuid, &uuid, device);
  p.uuid = "GPU";
  for (std::size_t i = 0; i < sizeof uuid.bytes; ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) p.uuid += '-';
    p.uuid += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return p;
}

EncodedTensorMap encode(const TensorMapSpec& spec) {
  static_assert(sizeof(EncodedTensorMap) == sizeof(TensorMap) && alignof(EncodedTensorMap) == alignof(TensorMap));
  constexpr uint32_t kUnitStrides[4] = {1, 1, 1, 1};
  EncodedTensorMap map;
  const Result result = functions().cuTensorMapEncodeTiled_(
      reinterpret_cast<TensorMap*>(map.bytes.data()), tensor_map_type(spec.dtype), static_cast<uint32_t>(spec.rank),
      spec.base, spec.dims.data(), spec.stride_bytes.data(), spec.box.data(), kUnitStrides, kTensorMapInterleaveNone,
      tensor_map_swizzle(spec.swizzle), spec.l2_fetch_bytes == 128 ? kTensorMapPromotion128 : kTensorMapPromotion256,
      kTensorMapFillZeros);
  if (result != kSuccess) [[unlikely]]
    fail_cuda("cuTensorMapEncodeTiled", result,
              fmt::format("{} rank {} at {}, dims [{}], stride bytes [{}], box [{}], swizzle {}", name_of(spec.dtype),
                          spec.rank, spec.base, fmt::join(spec.dims, ", "), fmt::join(spec.stride_bytes, ", "),
                          fmt::join(spec.box, ", "), static_cast<int>(spec.swizzle)));
  return map;
}

DeviceContext::DeviceContext(int index) : index_(index), properties_(device_properties(index)) {
  const int cc = properties_.compute_capability;
  if (cc != 90)
    fail(ErrorCode::unavailable,
         "cuda:{} is {} with compute capability {}.{}; the kernels need 9.0 (Hopper: H100, H200, H800, H20, GH200)",
         index, properties_.info.name, cc / 10, cc % 10);
  DG_CALL(cuDevicePrimaryCtxRetain, &context_, device_handle(index));
}

DeviceContext::~DeviceContext() {
  const Functions& f = driver().f;
  api::Device device = 0;
  if (f.cuDeviceGet_(&device, index_) == kSuccess) f.cuDevicePrimaryCtxRelease_(device);
}

DeviceContext::Scope::Scope(const DeviceContext& context) {
  Context current = nullptr;
  DG_CALL(cuCtxGetCurrent, &current);
  if (current == context.context_) return;
  DG_CALL(cuCtxPushCurrent, context.context_);
  pushed_ = true;
}

DeviceContext::Scope::~Scope() {
  Context popped = nullptr;
  if (pushed_) driver().f.cuCtxPopCurrent_(&popped);
}

Kernel::Kernel(std::span<const std::byte> cubin, const std::string& entry, int smem_bytes) {
  Context context = nullptr;
  DG_CALL(cuCtxGetCurrent, &context);
  Module loaded = nullptr;
  if (const Result result = functions().cuModuleLoadData_(&loaded, cubin.data()); result != kSuccess)
    fail_cuda("cuModuleLoadData", result, "kernel " + entry);
  // The last copy may die on a thread where another context, or none, is current.
  module_ = std::shared_ptr<void>(loaded, [context](Module unloaded) {
    const Functions& f = driver().f;
    if (f.cuCtxPushCurrent_(context) != kSuccess) return;
    f.cuModuleUnload_(unloaded);
    Context popped = nullptr;
    f.cuCtxPopCurrent_(&popped);
  });
  if (const Result result = functions().cuModuleGetFunction_(&function_, loaded, entry.c_str()); result != kSuccess)
    fail_cuda("cuModuleGetFunction", result, "kernel " + entry);
  if (smem_bytes == 0) return;
  if (const Result result = functions().cuFuncSetAttribute_(function_, kMaxDynamicSharedSizeBytes, smem_bytes);
      result != kSuccess)
    fail_cuda("cuFuncSetAttribute", result, fmt::format("kernel {}, {} bytes of shared memory", entry, smem_bytes));
  // Several CTAs share an SM only where all of its memory that can be shared memory is.
  if (const Result result = functions().cuFuncSetAttribute_(function_, kPreferredSharedMemoryCarveout, 100);
      result != kSuccess)
    fail_cuda("cuFuncSetAttribute", result, fmt::format("kernel {}, carveout", entry));
}

int Kernel::max_active_clusters(int cluster, int block_threads, int smem_bytes) const {
  const auto size = static_cast<unsigned>(cluster);
  const Launch launch({.grid = {size, 1, 1},
                       .block_threads = static_cast<unsigned>(block_threads),
                       .cluster = size,
                       .smem_bytes = static_cast<unsigned>(smem_bytes)},
                      nullptr);
  int clusters = 0;
  DG_CALL(cuOccupancyMaxActiveClusters, &clusters, function_, &launch.config);
  return clusters;
}

int Kernel::max_active_blocks(int block_threads, int smem_bytes) const {
  int blocks = 0;
  DG_CALL(cuOccupancyMaxActiveBlocksPerMultiprocessor, &blocks, function_, block_threads,
          static_cast<std::size_t>(smem_bytes));
  return blocks;
}

void launch(const Kernel& kernel, const LaunchSpec& spec, Stream stream, void** params) {
  const Launch launch(spec, stream.handle);
  const Result result = functions().cuLaunchKernelEx_(&launch.config, kernel.function(), params, nullptr);
  if (result != kSuccess) [[unlikely]]
    fail_cuda("cuLaunchKernelEx", result,
              fmt::format("grid [{}], {} threads, cluster {}, {} bytes of shared memory", fmt::join(spec.grid, ", "),
                          spec.block_threads, spec.cluster, spec.smem_bytes));
}

ScratchBuffer::ScratchBuffer(std::size_t bytes, Stream stream) : stream_(stream) {
  if (bytes == 0) return;
  DevicePointer pointer = 0;
  if (const Result result = functions().cuMemAllocAsync_(&pointer, bytes, stream.handle); result != kSuccess)
    fail_cuda("cuMemAllocAsync", result, fmt::format("{} bytes", bytes));
  data_ = reinterpret_cast<void*>(pointer);
}

ScratchBuffer::~ScratchBuffer() {
  if (data_) driver().f.cuMemFreeAsync_(address(data_), stream_.handle);
}

DeviceBuffer::DeviceBuffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  DevicePointer pointer = 0;
  if (const Result result = functions().cuMemAlloc_(&pointer, bytes); result != kSuccess)
    fail_cuda("cuMemAlloc", result, fmt::format("{} bytes", bytes));
  data_ = reinterpret_cast<void*>(pointer);
}

DeviceBuffer::~DeviceBuffer() {
  if (data_) driver().f.cuMemFree_(address(data_));
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void copy_to_device(void* device, const void* host, std::size_t bytes) {
  if (bytes == 0) return;
  DG_CALL(cuMemcpyHtoD, address(device), host, bytes);
  // A copy from pageable memory may return before its last bytes have arrived, and streams other than the default one
  // would not wait for them.
  DG_CALL(cuStreamSynchronize, nullptr);
}

void copy_to_host(void* host, const void* device, std::size_t bytes) {
  if (bytes != 0) DG_CALL(cuMemcpyDtoH, host, address(device), bytes);
}

void fill(void* device, unsigned char value, std::size_t bytes, Stream stream) {
  if (bytes != 0) DG_CALL(cuMemsetD8Async, address(device), value, bytes, stream.handle);
}

void synchronize(Stream stream) { DG_CALL(cuStreamSynchronize, stream.handle); }

OwnedStream::OwnedStream() { DG_CALL(cuStreamCreate, &stream_.handle, kStreamNonBlocking); }
OwnedStream::~OwnedStream() { driver().f.cuStreamDestroy_(stream_.handle); }

void begin_capture(Stream stream) { DG_CALL(cuStreamBeginCapture, stream.handle, kCaptureThreadLocal); }

Graph::Graph(Stream capturing) {
  DG_CALL(cuStreamEndCapture, capturing.handle, &graph_);
  if (const Result result = functions().cuGraphInstantiate_(&exec_, graph_, 0); result != kSuccess) {
    functions().cuGraphDestroy_(graph_);
    fail_cuda("cuGraphInstantiate", result);
  }
}

Graph::~Graph() {
  driver().f.cuGraphExecDestroy_(exec_);
  driver().f.cuGraphDestroy_(graph_);
}

void Graph::launch(Stream stream) const { DG_CALL(cuGraphLaunch, exec_, stream.handle); }

Event::Event() { DG_CALL(cuEventCreate, &event_, 0); }
Event::~Event() { driver().f.cuEventDestroy_(event_); }
void Event::record(Stream stream) { DG_CALL(cuEventRecord, event_, stream.handle); }

double Event::elapsed_ms(const Event& start, const Event& end) {
  DG_CALL(cuEventSynchronize, end.event_);
  float ms = 0;
  DG_CALL(cuEventElapsedTime, &ms, start.event_, end.event_);
  return ms;
}

}  // namespace deep_gemm::cuda
