// NVRTC, found and opened at run time.
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
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

// Older ones lack the C++20 that the device headers use, or sm_90a instructions.
constexpr int kMinVersion = 12030;

// Never closed: NVRTC loses what its initialisers allocated, and opening it again costs nothing.
struct Library {
  using Program = void*;
  void* handle = nullptr;
  std::string path;
  int version = 0;  // 13000 = 13.0; 0: not usable
  std::string why;  // it is not usable

  int (*get_version)(int*, int*) = nullptr;
  const char* (*error_string)(int) = nullptr;
  int (*create)(Program*, const char*, const char*, int, const char* const*, const char* const*) = nullptr;
  int (*destroy)(Program*) = nullptr;
  int (*compile)(Program, int, const char* const*) = nullptr;
  int (*cubin_size)(Program, std::size_t*) = nullptr;
  int (*cubin)(Program, char*) = nullptr;
  int (*ptx_size)(Program, std::size_t*) = nullptr;
  int (*ptx)(Program, char*) = nullptr;
  int (*log_size)(Program, std::size_t*) = nullptr;
  int (*log)(Program, char*) = nullptr;

  // `name` is a path or, for the loader's own search, a bare name.
  explicit Library(const std::string& name) : path(name) {
    handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      why = dlerror();
      return;
    }
    bool complete = true;
    const auto load = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(handle, symbol));
      complete = complete && function;
    };
    load(get_version, "nvrtcVersion");
    load(error_string, "nvrtcGetErrorString");
    load(create, "nvrtcCreateProgram");
    load(destroy, "nvrtcDestroyProgram");
    load(compile, "nvrtcCompileProgram");
    load(cubin_size, "nvrtcGetCUBINSize");
    load(cubin, "nvrtcGetCUBIN");
    load(ptx_size, "nvrtcGetPTXSize");
    load(ptx, "nvrtcGetPTX");
    load(log_size, "nvrtcGetProgramLogSize");
    load(log, "nvrtcGetProgramLog");
    int major = 0, minor = 0;
    if (!complete || get_version(&major, &minor) != 0) {
      why = name + ": not an NVRTC library";
      return;
    }
    if (Dl_info info; dladdr(reinterpret_cast<void*>(get_version), &info) && info.dli_fname) path = info.dli_fname;
    version = major * 1000 + minor * 10;
    // NVRTC asks the loader for this part by its bare name when it compiles. Wheels have it beside NVRTC, where the loader
    // does not look; once opened it is found by that name. Where it lies elsewhere, the loader's own search remains.
    const fs::path builtins = fs::path(path).replace_filename("libnvrtc-builtins.so." + version_text(version));
    dlopen(builtins.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (version < kMinVersion) why = fmt::format("{} is {}, older than {}", path, text(), version_text(kMinVersion));
  }
  std::string text() const { return "NVRTC " + version_text(version); }
};

void append_matching(std::vector<fs::path>& out, const fs::path& parent, std::string_view prefix,
                     const fs::path& below) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator it(parent, error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with(prefix)) found.push_back(it->path() / below);
  std::sort(found.begin(), found.end());
  out.insert(out.end(), found.begin(), found.end());
}

// Where Python packages lie: of the active environments, of the python3 on PATH, beside this library, and the system's.
std::vector<fs::path> site_packages() {
  std::vector<fs::path> prefixes, sites;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const char* value = std::getenv(name); value && *value) prefixes.emplace_back(value);
  if (const fs::path python = find_program("python3", {}); !python.empty()) {
    const fs::path prefix = python.parent_path().parent_path();
    prefixes.push_back(prefix);
    append_matching(prefixes, prefix / "versions", "", "");  // pyenv, whose python3 is a script
    std::error_code error;
    if (const fs::path real = fs::canonical(python, error); !error)
      prefixes.push_back(real.parent_path().parent_path());
  }
  if (const char* home = std::getenv("HOME"); home && *home) prefixes.push_back(fs::path(home) / ".local");
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&open_nvrtc), &self) && self.dli_fname) {
    std::error_code error;
    fs::path directory = fs::absolute(self.dli_fname, error).parent_path();
    for (int up = 0; up < 3; ++up, directory = directory.parent_path()) sites.push_back(directory);
  }
  for (const fs::path& prefix : prefixes) append_matching(sites, prefix / "lib", "python3", "site-packages");
  for (const char* lib : {"/usr/local/lib", "/usr/lib"}) append_matching(sites, lib, "python3", "dist-packages");
  return sites;
}

std::vector<fs::path> library_directories() {
  std::vector<fs::path> directories;
  for (const fs::path& root : toolkit_roots())
    for (const char* lib : {"lib64", "lib"}) directories.push_back(root / lib);
  for (const fs::path& site : site_packages()) {
    directories.push_back(site / "nvidia" / "cuda_nvrtc" / "lib");
    append_matching(directories, site / "nvidia", "cu1", "lib");
  }
  return directories;
}

// Files named libnvrtc.so[.N…], each once however many links and directories lead to it.
std::vector<std::string> library_files() {
  std::vector<std::string> files;
  for (const fs::path& directory : library_directories()) {
    std::error_code error;
    std::vector<std::string> here;
    for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
      const std::string name = it->path().filename();
      if (!name.starts_with("libnvrtc.so")) continue;
      std::error_code dangling;
      if (const fs::path real = fs::canonical(it->path(), dangling); !dangling) here.push_back(real);
    }
    std::sort(here.begin(), here.end());
    for (const std::string& file : here)
      if (std::find(files.begin(), files.end(), file) == files.end()) files.push_back(file);
  }
  return files;
}

