#include "cuda/driver.h"

#include <cstddef>
#include <cstring>
#include <numeric>
#include <thread>
#include <type_traits>

#include <gtest/gtest.h>

#ifdef DG_CUDA_H
#include DG_CUDA_H
#endif

#include "child_process.h"
#include "cuda/api.h"
#include "fake_driver.h"
#include "jit/jit.h"
#include "text.h"

namespace deep_gemm::cuda {
namespace {

#ifdef DG_CUDA_H
// The declarations of api.h against those of the toolkit.

template <class T>
constexpr bool kIsNumber = std::is_integral_v<T> || std::is_enum_v<T>;

template <class Mine, class Theirs>
constexpr bool passes_alike() {
  return sizeof(Mine) == sizeof(Theirs) && alignof(Mine) == alignof(Theirs) &&
         std::is_pointer_v<Mine> == std::is_pointer_v<Theirs> && kIsNumber<Mine> == kIsNumber<Theirs>;
}
template <class MyResult, class... Mine, class TheirResult, class... Theirs>
constexpr bool is_alike(MyResult (*)(Mine...), TheirResult (*)(Theirs...)) {
  if constexpr (sizeof...(Mine) == sizeof...(Theirs))
    return passes_alike<MyResult, TheirResult>() && (passes_alike<Mine, Theirs>() && ...);
  else
    return false;
}
#define DG_IS_ALIKE(name, symbol, parameters) \
  static_assert(is_alike(decltype(api::Functions::name##_){}, decltype(&::name){}), #name);
DG_CUDA_FUNCTIONS(DG_IS_ALIKE)

// The macros of cuda.h that add versions must lead to the symbols that are loaded, or to older ones that work as well.
#define DG_TEXT_(x) #x
#define DG_TEXT(x) DG_TEXT_(x)
TEST(Driver, SymbolsAreThoseOfTheHeader) {
  const auto check = [](std::string name, std::string header, std::string loaded) {
    if (name == "cuEventElapsedTime") header = name;  // _v2 came with CUDA 12.8; the first one stays
    EXPECT_EQ(header, loaded);
  };
#define DG_CHECK(name, symbol, parameters) check("cu" + std::string(symbol).substr(2), DG_TEXT(name), symbol);
  DG_CUDA_FUNCTIONS(DG_CHECK)
}

static_assert(sizeof(api::LaunchConfig) == sizeof(CUlaunchConfig));
static_assert(offsetof(api::LaunchConfig, block_x) == offsetof(CUlaunchConfig, blockDimX));
static_assert(offsetof(api::LaunchConfig, smem_bytes) == offsetof(CUlaunchConfig, sharedMemBytes));
static_assert(offsetof(api::LaunchConfig, stream) == offsetof(CUlaunchConfig, hStream));
static_assert(offsetof(api::LaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs));
static_assert(offsetof(api::LaunchConfig, num_attributes) == offsetof(CUlaunchConfig, numAttrs));
static_assert(sizeof(api::LaunchAttribute) == sizeof(CUlaunchAttribute));
static_assert(offsetof(api::LaunchAttribute, value) == offsetof(CUlaunchAttribute, value));
static_assert(sizeof(api::LaunchAttribute::value) == sizeof(CUlaunchAttributeValue));
static_assert(offsetof(CUlaunchAttributeValue, clusterDim) == 0);
static_assert(offsetof(CUlaunchAttributeValue, programmaticStreamSerializationAllowed) == 0);
// The function asks for 64 bytes of alignment, also since CUDA 13 declares the type with 128.
static_assert(sizeof(api::TensorMap) == sizeof(CUtensorMap) && alignof(api::TensorMap) == 64);
static_assert(sizeof(api::Uuid) == sizeof(CUuuid));

static_assert(api::kSuccess == CUDA_SUCCESS);
static_assert(api::kErrorStubLibrary == CUDA_ERROR_STUB_LIBRARY);
static_assert(api::kClockRate == CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
static_assert(api::kMultiprocessorCount == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
static_assert(api::kMemoryClockRate == CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
static_assert(api::kGlobalMemoryBusWidth == CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
static_assert(api::kL2CacheSize == CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
static_assert(api::kComputeCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(api::kComputeCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(api::kMaxSharedMemoryPerBlockOptin == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
static_assert(api::kMaxDynamicSharedSizeBytes == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
static_assert(api::kPreferredSharedMemoryCarveout == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT);
static_assert(api::kClusterDimension == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
static_assert(api::kProgrammaticStreamSerialization == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
static_assert(api::kStreamNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(api::kCaptureThreadLocal == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
static_assert(api::kTensorMapUint8 == CU_TENSOR_MAP_DATA_TYPE_UINT8);
static_assert(api::kTensorMapInt32 == CU_TENSOR_MAP_DATA_TYPE_INT32);
static_assert(api::kTensorMapFloat16 == CU_TENSOR_MAP_DATA_TYPE_FLOAT16);
static_assert(api::kTensorMapFloat32 == CU_TENSOR_MAP_DATA_TYPE_FLOAT32);
static_assert(api::kTensorMapBfloat16 == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16);
static_assert(api::kTensorMapInterleaveNone == CU_TENSOR_MAP_INTERLEAVE_NONE);
static_assert(api::kTensorMapSwizzleNone == CU_TENSOR_MAP_SWIZZLE_NONE);
static_assert(api::kTensorMapSwizzle32 == CU_TENSOR_MAP_SWIZZLE_32B);
static_assert(api::kTensorMapSwizzle64 == CU_TENSOR_MAP_SWIZZLE_64B);
static_assert(api::kTensorMapSwizzle128 == CU_TENSOR_MAP_SWIZZLE_128B);
static_assert(api::kTensorMapPromotion256 == CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
static_assert(api::kTensorMapFillZeros == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
#else
TEST(Driver, SymbolsAreThoseOfTheHeader) { GTEST_SKIP() << "NOT TESTED: THERE IS NO <cuda.h> HERE"; }
#endif

/// The text of the Error with `code` that `function` throws.
template <class Function>
std::string error_of(ErrorCode code, Function&& function) {
  try {
    function();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

void expect_in(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << '"' << part << "\" is not in: " << text;
}

TEST(Driver, WithoutDriverSaysWhatIsMissing) {
  std::string why;
  if (driver_version(&why) != 0) GTEST_SKIP() << "this machine has a driver";
  EXPECT_EQ(device_count(), 0);
  expect_in("NVIDIA driver is missing", why);
  expect_in("CPU backend works without it", why);
  EXPECT_EQ(error_of(ErrorCode::unavailable, [] { DeviceContext context(0); }), why);
  EXPECT_EQ(error_of(ErrorCode::unavailable, [] { encode({}); }), why);
}

// The tests below run in processes of their own, with tests/fake_driver before the real one.

using test::fake_log;
#define DG_WITH_FAKE_DRIVER(name, ...) DG_FAKE_DRIVER_TEST(Driver, name __VA_OPT__(, ) __VA_ARGS__)

DG_WITH_FAKE_DRIVER(DeviceProperties) {
  std::string why = "x";
  EXPECT_EQ(driver_version(&why), 13000);
  EXPECT_EQ(why, "");
  EXPECT_EQ(device_count(), 1);
  const DeviceProperties p = device_properties(0);
  EXPECT_EQ(p.info.name, "Fake GPU");
  EXPECT_EQ(p.info.num_sms, 133);
  EXPECT_EQ(p.info.smem_bytes, 232448);
  EXPECT_EQ(p.info.l2_bytes, 50 << 20);
  EXPECT_NEAR(p.info.clock_ghz, 1.98, 1e-12);
  EXPECT_NEAR(p.info.hbm_gbytes_per_s, 3352.32, 1e-6);
  EXPECT_EQ(p.info.max_clusters_of_2, 66);
  EXPECT_EQ(p.compute_capability, 90);
  EXPECT_EQ(p.memory_bytes, int64_t{80} << 30);
  EXPECT_EQ(p.uuid, "GPU-00112233-4455-6677-8899-aabbccddeeff");
  expect_in("there is no cuda:1: this machine has 1 CUDA device",
            error_of(ErrorCode::unavailable, [] { device_properties(1); }));
  expect_in("there is no cuda:-1", error_of(ErrorCode::unavailable, [] { DeviceContext context(-1); }));
}

// In a child, CUDA is an error that says so; nothing hangs, and what the parent made can be destroyed.
DG_WITH_FAKE_DRIVER(AfterForkCudaIsAnError) {
  auto context = std::make_unique<DeviceContext>(0);
  EXPECT_EQ(test::in_child(
                [&] {
                  const std::string text =
                      error_of(ErrorCode::unavailable, [&] { DeviceContext::Scope scope(*context); });
                  if (text.find("before this process was forked") == std::string::npos) return 1;
                  if (error_of(ErrorCode::unavailable, [] { DeviceContext(0); }) != text) return 2;
                  if (error_of(ErrorCode::unavailable, [] { deep_gemm::Context({DeviceType::cuda, 0}); }) != text)
                    return 3;
                  context.reset();
                  deep_gemm::Context cpu;
                  return 0;
                },
                30),
            0);
  const DeviceContext::Scope scope(*context);
}

DG_WITH_FAKE_DRIVER(OtherGpusAreRefused, {"FAKE_CC=80"}) {
  EXPECT_EQ(device_properties(0).compute_capability, 80);
  const std::string text = error_of(ErrorCode::unavailable, [] { DeviceContext context(0); });
  expect_in("Fake GPU", text);
  expect_in("8.0", text);
  expect_in("9.0", text);
}

DG_WITH_FAKE_DRIVER(DriverThatDoesNotStart, {"FAKE_FAIL=cuInit"}) {
  std::string why;
  EXPECT_EQ(driver_version(&why), 13000);
  expect_in("cuInit: CUDA_ERROR_INVALID_VALUE (invalid argument)", why);
  EXPECT_EQ(device_count(), 0);
  EXPECT_EQ(error_of(ErrorCode::unavailable, [] { device_properties(0); }), why);
}

DG_WITH_FAKE_DRIVER(ScopePushesOnlyWhatIsNotCurrent) {
  {
    const DeviceContext context(0);
    fake_log();
    {
      const DeviceContext::Scope outer(context);
      EXPECT_EQ(fake_log(), "cuCtxPushCurrent 192\n");
      { const DeviceContext::Scope inner(context); }
      EXPECT_EQ(fake_log(), "");
      std::thread([&] { const DeviceContext::Scope other(context); }).join();
      EXPECT_EQ(fake_log(), "cuCtxPushCurrent 192\ncuCtxPopCurrent 192\n");
    }
    EXPECT_EQ(fake_log(), "cuCtxPopCurrent 192\n");
  }
  expect_in("cuDevicePrimaryCtxRelease 0\n", fake_log());
}

DG_WITH_FAKE_DRIVER(KernelUnloadsWithItsLastCopy) {
  const DeviceContext context(0);
  const std::byte cubin[] = {std::byte{7}, std::byte{8}};
  Kernel copy;
  EXPECT_FALSE(copy);
  {
    const DeviceContext::Scope scope(context);
    fake_log();
    const Kernel kernel(cubin, "some_kernel", 200000);
    EXPECT_EQ(fake_log(),
              "cuModuleLoadData 7\nsome_kernel\ncuModuleGetFunction\ncuFuncSetAttribute 240 8 200000\n"
              "cuFuncSetAttribute 240 9 100\n");
    EXPECT_TRUE(kernel);
    EXPECT_EQ(kernel.max_active_clusters(2, 384, 1000), 66);
    EXPECT_EQ(fake_log(), "cluster 2 1 1\ncuOccupancyMaxActiveClusters 2 1 1 384 1 1 1000 0 1\n");
    EXPECT_EQ(kernel.max_active_blocks(384, 1000), 3);
    EXPECT_EQ(fake_log(), "cuOccupancyMaxActiveBlocksPerMultiprocessor 384 1000\n");
    copy = kernel;
    const Kernel without_smem(cubin, "other", 0);
    EXPECT_EQ(fake_log(), "cuModuleLoadData 7\nother\ncuModuleGetFunction\n");
  }
  fake_log();
  copy = Kernel();
  EXPECT_EQ(fake_log(), "cuCtxPushCurrent 192\ncuModuleUnload 208 192\ncuCtxPopCurrent 192\n");
}

DG_WITH_FAKE_DRIVER(LaunchPassesEverythingOn) {
  const DeviceContext context(0);
  const DeviceContext::Scope scope(context);
  const std::byte cubin[] = {std::byte{7}};
  const Kernel kernel(cubin, "k", 0);
  int argument = 42;
  void* params[] = {&argument};
  const Stream stream{reinterpret_cast<void*>(0x1234)};
  fake_log();
  launch(kernel, {.grid = {5, 6, 7}, .block_threads = 384, .smem_bytes = 99}, stream, params);
  EXPECT_EQ(fake_log(), "params 42 240 0\ncuLaunchKernelEx 5 6 7 384 1 1 99 4660 0\n");
  launch(kernel, {.grid = {4, 1, 1}, .cluster = 2, .programmatic = true}, stream, params);
  EXPECT_EQ(fake_log(), "params 42 240 0\ncluster 2 1 1\nprogrammatic 1\ncuLaunchKernelEx 4 1 1 128 1 1 0 4660 2\n");
  launch(kernel, {.programmatic = true}, {}, params);
  EXPECT_EQ(fake_log(), "params 42 240 0\nprogrammatic 1\ncuLaunchKernelEx 1 1 1 128 1 1 0 0 1\n");
}

DG_WITH_FAKE_DRIVER(LaunchNamesWhatWasRefused, {"FAKE_FAIL=cuLaunchKernelEx"}) {
  int argument = 42;
  void* params[] = {&argument};
  const std::string text = error_of(ErrorCode::cuda, [&] {
    launch(Kernel(), {.grid = {5, 6, 7}, .block_threads = 384, .cluster = 2, .smem_bytes = 99}, {}, params);
  });
  EXPECT_EQ(text,
            "cuLaunchKernelEx: CUDA_ERROR_INVALID_VALUE (invalid argument); grid [5, 6, 7], 384 threads, cluster 2, 99 "
            "bytes of shared memory");
}

DG_WITH_FAKE_DRIVER(TensorMaps) {
  EncodedTensorMap map;
  const auto encoded = [&](TensorMapSpec spec) {
    map = encode(spec);
    return fake_log();
  };
  std::string ignored;
  driver_version(&ignored);
  fake_log();
  EXPECT_EQ(encoded({.dtype = DType::e5m2,
                     .rank = 2,
                     .base = reinterpret_cast<void*>(4096),
                     .dims = {7168, 4096},
                     .stride_bytes = {7168},
                     .box = {128, 64},
                     .swizzle = TensorMapSpec::Swizzle::b128}),
            "dim 7168 7168 128 1\ndim 4096 0 64 1\ncuTensorMapEncodeTiled 0 2 4096 0 3 3 0\n");
  // What it is told: type, swizzle, rank, base, dims, strides, box, and what fills the rest.
  constexpr uint64_t kWords[16] = {0, 3, 2, 4096, 7168, 4096, 0, 0, 7168, 0, 0, 128, 64, 0, 0, 0x5A};
  EXPECT_EQ(std::memcmp(map.bytes.data(), kWords, sizeof kWords), 0);
  EXPECT_EQ(encoded({.dtype = DType::bf16, .rank = 3, .dims = {1, 2, 3}, .stride_bytes = {16, 32}, .box = {4, 5, 6}}),
            "dim 1 16 4 1\ndim 2 32 5 1\ndim 3 0 6 1\ncuTensorMapEncodeTiled 9 3 0 0 0 3 0\n");
  const auto types = [&](DType dtype, TensorMapSpec::Swizzle swizzle) {
    const std::string text = encoded({.dtype = dtype, .rank = 1, .swizzle = swizzle});
    return text.substr(text.find('\n') + 1);
  };
  using enum TensorMapSpec::Swizzle;
  EXPECT_EQ(types(DType::e4m3, b32), "cuTensorMapEncodeTiled 0 1 0 0 1 3 0\n");
  EXPECT_EQ(types(DType::f16, b64), "cuTensorMapEncodeTiled 6 1 0 0 2 3 0\n");
  EXPECT_EQ(types(DType::f32, none), "cuTensorMapEncodeTiled 7 1 0 0 0 3 0\n");
  EXPECT_EQ(types(DType::i32, none), "cuTensorMapEncodeTiled 3 1 0 0 0 3 0\n");
}

DG_WITH_FAKE_DRIVER(TensorMapErrorsGiveTheNumbers, {"FAKE_FAIL=cuTensorMapEncodeTiled"}) {
  const std::string text = error_of(ErrorCode::cuda, [] {
    encode({.dtype = DType::bf16, .rank = 2, .dims = {7, 8}, .stride_bytes = {15}, .box = {64, 32}});
  });
  for (const char* part : {"cuTensorMapEncodeTiled", "bf16", "dims [7, 8", "stride bytes [15", "box [64, 32"})
    expect_in(part, text);
}

DG_WITH_FAKE_DRIVER(Memory) {
  std::vector<unsigned char> in(1000), out(1000);
  std::iota(in.begin(), in.end(), static_cast<unsigned char>(0));
  DeviceBuffer buffer(1000);
  EXPECT_EQ(buffer.bytes(), 1000U);
  copy_to_device(buffer.data(), in.data(), in.size());
  fake_log();
  DeviceBuffer moved = std::move(buffer);
  EXPECT_EQ(buffer.data(), nullptr);  // NOLINT: a moved-from buffer is empty
  copy_to_host(out.data(), moved.data(), out.size());
  EXPECT_EQ(out, in);
  fill(moved.data(), 0xAB, 500, {});
  copy_to_host(out.data(), moved.data(), out.size());
  for (std::size_t i = 0; i < 1000; ++i) ASSERT_EQ(out[i], i < 500 ? 0xAB : in[i]) << i;
  fake_log();
  moved = DeviceBuffer();
  EXPECT_EQ(fake_log(), "cuMemFree 0\n");
  {
    const Stream stream{reinterpret_cast<void*>(0x99)};
    const ScratchBuffer scratch(256, stream);
    EXPECT_NE(scratch.data(), nullptr);
    EXPECT_EQ(fake_log(), "cuMemAllocAsync 256 153\n");
  }
  EXPECT_EQ(fake_log(), "cuMemFreeAsync 153\n");
  {
    const ScratchBuffer nothing(0, {});
    const DeviceBuffer none(0);
    copy_to_device(nullptr, nullptr, 0);
    copy_to_host(nullptr, nullptr, 0);
    fill(nullptr, 0, 0);
  }
  EXPECT_EQ(fake_log(), "");
}

DG_WITH_FAKE_DRIVER(FailedAllocationsSayHowMuch, {"FAKE_FAIL=cuMemAlloc"}) {
  expect_in("1073741824 bytes", error_of(ErrorCode::cuda, [] { DeviceBuffer buffer(1 << 30); }));
}

DG_WITH_FAKE_DRIVER(StreamsGraphsEvents) {
  driver_version();
  fake_log();
  {
    const OwnedStream stream;
    begin_capture(stream);
    const Graph graph(stream);
    graph.launch(stream);
    Event start, end;
    start.record(stream);
    EXPECT_EQ(Event::elapsed_ms(start, end), 1.5);
    synchronize(stream);
  }
  EXPECT_EQ(fake_log(),
            "cuStreamCreate 1\ncuStreamBeginCapture 80 1\ncuStreamEndCapture 80\ncuGraphInstantiate 96 0\n"
            "cuGraphLaunch 97 80\ncuEventCreate 0\ncuEventCreate 0\ncuEventRecord 112 80\ncuEventSynchronize 112\n"
            "cuEventElapsedTime 112 112\ncuStreamSynchronize 80\ncuEventDestroy 112\ncuEventDestroy 112\n"
            "cuGraphExecDestroy 97\ncuGraphDestroy 96\ncuStreamDestroy 80\n");
}

DG_WITH_FAKE_DRIVER(FailedInstantiationLeaksNoGraph, {"FAKE_FAIL=cuGraphInstantiate"}) {
  const OwnedStream stream;
  fake_log();
  expect_in("cuGraphInstantiate", error_of(ErrorCode::cuda, [&] { Graph graph(stream); }));
  expect_in("cuGraphDestroy 96\n", fake_log());
}

}  // namespace
}  // namespace deep_gemm::cuda
