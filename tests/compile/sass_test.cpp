// The machine code of the shipped kernels: what ptxas made of the source is what the speed rests on.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include <deep_gemm/gemm/layout.cuh>

#include "gemm/kernel_source.h"
#include "gemm_support.h"
#include "jit/jit.h"
#include "jit/process.h"

namespace deep_gemm {
namespace {

/// What is wrong with a kernel's machine code; empty if nothing is. wgmma appears as QGMMA; the last of those that the source
/// commits together carries gsb0, and those of a block of k are four.
std::string fault(const std::string& sass, const std::string& shape) {
  int in_group = 0, groups = 0, moves = 0;
  std::size_t begin = 0;
  while (begin < sass.size()) {
    const std::size_t end = std::min(sass.find('\n', begin), sass.size());
    const std::string_view line = std::string_view(sass).substr(begin, end - begin);
    begin = end + 1;
    const auto has = [&](std::string_view what) { return line.find(what) != std::string_view::npos; };
    if (has(" LDL") || has(" STL")) return fmt::format("local memory: {}", line);
    // A few values may be kept in other registers for want of uniform ones; four moves a descriptor are another thing.
    if (has(" R2UR") && in_group > 0 && ++moves > 4)
      return fmt::format("descriptors are not in uniform registers: {}", line);
    if (!has("GMMA.")) continue;
    if (!has("QGMMA." + shape)) return fmt::format("expected QGMMA.{}: {}", shape, line);
    ++in_group;
    if (has("gsb0") != (in_group == 4)) return fmt::format("wgmma are serialised: {}", line);
    if (in_group == 4) in_group = moves = 0, ++groups;
  }
  return groups > 0 ? "" : "no wgmma";
}

std::string shape_of(const GemmConfig& c) {
  const auto type = [](DType t) { return t == DType::e4m3 ? "E4M3" : "E5M2"; };
  return fmt::format("64x{}x32.F32.{}.{}", wave_cols(c), type(c.a_type), type(c.b_type));
}

TEST(Sass, FaultsAreFound) {
  const std::string shape = "64x128x32.F32.E4M3.E4M3";
  const auto multiply = [](const char* more) {
    return fmt::format("  /*0010*/ QGMMA.64x128x32.F32.E4M3.E4M3 R24, gdesc[UR8], R24{} ;\n", more);
  };
  const std::string three = multiply("") + multiply("") + multiply(""), good = three + multiply(", gsb0");
  EXPECT_EQ(fault(good + " R2UR UR8, R3 ;\n" + good, shape), "");
  EXPECT_EQ(fault("  /*0000*/ MOV R1, c[0x0][0x28] ;\n", shape), "no wgmma");
  EXPECT_NE(fault(good, "64x192x32.F32.E4M3.E4M3").find("expected"), std::string::npos);
  EXPECT_NE(fault(good + "  /*0020*/ LDL R3, [R1] ;\n", shape).find("local memory"), std::string::npos);
  EXPECT_NE(fault(good + "  /*0020*/ STL.64 [R1], R2 ;\n", shape).find("local memory"), std::string::npos);
  const std::string four = multiply("") + std::string("  /*0020*/ R2UR UR8, R3 ;\n") + "  /*0030*/ R2UR UR9, R4 ;\n" +
                           "  /*0040*/ R2UR UR10, R5 ;\n" + "  /*0050*/ R2UR UR11, R6 ;\n";
  EXPECT_NE(fault(four + four + four + multiply(", gsb0"), shape).find("uniform"), std::string::npos);
  EXPECT_NE(fault(multiply(", gsb0") + good, shape).find("serialised"), std::string::npos);
  EXPECT_NE(fault(three + multiply(""), shape).find("serialised"), std::string::npos);
}

class ShippedSass : public testing::Test {
 protected:
  void SetUp() override {
    disassembler_ = jit::find_program("nvdisasm", {"/usr/local/cuda/bin"});
    if (disassembler_.empty()) GTEST_SKIP() << "NOT TESTED: there is no nvdisasm here";
    try {
      compiler_ = jit::open_compiler(CompilerChoice::nvrtc);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unavailable) throw;
      GTEST_SKIP() << "NOT TESTED: there is no NVRTC here: " << error.what();
    }
  }

  void expect_good(const std::vector<GemmConfig>& configs) {
    test::in_parallel(configs.size(), std::clamp(std::thread::hardware_concurrency(), 1u, 16u), [&](std::size_t i) {
      const jit::KernelSource source = kernel_source(configs[i]);
      const jit::Binary binary = compiler_->compile(source);
      const jit::TemporaryDirectory folder;
      const std::filesystem::path cubin = folder.path() / "kernel.cubin";
      std::ofstream(cubin, std::ios::binary)
          .write(reinterpret_cast<const char*>(binary.cubin.data()), static_cast<std::streamsize>(binary.cubin.size()));
      const jit::ProcessResult result = jit::run_process({disassembler_, cubin});
      ASSERT_EQ(result.status, 0) << result.output;
      EXPECT_EQ(fault(result.output, shape_of(configs[i])), "") << source.entry;
    });
  }

 private:
  std::filesystem::path disassembler_;
  std::unique_ptr<jit::Compiler> compiler_;
};

TEST_F(ShippedSass, OfDeepSeekLayersOnH100) {
  std::vector<GemmConfig> configs;
  for (const test::LayerShape& layer : test::kDeepSeekLayers)
    for (const GemmConfig& c : kernels_for({.n = layer.n, .k = layer.k}, DeviceInfo::h100()))
      if (std::find(configs.begin(), configs.end(), c) == configs.end()) configs.push_back(c);
  expect_good(configs);
}

TEST_F(ShippedSass, OfExpertsOnH100) {
  std::vector<GemmConfig> configs;
  for (const Layout layout : {Layout::contiguous, Layout::offsets, Layout::masked}) {
    const std::vector<GemmConfig> more =
        kernels_for({.n = 4096, .k = 7168, .layout = layout, .groups = 32}, DeviceInfo::h100());
    configs.insert(configs.end(), more.begin(), more.end());
  }
  expect_good(configs);
}

}  // namespace
}  // namespace deep_gemm
