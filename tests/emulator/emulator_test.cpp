// What the emulator is for: faults planted into the kernel's source, and rules of the hardware that small kernels break. Each
// must be named; the other tests of this program are those of tests/device.
#include <cstdlib>

#include "gemm_support.h"
#include "host/scratch.h"
#include "self_process.h"

namespace deep_gemm::test {
namespace {

struct Fault {
  const char* name;
  const char* edit;  ///< "from=>to" in the device headers; null: none
  const char* said;  ///< by the child
  GemmConfig config;
  int64_t k = 500;
};

constexpr GemmConfig kPlain{.tile_m = 128, .tile_n = 128, .stages = 3};
constexpr GemmConfig kShared{.tile_m = 128, .tile_n = 64, .stages = 3, .cluster = 2, .multicast = Multicast::b};
constexpr GemmConfig kSplit{.tile_m = 64, .tile_n = 64, .stages = 3, .cluster = 2, .split_k = true};
constexpr GemmConfig kKept{.tile_m = 128, .tile_n = 64, .stages = 3, .kept_blocks = 4};
constexpr const char* kOverlap = "has not finished with";

const Fault kFaults[] = {
    {"LoadsBeforeASlotIsEmpty", "        ring.wait_empty(at, tile);\n        if (!ptx=>        if (!ptx", "deadlock",
     kPlain},
    {"MultipliesBeforeASlotIsFull", "if (!is_full) ring.wait_full(at, tile);=>", kOverlap, kPlain},
    {"KeptRowsAreReplacedTooEarly", "kept.wait_empty({step, kept_rows.phase}, tile);=>", "deadlock", kKept, 200},
    {"WgmmaIsNotWaitedFor", "::wait(partial);=>::wait;", kOverlap, kPlain},
    {"ReleasesOnlyItsOwnSlot", "release<sharers(C)>(ring, at);=>release<1>(ring, at);", "deadlock", kShared},
    {"AnotherCtaIsStillOnItsWayHere", "if constexpr (sharers(C) > 1) ring.drain(at);=>", "which has ended", kShared},
    {"PartsAreOverwritten", "  ring.wait_empty(at, tile);\n  if (threadIdx.x == 0)=>  if (threadIdx.x == 0)", kOverlap,
     kSplit},
    {"LanesHaveNotReadYet", "  __syncwarp();\n  release<kRanks>=>  release<kRanks>", "elements are wrong", kSplit},
    {"SharedMemoryIsTooSmall",
     "s.d = at, at += slots * panel_bytes(c);=>s.d = at + (1 << 16), at += slots * panel_bytes(c);",
     "of shared memory, of which the launch has", kPlain},
    {"BytesThatNeverCome", "(full, args.stage_bytes);=>(full, args.stage_bytes + 16);", "16 bytes were missing",
     kPlain},
    {"AWarpStaysAway", "    ptx::block_sync(kStagesReady, 64);\n    if constexpr=>    if constexpr",
     "barrier 1, where 64 threads meet", kPlain},
    {"BarriersAreNotFenced", "kept.init();\n        ptx::fence_mbarrier_init();=>kept.init();",
     "no fence.mbarrier_init followed", kPlain},
    {"StagedRowsAreNotFenced", "    ptx::fence_proxy_async();=>", "without a fence.proxy.async", kPlain},
    {"EndsBeforeDIsRead", "  if (is_leader) ptx::tma_store_wait_read<0>();\n}=>}", "had not happened when CTA", kPlain},
    {"DIsNotSwizzled", "return offset ^ ((offset >> 7 & kChunkMask) << 4);=>return offset;", "elements are wrong",
     kPlain},
    {"Nothing", nullptr, "PASSED", kPlain},
    {"NothingShared", nullptr, "PASSED", kShared},
    {"NothingSplit", nullptr, "PASSED", kSplit},
    {"NothingKept", nullptr, "PASSED", kKept},
};

class EmulatorTest : public BackendTest {
 protected:
  EmulatorTest() : BackendTest(DeviceType::cuda) {}
  void SetUp() override {
    BackendTest::SetUp();
    if (!IsSkipped() && is_fast()) GTEST_SKIP() << "NOT TESTED: this is a GPU, and not the emulator";
  }

