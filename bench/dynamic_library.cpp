#include "bench/dynamic_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "text.h"

namespace deep_gemm::bench {
namespace {

namespace fs = std::filesystem;

void add_if_directory(std::vector<fs::path>& found, const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error) && std::find(found.begin(), found.end(), path) == found.end())
    found.push_back(path);
}

std::vector<fs::path> children(const fs::path& directory, const std::string& prefix) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with(prefix)) found.push_back(it->path());
  std::sort(found.rbegin(), found.rend());  // python3.12 before python3.10, cu13 before cu12
  return found;
}

}  // namespace

std::vector<fs::path> cuda_library_directories() {
  std::vector<fs::path> found;
  auto environment = [](const char* name) {
    const char* value = std::getenv(name);
    return fs::path(value ? value : "");
  };
  for (const fs::path& root : {environment("CUDA_HOME"), environment("CUDA_PATH"), fs::path("/usr/local/cuda")}) {
    if (root.empty()) continue;
    for (const char* sub : {"lib64", "lib", "extras/CUPTI/lib64", "targets/x86_64-linux/lib"})
      add_if_directory(found, root / sub);
  }
  const fs::path home = environment("HOME");
  std::vector<fs::path> prefixes{environment("VIRTUAL_ENV"), environment("CONDA_PREFIX")};
  std::istringstream path(environment("PATH").string());
  for (std::string directory; std::getline(path, directory, ':');) {
    std::error_code error;
    if (fs::exists(fs::path(directory) / "python3", error)) prefixes.push_back(fs::path(directory).parent_path());
  }
  if (!home.empty()) prefixes.push_back(home / ".local");
  prefixes.insert(prefixes.end(), {"/usr/local", "/usr"});
  for (const fs::path& prefix : prefixes) {
    if (prefix.empty()) continue;
    for (const fs::path& python : children(prefix / "lib", "python3"))
      for (const char* packages : {"site-packages", "dist-packages"})
        for (const fs::path& wheel : children(python / packages / "nvidia", "cu"))
          add_if_directory(found, wheel / "lib");
  }
  return found;
}

DynamicLibrary::DynamicLibrary(std::span<const char* const> names) {
  std::string refusal;  // of a library that is there but does not load: more useful than "not found"
  for (const fs::path& directory : cuda_library_directories()) {
    for (const char* name : names) {
      const fs::path path = directory / name;
      std::error_code error;
      if (!fs::exists(path, error)) continue;
      if ((handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL))) {
        path_ = path.string();
        return;
      }
      if (refusal.empty()) refusal = dlerror();
    }
  }
  for (const char* name : names) {
    if ((handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL))) {
      path_ = name;
      return;
    }
  }
  fail(ErrorCode::unavailable,
       "{} not found in CUDA_HOME, /usr/local/cuda, Python's nvidia wheels or the loader's path{}", names.front(),
       refusal.empty() ? "" : " (" + refusal + ")");
}

void* DynamicLibrary::address(const char* name) const {
  void* symbol = dlsym(handle_, name);
  if (!symbol) fail(ErrorCode::unavailable, "{} has no function {}", path_, name);
  return symbol;
}

}  // namespace deep_gemm::bench
