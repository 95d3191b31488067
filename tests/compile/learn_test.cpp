// The five kernels of docs/learn, through NVRTC for sm_90a: no spills, registers for a launch, no serialised wgmma.
#include <gtest/gtest.h>

#include <string_view>

#include "jit/jit.h"
#include "learn/steps.h"

namespace deep_gemm::learn {
namespace {

class LearnKernels : public testing::Test {
 protected:
  void SetUp() override {
    try {
      compiler_ = jit::open_compiler(CompilerChoice::nvrtc);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unavailable) throw;
      GTEST_SKIP() << "NOT TESTED: there is no NVRTC here: " << error.what();
    }
  }
  std::unique_ptr<jit::Compiler> compiler_;
};

TEST_F(LearnKernels, CompileWithoutSpills) {
  ASSERT_EQ(steps().size(), 5u);
  for (const Step& step : steps()) {
    const jit::Binary binary = compiler_->compile(source(step));
    const std::string_view cubin(reinterpret_cast<const char*>(binary.cubin.data()), binary.cubin.size());
    EXPECT_NE(cubin.find(step.entry), std::string_view::npos) << step.entry << " is not in its cubin";
    EXPECT_EQ(binary.spill_bytes, 0) << step.entry;
    EXPECT_GT(binary.registers, 0) << step.entry;
    EXPECT_LE(binary.registers * static_cast<int>(step.threads), 65536) << step.entry;
    EXPECT_EQ(binary.log.find("serialized"), std::string::npos) << step.entry << ": " << binary.log;
    EXPECT_EQ(binary.log.find("warning"), std::string::npos) << step.entry << ": " << binary.log;
  }
}

TEST_F(LearnKernels, DoNotCompileForALaunchWithOtherNumbers) {
  for (const Step& step : steps()) {
    Step other = step;
    other.smem_bytes += 1024;
    try {
      compiler_->compile(source(other));
      ADD_FAILURE() << step.entry << " compiled";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::compiler);
      EXPECT_NE(std::string(error.what()).find("launches this kernel with other numbers"), std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace deep_gemm::learn