  void launch(const char* entry, const std::string& text, unsigned threads, void* argument) {
    const cuda::Kernel& kernel = context().impl().kernel(entry, text, 1024);
    cuda::launch(kernel, {.block_threads = threads, .smem_bytes = 1024}, {}, &argument);
  }
};

/// In a process of its own: a product of several tiles a CTA, in twelve or ORDERS of the emulator's orders.
TEST_F(EmulatorTest, DISABLED_Product) {
  const Fault& fault = kFaults[std::atoi(std::getenv("FAULT"))];
  const char* orders = std::getenv("ORDERS");
  for (int i = 0; i < (orders ? std::atoi(orders) : 12); ++i) {
    try {
      Product(context(), {.m = 384, .n = 256, .k = fault.k}).check({.num_sms = 2, .config = fault.config});
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

/// What the test above says with a fault.
jit::ProcessResult run_product(const std::string& edit, std::size_t fault,
                               const std::vector<std::string>& variables = {}) {
  const Scratch kernels;  // their keys do not know of the fault
  std::vector<std::string> environment = {fmt::format("FAULT={}", fault), "DG_JIT_CACHE_DIR=" + kernels.path("cache")};
  if (!edit.empty()) environment.push_back("DG_EMULATOR_EDIT=" + edit);
  environment.insert(environment.end(), variables.begin(), variables.end());
  return run_self("EmulatorTest.DISABLED_Product", environment);
}

class EmulatorFaultTest : public EmulatorTest, public testing::WithParamInterface<std::size_t> {};

TEST_P(EmulatorFaultTest, IsSeen) {
  const Fault& fault = kFaults[GetParam()];
  const jit::ProcessResult result = run_product(fault.edit ? fault.edit : "", GetParam());
  EXPECT_EQ(result.status == 0, fault.edit == nullptr) << result.output;
  EXPECT_NE(result.output.find(fault.said), std::string::npos) << result.output;
}

INSTANTIATE_TEST_SUITE_P(Planted, EmulatorFaultTest, testing::Range(std::size_t{0}, std::size(kFaults)),
                         [](const auto& fault) { return std::string(kFaults[fault.param].name); });

TEST_F(EmulatorTest, ASeedRepeatsARun) {
  const auto errors = [](const std::string& seed) {
    const std::string output = run_product(kFaults[1].edit, 1, {"DG_EMULATOR_SEED=" + seed, "ORDERS=1"}).output;
    const std::size_t first = output.find("CUDA_ERROR_LAUNCH_FAILED"), last = output.rfind("(seed " + seed + ")");
    EXPECT_LT(first, last) << output;
    EXPECT_NE(last, std::string::npos) << output;
    return output.substr(first, last - first);
  };
  const std::string first = errors("5");
  EXPECT_EQ(errors("5"), first);
  EXPECT_TRUE(errors("8") != first || errors("11") != first) << first;
}

TEST_F(EmulatorTest, KernelsAreWatchedForUndefinedBehaviour) {
  const std::vector<std::string> variables = {"DG_EMULATOR_FLAGS=-fsanitize=undefined -fno-sanitize-recover",
                                              "ORDERS=1"};
  const char* shift = "return offset ^ ((offset >> 7 & kChunkMask) << 4);=>return offset ^ (1 << (offset | 32));";
  const jit::ProcessResult result = run_product(shift, 0, variables);
  EXPECT_NE(result.output.find("runtime error: shift exponent"), std::string::npos) << result.output;
  for (std::size_t i = 0; i < std::size(kFaults); ++i) {
    if (kFaults[i].edit) continue;
    const jit::ProcessResult right = run_product("", i, variables);
    EXPECT_EQ(right.status, 0) << right.output;
  }
}

/// In a process of its own, which looks for races.
TEST_F(EmulatorTest, DISABLED_Lanes) {
  const auto text = [](const char* entry, const char* between) {
    return fmt::format(
        "extern \"C\" __global__ void {}(int* sum) {{\n"
        "  extern __shared__ int shared[];\n"
        "  shared[threadIdx.x] = threadIdx.x;\n"
        "  {}\n"
        "  *sum += shared[threadIdx.x ^ 1];\n"
        "}}\n",
        entry, between);
  };
  const cuda::DeviceBuffer buffer(sizeof(int));
  void* sum = buffer.data();
  EXPECT_NO_THROW(launch("ordered", text("ordered", "__syncwarp();"), 32, &sum));
  EXPECT_NO_THROW(launch("together", text("together", "__syncthreads();"), 128, &sum));
  for (int i = 0; i < 9; ++i)  // whatever the order
    expect_error(ErrorCode::cuda, "and nothing orders this and what warp 0, lane",
                 [&] { launch("racing", text("racing", ""), 32, &sum); });
  expect_error(ErrorCode::cuda, "and nothing orders this and what warp 0, lane",
               [&] { launch("shuffled", text("shuffled", "__shfl_sync(~0u, 1, 0);"), 32, &sum); });
}

TEST_F(EmulatorTest, RacesAreSeenInAnyOrder) {
  const std::vector<std::string> variables = {"DG_EMULATOR_RACES=1", "ORDERS=3"};
  const jit::ProcessResult lanes = run_self("EmulatorTest.DISABLED_Lanes", {"DG_EMULATOR_RACES=1"});
  EXPECT_EQ(lanes.status, 0) << lanes.output;
  for (std::size_t i = 0; i < std::size(kFaults); ++i) {
    if (kFaults[i].edit && std::string(kFaults[i].name) != "LanesHaveNotReadYet") continue;
    const jit::ProcessResult result = run_product(kFaults[i].edit ? kFaults[i].edit : "", i, variables);
    EXPECT_EQ(result.status == 0, kFaults[i].edit == nullptr) << result.output;
    if (!kFaults[i].edit) continue;
    EXPECT_NE(result.output.find("an st.async by CTA 1: nothing orders this and what warp"), std::string::npos)
        << result.output;
  }
}

TEST_F(EmulatorTest, AnEditThatFitsNowhereIsAnError) {
  for (const char* edit : {"this stands nowhere=>", "no arrow", "#pragma once=>"}) {
    const jit::ProcessResult result = run_product(edit, 0);
    EXPECT_NE(result.output.find("DG_EMULATOR_EDIT is no"), std::string::npos) << result.output;
    EXPECT_NE(result.status, 0);
  }
}

TEST_F(EmulatorTest, WritesBesideAnAllocationAreSeen) {
  const cuda::DeviceBuffer buffer(100);
  void* data = buffer.data();
  const auto write_at = [&](int at, const char* entry) {
    launch(entry, fmt::format("extern \"C\" __global__ void {}(unsigned char* p) {{ p[{}] = 1; }}\n", entry, at), 32,
           &data);
  };
  EXPECT_NO_THROW(write_at(99, "inside"));
  expect_error(ErrorCode::cuda, "beside wrote beside an allocation of 100 bytes", [&] { write_at(100, "beside"); });
}

TEST_F(EmulatorTest, LanesThatPartAreSeen) {
  int unused = 0;
  const auto expect_failure = [&](const char* entry, const char* body, const char* said) {
    const std::string text = fmt::format("extern \"C\" __global__ void {}(int) {{ {} }}\n", entry, body);
    expect_error(ErrorCode::cuda, said, [&] { launch(entry, text, 64, &unused); });
  };
  expect_failure("parts", "if (threadIdx.x < 31) __syncwarp(); else __syncthreads();", "deadlock: CTA 0, warp 0");
  expect_failure("mixes", "if (threadIdx.x % 2) __syncwarp(); else __shfl_sync(~0u, 1, 0);", "of another lane");
  expect_failure("halves", "__shfl_sync(0xffffu, 1, 0);", "a collective of less than a warp");
}

TEST_F(EmulatorTest, TensorMapsThatTheHardwareHasNotAreRefused) {
  const cuda::DeviceBuffer buffer(1 << 20);
  const cuda::TensorMapSpec good{.base = buffer.data(),
                                 .dims = {256, 256},
                                 .stride_bytes = {256},
                                 .box = {128, 64},
                                 .swizzle = cuda::TensorMapSpec::Swizzle::b128};
  const cuda::EncodedTensorMap encoded = cuda::encode(good);
  EXPECT_NE(encoded.bytes[0], std::byte{0});
  const auto expect_refused = [&](auto change) {
    cuda::TensorMapSpec bad = good;
    change(bad);
    expect_error(ErrorCode::cuda, "CUDA_ERROR_INVALID_VALUE",
                 [&] { [[maybe_unused]] const auto refused = cuda::encode(bad); });
  };
  expect_refused([](auto& map) { map.base = static_cast<char*>(map.base) + 8; });
  expect_refused([](auto& map) { map.stride_bytes[0] = 264; });
  expect_refused([](auto& map) { map.dims[1] = 0; });
  expect_refused([](auto& map) { map.box[1] = 257; });
  expect_refused([](auto& map) { map.box[0] = 120; });
  expect_refused([](auto& map) { map.box[0] = 256; });  // more than a swizzled row has
}

}  // namespace
}  // namespace deep_gemm::test
