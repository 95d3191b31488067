// The kernels around the product, through NVRTC for sm_90a: quantisation from every type to every type, the judge's.
#include <gtest/gtest.h>

#include "gemm_support.h"
#include "jit/jit.h"
#include "layout/layout.h"
#include "verify/kernels.h"

namespace deep_gemm {
namespace {

std::vector<jit::KernelSource> helper_kernels() {
  std::vector<jit::KernelSource> sources = {verify::reference_kernel(), verify::fill_random_kernel()};
  for (const DType type : {DType::bf16, DType::f16, DType::f32})
    for (const DType out : {DType::e4m3, DType::e5m2})
      for (const ScaleBlock shares : {ScaleBlock{1, 128}, {128, 128}, {128, 1}})
        sources.push_back(quantize_kernel(type, out, shares));
  return sources;
}

TEST(HelperKernels, CompileWithoutSpills) {
  std::unique_ptr<jit::Compiler> compiler;
  try {
    compiler = jit::open_compiler(CompilerChoice::nvrtc);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unavailable) throw;
    GTEST_SKIP() << "NOT TESTED: there is no NVRTC here: " << error.what();
  }
  const std::vector<jit::KernelSource> sources = helper_kernels();
  test::in_parallel(sources.size(), std::clamp(std::thread::hardware_concurrency(), 1u, 16u), [&](std::size_t i) {
    const jit::Binary binary = compiler->compile(sources[i]);
    EXPECT_EQ(binary.spill_bytes, 0) << sources[i].entry;
    EXPECT_GT(binary.registers, 0) << sources[i].entry;
    const std::string_view cubin(reinterpret_cast<const char*>(binary.cubin.data()), binary.cubin.size());
    EXPECT_NE(cubin.find(sources[i].entry), std::string_view::npos) << sources[i].entry;
  });
}

}  // namespace
}  // namespace deep_gemm
