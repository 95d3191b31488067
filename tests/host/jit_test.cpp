#include <chrono>
#include <csignal>
#include <locale>
#include <set>

#include <gtest/gtest.h>

#include "child_process.h"
#include "fake_nvcc.h"
#include "jit/compiler.h"
#include "jit/env.h"
#include "jit/jit.h"
#include "jit/process.h"
#include "self_process.h"

namespace deep_gemm::jit {
namespace {

namespace fs = std::filesystem;
using test::read_text;
using test::ScopedEnv;
using test::write_text;

std::string error_of(ErrorCode code, const std::function<void()>& function) {
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

TEST(Jit, EmbeddedHeadersAreTheFilesByteForByte) {
  std::set<std::string> embedded;
  for (const EmbeddedHeader& header : embedded_headers()) {
    const bool is_public = header.path == "deep_gemm/config.h";
    const fs::path file = fs::path(DG_SOURCE_DIR) / (is_public ? "include" : "device") / header.path;
    EXPECT_TRUE(header.text == read_text(file)) << header.path;
    EXPECT_EQ(header.text.data()[header.text.size()], '\0') << "NVRTC takes C strings";
    EXPECT_TRUE(embedded.insert(std::string(header.path)).second) << header.path;
  }
  for (const auto& file : fs::recursive_directory_iterator(fs::path(DG_SOURCE_DIR) / "device"))
    if (file.path().extension() == ".cuh") {
      EXPECT_TRUE(embedded.contains(fs::relative(file.path(), fs::path(DG_SOURCE_DIR) / "device"))) << file.path();
    }
  EXPECT_TRUE(embedded.contains("deep_gemm/config.h"));
}

TEST(Jit, EmbeddingKeepsWhatCMakeWouldInterpret) {
  const fs::path cmake = find_program("cmake", {});
  if (cmake.empty()) GTEST_SKIP() << "there is no cmake on PATH";
  std::string odd =
      "a;b[c]d]]\"q\\n\\\"x)\" ${var} @x@ $ENV{HOME}\r\n\ttab // \xc2\xb7 \xff\n[[ ; ;; \\;\\\n[=[ ]=] no newline";
  for (int byte = 1; byte < 256; ++byte) odd += static_cast<char>(byte);
  const TemporaryDirectory directory;
  const fs::path& root = directory.path();
  write_text(root / "deep_gemm" / "odd.cuh", odd);
  write_text(root / "deep_gemm" / "empty.cuh", "");
  const fs::path output = root / "embedded.cpp";
  const ProcessResult result =
      run_process({cmake, "-DOUTPUT=" + output.string(),
                   "-DHEADERS=" + root.string() + "|deep_gemm/odd.cuh," + root.string() + "|deep_gemm/empty.cuh", "-P",
                   DG_SOURCE_DIR "/cmake/embed.cmake"});
  ASSERT_EQ(result.status, 0) << result.output;
  // The generated literals are escapes only, which this reads back.
  const std::string source = read_text(output);
  const std::size_t start = source.find("kText0("), end = source.find(");\n", start);
  std::string decoded;
  for (std::size_t at = source.find("\\x", start); at < end; at = source.find("\\x", at + 4))
    decoded += static_cast<char>(std::stoi(source.substr(at + 2, 2), nullptr, 16));
  EXPECT_EQ(decoded, odd);
  expect_in("    " + std::to_string(odd.size()) + ");\n", source);
  expect_in("kText1(\n    \"\",\n    0);", source);
  expect_in("{\"deep_gemm/odd.cuh\", kText0},\n    {\"deep_gemm/empty.cuh\", kText1},\n", source);
}

TEST(Jit, RunProcess) {
  EXPECT_EQ(run_process({"/bin/sh", "-c", "echo out; echo err >&2; exit 3"}).status, 3);
  EXPECT_EQ(run_process({"/bin/sh", "-c", "echo out; echo err >&2"}).output, "out\nerr\n");
  EXPECT_EQ(run_process({"/bin/sh", "-c", "kill -9 $$"}).status, 128 + 9);
  EXPECT_EQ(run_process({"/bin/sh", "-c", "printf '%s' \"$1\"", "sh", "a b;$HOME\"'"}).output, "a b;$HOME\"'");
  EXPECT_EQ(run_process({"/bin/sh", "-c", "cat"}).output, "") << "it waits for no input";
  EXPECT_EQ(run_process({"/bin/sh", "-c", "head -c 300000 /dev/zero"}).output.size(), 300000U);
  expect_in("/nonexistent/program cannot be started: No such file",
            error_of(ErrorCode::unavailable, [] { run_process({"/nonexistent/program"}); }));
}

// The program's output comes through a file that then has the number of a standard stream.
TEST(Jit, RunProcessWithStandardStreamsClosed) {
  for (const std::vector<int>& closed : {std::vector{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}})
    EXPECT_EQ(test::in_child([&] {
                for (const int fd : closed) close(fd);
                const ProcessResult result = run_process({"/bin/sh", "-c", "echo out; echo err >&2; cat; exit 3"});
                return result.output == "out\nerr\n" && result.status == 3 ? 0 : 1;
              }),
              0)
        << "from " << closed[0];
}

// Who ignores SIGCHLD cannot learn how a program ended: not well, for all that is known.
TEST(Jit, RunProcessWhereItsEndCannotBeLearnt) {
  EXPECT_EQ(test::in_child([] {
              signal(SIGCHLD, SIG_IGN);
              try {
                run_process({"/bin/sh", "-c", "exit 3"});
                return 1;
              } catch (const Error& e) {
                if (e.code() != ErrorCode::unavailable) return 2;
                return std::string(e.what()).find("set SIGCHLD to SIG_DFL") == std::string::npos ? 3 : 0;
              }
            }),
            0);
}

TEST(Jit, FindProgramAndTemporaryDirectory) {
  fs::path kept;
  {
    const TemporaryDirectory directory;
    kept = directory.path();
    struct stat info;
    ASSERT_EQ(stat(kept.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700U);
    write_text(kept / "a" / "tool", "");
    write_text(kept / "b" / "tool", "");
    const ScopedEnv path("PATH", ("/nonexistent::" + (kept / "a").string() + ":" + (kept / "b").string()).c_str());
    EXPECT_EQ(find_program("tool", {}), "") << "not executable";
    chmod((kept / "b" / "tool").c_str(), 0755);
    EXPECT_EQ(find_program("tool", {}), kept / "b" / "tool");
    chmod((kept / "a" / "tool").c_str(), 0755);
    EXPECT_EQ(find_program("tool", {}), kept / "a" / "tool");
    EXPECT_EQ(find_program("tool", {kept / "b"}), kept / "b" / "tool");
    EXPECT_EQ(find_program("a", {kept}), "") << "a directory is no program";
  }
  EXPECT_FALSE(fs::exists(kept));
  const ScopedEnv nowhere("TMPDIR", "/nonexistent");
  expect_in("set TMPDIR", error_of(ErrorCode::io, [] { TemporaryDirectory directory; }));
}

TEST(Jit, VersionsOfCompilers) {
  EXPECT_EQ(cuda_version_of("NVRTC 13.0"), 13000);
  EXPECT_EQ(cuda_version_of("nvcc 12.9"), 12090);
  EXPECT_EQ(cuda_version_of("NVRTC 12.10"), 12100);
  EXPECT_EQ(cuda_version_of("clang"), 0);
  EXPECT_EQ(cuda_version_of("clang 17"), 0);
  EXPECT_EQ(cuda_version_of(""), 0);
  EXPECT_EQ(cuda_version_of("nvcc 13"), 0);
  EXPECT_EQ(cuda_version_of("nvcc 13."), 0);
  // Where a point separates thousands.
  struct Points : std::numpunct<char> {
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  const std::locale old = std::locale::global(std::locale(std::locale::classic(), new Points));
  EXPECT_EQ(cuda_version_of("NVRTC 13.0"), 13000);
  std::locale::global(old);
  EXPECT_EQ(version_text(13000), "13.0");
  EXPECT_EQ(version_text(12090), "12.9");
}

TEST(Jit, PtxasLog) {
  Binary binary;
  binary.compiler = "NVRTC 13.0";
  binary.log =
      "ptxas info    : 0 bytes gmem\nptxas info    : Compiling entry function 'k' for 'sm_90a'\n"
      "ptxas info    : Function properties for k\n"
      "ptxas         .     880 bytes stack frame, 1192 bytes spill stores, 1216 bytes spill loads\n"
      "ptxas info    : Used 168 registers, used 9 barriers, 880 bytes cumulative stack size\n"
      "ptxas info    : Function properties for helper\n"
      "    0 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n";
  read_ptxas_log(binary, {"k", ""});
  EXPECT_EQ(binary.registers, 168);
  EXPECT_EQ(binary.spill_bytes, 1192 + 1216 + 4 + 8);
  binary.log +=
      "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to "
      "insufficient register resources for the wgmma pipeline in the function 'k'\n";
  const std::string text = error_of(ErrorCode::compiler, [&] { read_ptxas_log(binary, {"k", ""}); });
  expect_in("kernel k: NVRTC 13.0 serialised its wgmma instructions", text);
  expect_in("insufficient register resources", text);
}

TEST(Jit, MissingCompilersSayHowToGetThem) {
  {
    const ScopedEnv path("DG_NVRTC_LIBRARY", "/nonexistent/libnvrtc.so");
    const std::string text = error_of(ErrorCode::unavailable, [] { open_compiler(CompilerChoice::nvrtc); });
    expect_in("DG_NVRTC_LIBRARY: /nonexistent/libnvrtc.so", text);
    expect_in("pip install \"nvidia-cuda-nvrtc", text);
    const ScopedEnv use("DG_JIT_USE_NVRTC", "0");
    const ScopedEnv nvcc("DG_JIT_NVCC_COMPILER", "/nonexistent/nvcc");
    expect_in("DG_JIT_NVCC_COMPILER: /nonexistent/nvcc is no executable file",
              error_of(ErrorCode::unavailable, [] { open_compiler(CompilerChoice::automatic); }));
  }
  const TemporaryDirectory directory;
  const fs::path library = directory.path() / "libnvrtc.so";
  write_text(library, "no library");
  const ScopedEnv path("DG_NVRTC_LIBRARY", library.c_str());
  expect_in(library.string() + ": ", error_of(ErrorCode::unavailable, [] { open_compiler(CompilerChoice::nvrtc); }));
  const ScopedEnv other("DG_NVRTC_LIBRARY", "libm.so.6");
  expect_in("not an NVRTC library", error_of(ErrorCode::unavailable, [] { open_compiler(CompilerChoice::nvrtc); }));
  for (const char* no_program : {"nvcc", "/tmp"}) {
    const ScopedEnv nvcc("DG_JIT_NVCC_COMPILER", no_program);
    expect_in(std::string("DG_JIT_NVCC_COMPILER: ") + no_program + " is no executable file; set it to the path of nvcc",
              error_of(ErrorCode::unavailable, [] { open_compiler(CompilerChoice::nvcc); }));
  }
  const fs::path other_program = directory.path() / "program";
  write_text(other_program, "#!/bin/sh\necho other program " + std::string(100, 'x') + "\necho its second line\n");
  chmod(other_program.c_str(), 0755);
  const ScopedEnv nvcc("DG_JIT_NVCC_COMPILER", other_program.c_str());
  EXPECT_EQ(error_of(ErrorCode::unavailable, [] { open_compiler(CompilerChoice::nvcc); }),
            other_program.string() + " --version names no CUDA release (it says \"other program " +
                std::string(66, 'x') + "\"); set DG_JIT_NVCC_COMPILER to the path of nvcc");
}

// Compilers may not be newer than the driver: with tests/fake_driver, which says it is of CUDA 12.8.
TEST(JitWorker, DISABLED_NvccNewerThanTheDriver) {
  const test::FakeNvcc nvcc;
  const ScopedEnv path("DG_JIT_NVCC_COMPILER", nvcc.path().c_str());
  nvcc.set_version("12.9");
  expect_in("is of CUDA 12.9, newer than the CUDA 12.8",
            error_of(ErrorCode::unavailable, [] { open_compiler(CompilerChoice::nvcc); }));
  nvcc.set_version("12.8");
  EXPECT_EQ(open_compiler(CompilerChoice::nvcc)->name(), "nvcc 12.8");
}

TEST(Jit, CompilersNewerThanTheDriverAreRefused) {
  const ProcessResult result = test::run_self("JitWorker.DISABLED_NvccNewerThanTheDriver",
                                              {"LD_LIBRARY_PATH=" DG_FAKE_DRIVER_DIR, "FAKE_DRIVER_VERSION=12080"});
  EXPECT_EQ(result.status, 0) << result.output;
}

// The search for NVRTC, with tests/fake_driver/fake_nvrtc.cpp under many names and places.
class NvrtcSearch : public testing::Test {
 protected:
  void put(const fs::path& directory, const std::string& version) const {
    fs::create_directories(root() / directory);
    fs::copy_file(DG_FAKE_NVRTC, root() / directory / ("libnvrtc.so." + version));
  }
  void link(const fs::path& directory, const std::string& version) const {
    fs::create_symlink("libnvrtc.so." + version, root() / directory / "libnvrtc.so");
  }
  fs::path root() const { return root_.path(); }

  // What a process opens in this environment; what it says where it opens nothing.
  std::string found(const std::vector<std::string>& environment, const std::string& driver = "") const {
    std::vector<std::string> all{
        "CUDA_HOME=", "CUDA_PATH=", "VIRTUAL_ENV=", "CONDA_PREFIX=", "HOME=", "PATH=/none", "DG_NVRTC_LIBRARY="};
    if (!driver.empty())
      all.insert(all.end(), {"LD_LIBRARY_PATH=" DG_FAKE_DRIVER_DIR, "FAKE_DRIVER_VERSION=" + driver});
    all.insert(all.end(), environment.begin(), environment.end());
    const ProcessResult result = test::run_self("JitWorker.DISABLED_OpenNvrtc", all);
    EXPECT_EQ(result.status, 0) << result.output;
    const std::size_t at = result.output.find("<<"), end = result.output.find(">>");
    return end == std::string::npos ? result.output : result.output.substr(at + 2, end - at - 2);
  }

 private:
  TemporaryDirectory root_;
};

TEST(JitWorker, DISABLED_OpenNvrtc) {
  std::string text;
  try {
    const auto compiler = open_compiler(CompilerChoice::nvrtc);
    const Binary binary = compiler->compile({"k", ""});
    EXPECT_EQ(binary.cubin.size(), 5U);
    text = compiler->name() + " " + binary.command.substr(0, binary.command.find(' '));
  } catch (const Error& e) {
    text = e.what();
  }
  std::printf("<<%s>>\n", text.c_str());
}

// Versions beyond any that may be installed here.
TEST_F(NvrtcSearch, LooksInToolkitsAndPythonPackages) {
  const std::string r = root().string();
  const auto expect_found = [&](const fs::path& directory, const std::vector<std::string>& environment) {
    put(directory, "99.0");
    EXPECT_EQ(found(environment), "NVRTC 99.0 " + (root() / directory / "libnvrtc.so.99.0").string());
    fs::remove_all(root() / *directory.begin());
  };
  expect_found("toolkit/lib64", {"CUDA_HOME=" + r + "/toolkit"});
  expect_found("toolkit/lib", {"CUDA_PATH=" + r + "/toolkit"});
  for (const std::string layout : {"nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib"}) {
    expect_found("venv/lib/python3.9/site-packages/" + layout, {"VIRTUAL_ENV=" + r + "/venv"});
    expect_found("conda/lib/python3.12/site-packages/" + layout, {"CONDA_PREFIX=" + r + "/conda"});
    expect_found("home/.local/lib/python3.11/site-packages/" + layout, {"HOME=" + r + "/home"});
    fs::remove_all(root() / "bin");
    for (const char* place : {"lib/python3.10/site-packages/", "versions/3.10/lib/python3.10/site-packages/"}) {
      test::write_text(root() / "prefix" / "bin" / "python3", "");
      chmod((root() / "prefix" / "bin" / "python3").c_str(), 0755);
      expect_found("prefix/" + std::string(place) + layout, {"PATH=" + r + "/prefix/bin"});
    }
  }
  put("loader", "99.0");
  fs::create_symlink("libnvrtc.so.99.0", root() / "loader" / "libnvrtc.so");
  put("named", "98.0");
  EXPECT_EQ(found({"DG_NVRTC_LIBRARY=" + r + "/named/libnvrtc.so.98.0", "CUDA_HOME=" + r + "/loader"}),
            "NVRTC 98.0 " + r + "/named/libnvrtc.so.98.0");
}

TEST_F(NvrtcSearch, TakesTheNewestThatTheDriverLoads) {
  const std::string r = root().string();
  const std::vector<std::string> environment{"CUDA_HOME=" + r + "/toolkit", "VIRTUAL_ENV=" + r + "/venv"};
  put("toolkit/lib64", "13.1");
  put("toolkit/lib64", "12.4");
  link("toolkit/lib64", "13.1");
  put("venv/lib/python3.9/site-packages/nvidia/cuda_nvrtc/lib", "12.8");
  put("venv/lib/python3.9/site-packages/nvidia/cu13/lib", "12.9");
  const auto version = [&](const std::string& driver) { return found(environment, driver).substr(0, 10); };
  EXPECT_EQ(version("13010"), "NVRTC 13.1");
  EXPECT_EQ(version("12090"), "NVRTC 12.9");
  EXPECT_EQ(version("12080"), "NVRTC 12.8");
  EXPECT_EQ(version("12070"), "NVRTC 12.4");
  const std::string none = found(environment, "12030");
  expect_in("NVRTC, the CUDA runtime compiler, is missing", none);
  expect_in("libnvrtc.so.12.4 is NVRTC 12.4, newer than the CUDA 12.3 that the installed driver can load", none);
  expect_in("pip install \"nvidia-cuda-nvrtc-cu12<12.4\"", none);
  const std::string named = found({"DG_NVRTC_LIBRARY=" + r + "/toolkit/lib64/libnvrtc.so.13.1"}, "12080");
  expect_in("libnvrtc.so.13.1 is NVRTC 13.1, newer than the CUDA 12.8", named);
  put("old/lib64", "12.2");
  expect_in("libnvrtc.so.12.2 is NVRTC 12.2, older than 12.3", found({"CUDA_HOME=" + r + "/old"}, "12020"));
  expect_in("update the driver to one of CUDA 12.3 or newer", found({}, "12020"));
}

}  // namespace
}  // namespace deep_gemm::jit
