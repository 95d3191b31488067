// Every kernel that the plan ships for DeepSeek-V3's layers, through NVRTC for sm_90a: no spills, few enough registers,
// nothing serialised; and every device header alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <deep_gemm/gemm/layout.cuh>

#include "gemm/kernel_source.h"
#include "gemm_support.h"
#include "host/scratch.h"
#include "jit/jit.h"

namespace deep_gemm {
namespace {

class GemmKernels : public testing::Test {
 protected:
  void SetUp() override {
    try {
      compiler_ = jit::open_compiler(CompilerChoice::nvrtc);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unavailable) throw;
      GTEST_SKIP() << "NOT TESTED: there is no NVRTC here: " << error.what();
    }
  }
  const jit::Compiler& compiler() const { return *compiler_; }

  static unsigned threads() { return std::clamp(std::thread::hardware_concurrency(), 1u, 16u); }

  /// Kernels as they must be.
  void expect_good(const std::vector<GemmConfig>& configs) {
    test::in_parallel(configs.size(), threads(), [&](std::size_t i) {
      const GemmConfig& config = configs[i];
      const jit::KernelSource source = kernel_source(config);
      const jit::Binary binary = compiler().compile(source);
      const std::string_view cubin(reinterpret_cast<const char*>(binary.cubin.data()), binary.cubin.size());
      EXPECT_EQ(binary.spill_bytes, 0) << source.entry;
      // What setmaxnreg shares out between two math warpgroups and the load warpgroup, 65536 / 384 rounded down to 8,
      // is what the launch needs; one math warpgroup has what the hardware allows.
      EXPECT_LE(binary.registers, math_warpgroups(config) == 2 ? 168 : 255) << source.entry;
      EXPECT_GT(binary.registers, 0) << source.entry;
      EXPECT_NE(cubin.find(source.entry), std::string_view::npos) << source.entry << " is not in its cubin";
      EXPECT_EQ(binary.log.find("serialized"), std::string::npos) << source.entry << ": " << binary.log;
    });
  }

 private:
  std::unique_ptr<jit::Compiler> compiler_;
};

void add_new(std::vector<GemmConfig>& configs, const std::vector<GemmConfig>& more) {
  for (const GemmConfig& config : more)
    if (std::find(configs.begin(), configs.end(), config) == configs.end()) configs.push_back(config);
}

TEST_F(GemmKernels, OfDeepSeekLayersOnH100) {
  std::vector<GemmConfig> configs;
  for (const test::LayerShape& layer : test::kDeepSeekLayers)
    add_new(configs, kernels_for({.n = layer.n, .k = layer.k}, DeviceInfo::h100()));
  expect_good(configs);
}

TEST_F(GemmKernels, F32AccumulatingAndUnscaled) {
  const auto [n, k] = test::kDeepSeekLayers[5];
  std::vector<GemmConfig> configs;
  add_new(configs, kernels_for({.n = n, .k = k, .d_type = DType::f32}, DeviceInfo::h100()));
  add_new(configs, kernels_for({.n = n, .k = k, .accumulate = true}, DeviceInfo::h100()));
  add_new(configs, kernels_for({.n = n, .k = k, .d_type = DType::f32, .accumulate = true}, DeviceInfo::h100()));
  add_new(configs, kernels_for({.n = n, .k = k, .scaled_a = false}, DeviceInfo::h100()));
  expect_good(configs);
}

TEST_F(GemmKernels, OfExperts) {
  const auto [n, k] = test::kDeepSeekLayers[5];
  std::vector<GemmConfig> configs;
  for (const Layout layout : {Layout::contiguous, Layout::offsets, Layout::masked})
    add_new(configs, kernels_for({.n = n, .k = k, .layout = layout, .groups = 32}, DeviceInfo::h100()));
  expect_good(configs);
}

TEST_F(GemmKernels, WithTheMostRegistersAndTheOddestTiles) {
  expect_good({{.tile_m = 64, .tile_n = 208},
               {.tile_m = 128, .tile_n = 256, .stages = 3, .kept_blocks = 4},
               {.d_type = DType::f32, .accumulate = true, .tile_m = 128, .tile_n = 192, .stages = 3, .kept_blocks = 4},
               {.tile_m = 128, .tile_n = 192, .stages = 3},
               {.tile_m = 256, .tile_n = 128, .stages = 3},
               {.d_type = DType::f32, .accumulate = true, .tile_m = 256, .tile_n = 128, .stages = 3},
               {.d_type = DType::f32, .accumulate = true, .tile_m = 128, .tile_n = 176, .stages = 3},
               {.tile_m = 128, .tile_n = 112, .cluster = 2, .multicast = Multicast::a, .unroll = 2},
               {.tile_m = 64, .tile_n = 16, .stages = 16, .cluster = 2, .multicast = Multicast::b}});
}

TEST_F(GemmKernels, EveryDeviceHeaderCompilesAlone) {
  const std::span<const jit::EmbeddedHeader> headers = jit::embedded_headers();
  EXPECT_GE(headers.size(), 10u);
  test::in_parallel(headers.size(), threads(), [&](std::size_t i) {
    const std::string path(headers[i].path);
    // Twice, so that a missing #pragma once shows.
    const std::string text =
        fmt::format("#include <{0}>\n#include <{0}>\nextern \"C\" __global__ void nothing() {{}}\n", path);
    try {
      EXPECT_FALSE(compiler().compile({"nothing", text}).cubin.empty()) << path;
    } catch (const Error& error) {
      ADD_FAILURE() << path << ": " << error.what();
    }
  });
}

TEST_F(GemmKernels, IllegalConfigsDoNotCompile) {
  try {
    compiler().compile(kernel_source({.tile_m = 256, .tile_n = 256}));
    ADD_FAILURE() << "compiled";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::compiler);
    EXPECT_NE(std::string(error.what()).find("the plan never asks for this"), std::string::npos) << error.what();
  }
}

TEST_F(GemmKernels, AheadOfTimeNeedNoGpuAndAreCompiledOnce) {
  const Scratch scratch;
  const GemmConfig config = kernels_for({.n = 4096, .k = 7168}, DeviceInfo::h100()).front();
  Context first({}, {.cache_dirs = {scratch.path("cache")}});
  const CompileReport compiled = compile(first, config);
  EXPECT_EQ(compiled.name, kernel_name(config));
  EXPECT_FALSE(compiled.cached);
  EXPECT_EQ(compiled.spill_bytes, 0);
  EXPECT_GT(compiled.seconds, 0);

  Context second({}, {.cache_dirs = {scratch.path("cache")}});
  const CompileReport cached = compile(second, config);
  EXPECT_TRUE(cached.cached);
  EXPECT_EQ(cached.name, compiled.name);
  EXPECT_EQ(cached.compiler, compiled.compiler);
  EXPECT_EQ(cached.registers, compiled.registers);
}

}  // namespace
}  // namespace deep_gemm
