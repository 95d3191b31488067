#include <elf.h>

#include <cstring>
#include <string>

#include <gtest/gtest.h>

#include "fake_nvcc.h"
#include "jit/jit.h"
#include "self_process.h"

namespace deep_gemm::jit {
namespace {

using test::ScopedEnv;

const KernelSource kWithHeader{"uses_header", R"(#include <deep_gemm/core/types.cuh>
extern "C" __global__ void uses_header(unsigned* out, unsigned a, unsigned b) { *out = deep_gemm::ceil_div(a, b); }
)"};

// 64 values live at once in 32 registers.
const KernelSource kSpills{"spills", R"(
extern "C" __global__ void __launch_bounds__(1024, 2) spills(float* p, int n) {
  float a[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) a[i] = p[i * n + threadIdx.x];
  for (int j = 0; j < n; ++j) {
#pragma unroll
    for (int i = 0; i < 64; ++i) a[i] = a[i] * a[(i + 7) % 64] + p[j];
  }
#pragma unroll
  for (int i = 0; i < 64; ++i) p[i * n + threadIdx.x] = a[i];
}
)"};

// A call between two wgmma instructions breaks their pipeline.
const KernelSource kSerialised{"serialised", R"(
__device__ __forceinline__ void mma(float (&d)[4], unsigned long long a, unsigned long long b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%0, %1, %2, %3}, %4, %5, 1, 1, 1;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b));
}
extern "C" __global__ void serialised(float* p, unsigned long long a, unsigned long long b) {
  float d[4] = {p[0], p[1], p[2], p[3]};
  asm volatile("wgmma.fence.sync.aligned;");
  mma(d, a, b);
  d[1] = reinterpret_cast<float (*)(float)>(a)(d[0]);
  mma(d, a, b);
  asm volatile("wgmma.commit_group.sync.aligned;");
  asm volatile("wgmma.wait_group.sync.aligned 0;");
  for (int i = 0; i < 4; ++i) p[i] = d[i];
}
)"};

std::unique_ptr<Compiler> open_or_null(CompilerChoice choice) {
  try {
    return open_compiler(choice);
  } catch (const Error& e) {
    std::printf("%s\n", e.what());
    return nullptr;
  }
}

void expect_cubin_of(const std::string& entry, const Binary& binary) {
  Elf64_Ehdr header;
  ASSERT_GT(binary.cubin.size(), sizeof header);
  std::memcpy(&header, binary.cubin.data(), sizeof header);
  EXPECT_EQ(std::memcmp(header.e_ident, ELFMAG, SELFMAG), 0);
  EXPECT_EQ(header.e_machine, EM_CUDA);
  const std::string_view bytes(reinterpret_cast<const char*>(binary.cubin.data()), binary.cubin.size());
  EXPECT_NE(bytes.find(".text." + entry), std::string_view::npos);
}

std::string compile_error(const Compiler& compiler, const KernelSource& source) {
  try {
    compiler.compile(source);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::compiler);
    return e.what();
  }
  ADD_FAILURE() << source.entry << " compiled";
  return {};
}

class EachCompiler : public testing::TestWithParam<CompilerChoice> {
 protected:
  void SetUp() override {
    compiler_ = open_or_null(GetParam());
    if (!compiler_) GTEST_SKIP() << "SKIPPED: THIS COMPILER IS MISSING";
  }
  std::unique_ptr<Compiler> compiler_;
};

TEST_P(EachCompiler, CompilesWithEmbeddedHeaders) {
  const Binary binary = compiler_->compile(kWithHeader);
  expect_cubin_of("uses_header", binary);
  EXPECT_EQ(binary.compiler, compiler_->name());
  EXPECT_TRUE(binary.compiler.starts_with(GetParam() == CompilerChoice::nvcc ? "nvcc 1" : "NVRTC 1"));
  EXPECT_GT(binary.registers, 3);
  EXPECT_LT(binary.registers, 40);
  EXPECT_EQ(binary.spill_bytes, 0);
  EXPECT_GT(binary.seconds, 0);
  EXPECT_FALSE(binary.cached);
  EXPECT_EQ(binary.ptx, "");
  EXPECT_EQ(compiler_->compile(kWithHeader).cubin, binary.cubin);
}

TEST_P(EachCompiler, CountsSpills) {
  const Binary binary = compiler_->compile(kSpills);
  EXPECT_EQ(binary.registers, 32);
  EXPECT_GT(binary.spill_bytes, 500);
}