std::string how_to_get(int driver) {
  if (driver != 0 && driver < kMinVersion)
    return fmt::format("update the driver to one of CUDA {} or newer", version_text(kMinVersion));
  const std::string package =
      driver == 0 || driver >= 13000 ? "nvidia-cuda-nvrtc" : fmt::format("nvidia-cuda-nvrtc-cu{}", driver / 1000);
  const std::string limit = driver == 0 ? "" : fmt::format("<{}", version_text(driver + 10));
  return fmt::format(
      "install it with `pip install \"{}{}\"` or the CUDA toolkit, name its file in DG_NVRTC_LIBRARY, or set "
      "DG_JIT_USE_NVRTC=0 to compile with nvcc",
      package, limit);
}

// The newest that the driver can load.
std::unique_ptr<Library> find_library() {
  const int driver = cuda::driver_version();
  const auto check = [driver](Library& library) {
    if (library.why.empty() && driver != 0 && library.version > driver)
      library.why = fmt::format("{} is {}, newer than the CUDA {} that the installed driver can load", library.path,
                                library.text(), version_text(driver));
    return library.why.empty();
  };
  if (const auto path = env("DG_NVRTC_LIBRARY")) {
    auto library = std::make_unique<Library>(*path);
    if (!check(*library)) fail(ErrorCode::unavailable, "DG_NVRTC_LIBRARY: {}; {}", library->why, how_to_get(driver));
    return library;
  }
  std::unique_ptr<Library> best;
  std::vector<std::string> rejected;
  const auto consider = [&](const std::string& name) {
    auto library = std::make_unique<Library>(name);
    const bool usable = check(*library);
    if (!usable && library->handle && std::ranges::find(rejected, library->why) == rejected.end())
      rejected.push_back(library->why);
    if (usable && (!best || library->version > best->version)) best = std::move(library);
  };
  for (const std::string& file : library_files()) consider(file);
  for (const char* name : {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"}) consider(name);
  if (best) return best;
  fail(ErrorCode::unavailable,
       "NVRTC, the CUDA runtime compiler, is missing: no libnvrtc.so that fits in CUDA_HOME, CUDA_PATH, "
       "/usr/local/cuda, "
       "Python's site-packages or on the loader's path{}{}; {}",
       rejected.empty() ? "" : ": ", fmt::join(rejected, ", "), how_to_get(driver));
}

class Nvrtc : public Compiler {
 public:
  std::string name() const override { return library_->text(); }

  Binary compile(const KernelSource& source) const override {
    std::vector<std::string> flags = code_flags();
    flags.insert(flags.begin(), fmt::format("--gpu-architecture={}", kArch));
    flags.emplace_back("--ptxas-options=-v");
    // Its own cache gives code without ptxas's log, so nobody would see spills.
    if (library_->version >= 12090) flags.emplace_back("--no-cache");
    std::vector<const char*> arguments, texts, names;
    for (const std::string& flag : flags) arguments.push_back(flag.c_str());
    for (const EmbeddedHeader& header : embedded_headers()) {
      texts.push_back(header.text.data());
      names.push_back(header.path.data());
    }
    Binary binary;
    binary.compiler = name();
    binary.command = fmt::format("{} {}", library_->path, fmt::join(flags, " "));

    const auto start = std::chrono::steady_clock::now();
    const Library& nvrtc = *library_;
    Library::Program program = nullptr;
    check("nvrtcCreateProgram", source,
          nvrtc.create(&program, source.text.c_str(), (source.entry + ".cu").c_str(), static_cast<int>(texts.size()),
                       texts.data(), names.data()));
    const auto destroy = [&nvrtc](void* p) { nvrtc.destroy(&p); };
    const std::unique_ptr<void, decltype(destroy)> owner(program, destroy);
    const int result = nvrtc.compile(program, static_cast<int>(arguments.size()), arguments.data());
    binary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

    std::size_t bytes = 0;
    check("nvrtcGetProgramLogSize", source, nvrtc.log_size(program, &bytes));
    binary.log.resize(bytes);
    check("nvrtcGetProgramLog", source, nvrtc.log(program, binary.log.data()));
    binary.log.resize(binary.log.find_last_not_of(std::string_view("\0\n", 2)) + 1);
    if (result != 0) fail_compile(source, name(), binary.log.empty() ? nvrtc.error_string(result) : binary.log);
    check("nvrtcGetCUBINSize", source, nvrtc.cubin_size(program, &bytes));
    binary.cubin.resize(bytes);
    check("nvrtcGetCUBIN", source, nvrtc.cubin(program, reinterpret_cast<char*>(binary.cubin.data())));
    if (env_flag("DG_JIT_DUMP_PTX")) {
      check("nvrtcGetPTXSize", source, nvrtc.ptx_size(program, &bytes));
      binary.ptx.resize(bytes);
      check("nvrtcGetPTX", source, nvrtc.ptx(program, binary.ptx.data()));
      binary.ptx.pop_back();
    }
    read_ptxas_log(binary, source);
    return binary;
  }

 private:
  void check(const char* function, const KernelSource& source, int result) const {
    if (result != 0)
      fail(ErrorCode::compiler, "kernel {}: {} of {}: {}", source.entry, function, name(),
           library_->error_string(result));
  }

  std::unique_ptr<Library> library_ = find_library();
};

}  // namespace

std::unique_ptr<Compiler> open_nvrtc() { return std::make_unique<Nvrtc>(); }

}  // namespace deep_gemm::jit
