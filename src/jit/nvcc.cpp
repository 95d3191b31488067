// nvcc, run as a program: what one asks for where NVRTC will not do.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>

#include <fmt/ranges.h>

#include "cuda/driver.h"
#include "jit/compiler.h"
#include "jit/env.h"
#include "jit/process.h"
#include "text.h"

namespace deep_gemm::jit {
namespace fs = std::filesystem;
namespace {

std::string find_nvcc() {
  if (const auto path = env("DG_JIT_NVCC_COMPILER")) {
    if (!is_program(*path))
      fail(ErrorCode::unavailable,
           "DG_JIT_NVCC_COMPILER: {} is no executable file; set it to the path of nvcc, or unset it to have nvcc "
           "searched for",
           *path);
    return *path;
  }
  std::vector<fs::path> directories;
  for (const fs::path& root : toolkit_roots()) directories.push_back(root / "bin");
  const fs::path path = find_program("nvcc", directories);
  if (path.empty())
    fail(ErrorCode::unavailable,
         "nvcc is missing: not in CUDA_HOME/bin, CUDA_PATH/bin, /usr/local/cuda/bin or on PATH; install the CUDA "
         "toolkit, "
         "name nvcc in DG_JIT_NVCC_COMPILER, or unset DG_JIT_USE_NVRTC to compile with NVRTC");
  return path;
}

void write(const fs::path& path, std::string_view text) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  errno = 0;
  std::ofstream file(path, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (!error && !file) error = std::make_error_code(static_cast<std::errc>(errno != 0 ? errno : EIO));
  if (error)
    fail(ErrorCode::io, "{} cannot be written: {} (set TMPDIR to a directory with room)", path.string(),
         error.message());
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Nvcc : public Compiler {
 public:
  Nvcc() {
    const std::string output = run_process({path_, "--version"}).output;
    constexpr std::string_view kMark = "release ";
    if (const std::size_t at = output.find(kMark); at != std::string::npos)
      version_ = cuda_version_of("nvcc " + output.substr(at + kMark.size(), output.find(',', at) - at - kMark.size()));
    if (version_ == 0)
      fail(ErrorCode::unavailable,
           "{} --version names no CUDA release (it says \"{}\"); set DG_JIT_NVCC_COMPILER to the path of nvcc", path_,
           output.substr(0, std::min(output.find('\n'), std::size_t{80})));
    if (const int driver = cuda::driver_version(); driver != 0 && version_ > driver)
      fail(ErrorCode::unavailable,
           "{} is of CUDA {}, newer than the CUDA {} that the installed driver can load; name an older nvcc in "
           "DG_JIT_NVCC_COMPILER or update the driver",
           path_, version_text(version_), version_text(driver));
  }

  std::string name() const override { return "nvcc " + version_text(version_); }

  Binary compile(const KernelSource& source) const override {
    const TemporaryDirectory directory;
    const fs::path& root = directory.path();
    for (const EmbeddedHeader& header : embedded_headers()) write(root / "include" / header.path, header.text);
    const fs::path input = root / "kernel.cu", output = root / "kernel.cubin";
    write(input, source.text);
    std::vector<std::string> command{path_, "-cubin", fmt::format("-gencode=arch=compute_90a,code={}", kArch)};
    std::ranges::copy(code_flags(), std::back_inserter(command));
    for (const char* flag : {"-Xptxas", "-v", "-I"}) command.emplace_back(flag);
    command.push_back(root / "include");
    const bool keep_ptx = env_flag("DG_JIT_DUMP_PTX");
    if (keep_ptx) command.insert(command.end(), {"-keep", "-keep-dir", root.string()});
    command.insert(command.end(), {"-o", output.string(), input.string()});

    Binary binary;
    binary.compiler = name();
    binary.command = fmt::format("{}", fmt::join(command, " "));
    const auto start = std::chrono::steady_clock::now();
    ProcessResult result = run_process(command);
    binary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    binary.log = std::move(result.output);
    const std::string cubin = read(output);
    if (result.status != 0 || cubin.empty())
      fail_compile(source, name(),
                   binary.log.empty() ? fmt::format("exit status {}, and no message", result.status) : binary.log);
    binary.cubin.resize(cubin.size());
    std::memcpy(binary.cubin.data(), cubin.data(), cubin.size());
    if (keep_ptx) binary.ptx = read(root / "kernel.ptx");
    read_ptxas_log(binary, source);
    return binary;
  }

 private:
  std::string path_ = find_nvcc();
  int version_ = 0;
};

}  // namespace

std::unique_ptr<Compiler> open_nvcc() { return std::make_unique<Nvcc>(); }

}  // namespace deep_gemm::jit