TEST_P(EachCompiler, RefusesSerialisedWgmma) {
  const std::string text = compile_error(*compiler_, kSerialised);
  EXPECT_NE(text.find("kernel serialised: " + compiler_->name() + " serialised its wgmma instructions"),
            std::string::npos)
      << text;
}

TEST_P(EachCompiler, ErrorsHaveEntryAndLog) {
  const std::string text =
      compile_error(*compiler_, {"broken", "extern \"C\" __global__ void broken() {\n  undeclared_name = 1;\n}\n"});
  EXPECT_TRUE(text.starts_with("kernel broken does not compile with " + compiler_->name() + ":\n")) << text;
  EXPECT_NE(text.find("undeclared_name"), std::string::npos) << text;
  EXPECT_NE(text.find("(2)"), std::string::npos) << text;
  EXPECT_NE(compile_error(*compiler_, {"header", "#include <deep_gemm/no_such.cuh>\n"}).find("no_such.cuh"),
            std::string::npos);
}

TEST_P(EachCompiler, GivesPtxAndLinesOnRequest) {
  const Binary plain = compiler_->compile(kWithHeader);
  const ScopedEnv ptx("DG_JIT_DUMP_PTX", "1"), lines("DG_JIT_WITH_LINEINFO", "1");
  const Binary binary = compiler_->compile(kWithHeader);
  EXPECT_NE(binary.ptx.find(".entry uses_header"), std::string::npos);
  EXPECT_NE(binary.ptx.find(".target sm_90a"), std::string::npos);
  EXPECT_NE(binary.ptx.find("\t.loc\t"), std::string::npos);
  EXPECT_GT(binary.cubin.size(), plain.cubin.size());
  EXPECT_NE(binary.command.find("-lineinfo"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Jit, EachCompiler, testing::Values(CompilerChoice::nvrtc, CompilerChoice::nvcc),
                         [](const auto& choice) { return choice.param == CompilerChoice::nvrtc ? "Nvrtc" : "Nvcc"; });

TEST(Nvrtc, EachHeaderCompilesAlone) {
  const auto compiler = open_or_null(CompilerChoice::nvrtc);
  if (!compiler) GTEST_SKIP() << "SKIPPED: NVRTC IS MISSING";
  for (const EmbeddedHeader& header : embedded_headers()) {
    const std::string include = "#include <" + std::string(header.path) + ">\n";
    try {
      compiler->compile({"alone", include + include + "extern \"C\" __global__ void alone() {}\n"});
    } catch (const Error& e) {
      ADD_FAILURE() << e.what();
    }
  }
}

// Newer than the driver: refused, with what would fit.
TEST(NvrtcWorker, DISABLED_NewerThanTheDriver) {
  try {
    open_compiler(CompilerChoice::nvrtc);
    FAIL() << "it was opened";
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_EQ(e.code(), ErrorCode::unavailable);
    EXPECT_NE(text.find("newer than the CUDA 12.4 that the installed driver can load"), std::string::npos) << text;
    EXPECT_NE(text.find("pip install \"nvidia-cuda-nvrtc-cu12<12.5\""), std::string::npos) << text;
  }
}

TEST(Nvrtc, NewerThanTheDriverIsRefused) {
  const auto compiler = open_or_null(CompilerChoice::nvrtc);
  if (!compiler || compiler->name() < "NVRTC 12.5") GTEST_SKIP() << "SKIPPED: NO NVRTC NEWER THAN 12.4";
  const jit::ProcessResult result = test::run_self(
      "NvrtcWorker.DISABLED_NewerThanTheDriver", {"LD_LIBRARY_PATH=" DG_FAKE_DRIVER_DIR, "FAKE_DRIVER_VERSION=12040"});
  EXPECT_EQ(result.status, 0) << result.output;
}

TEST(Nvrtc, WarmStartOpensNoCompiler) {
  if (!open_or_null(CompilerChoice::nvrtc)) GTEST_SKIP() << "SKIPPED: NVRTC IS MISSING";
  const TemporaryDirectory directory;
  const Binary built = KernelStore({directory.path()}, CompilerChoice::nvrtc, {}).get(kWithHeader);
  const ScopedEnv missing("DG_NVRTC_LIBRARY", "/nonexistent/libnvrtc.so");
  const Binary read = KernelStore({directory.path()}, CompilerChoice::nvrtc, {}).get(kWithHeader);
  EXPECT_TRUE(read.cached);
  EXPECT_EQ(read.cubin, built.cubin);
  EXPECT_EQ(read.registers, built.registers);
}

}  // namespace
}  // namespace deep_gemm::jit
