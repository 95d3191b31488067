// deep_gemm info: what this machine has, what is missing and how to get it. Works with nothing installed.
#include <link.h>

#include <algorithm>

#include <fmt/format.h>

#include "backend.h"
#include "commands.h"
#include "jit/files.h"
#include "options.h"
#include "output.h"

namespace deep_gemm::cli {
namespace {

namespace fs = std::filesystem;

struct CompilerInfo {
  std::string name, path, problem;
};

/// The file of the NVRTC that this process has loaded; empty where it has none.
std::string loaded_nvrtc() {
  std::string path;
  const auto look = [](dl_phdr_info* info, std::size_t, void* found) {
    const std::string name = info->dlpi_name;
    if (fs::path(name).filename().string().starts_with("libnvrtc.so")) *static_cast<std::string*>(found) = name;
    return 0;
  };
  dl_iterate_phdr(look, &path);
  return path;
}

CompilerInfo find_compiler() {
  try {
    const auto compiler = jit::open_compiler(CompilerChoice::automatic);
    return {compiler->name(), loaded_nvrtc(), ""};
  } catch (const Error& error) {
    return {"", "", error.what()};
  }
}

std::string version_text(int driver) { return fmt::format("{}.{}", driver / 1000, driver % 1000 / 10); }

void show(bool json) {
  std::string no_driver;
  const int driver = cuda::driver_version(&no_driver);
  std::vector<cuda::DeviceProperties> devices;
  for (int i = 0; i < cuda::device_count(); ++i) devices.push_back(cuda::device_properties(i));
  if (driver != 0 && devices.empty()) no_driver = "the driver finds no GPU";
  const bool gpu = has_hopper_gpu();
  if (!devices.empty() && !gpu)
    no_driver = "the first GPU is no Hopper GPU (sm_90), the only kind there are kernels for";
  const CompilerInfo compiler = find_compiler();
  const jit::KernelStore store(jit::cache_directories({}), CompilerChoice::automatic, {});
  const std::vector<jit::CacheEntry> entries = store.list();
  const auto entries_in = [&](const fs::path& directory) {
    return std::count_if(entries.begin(), entries.end(),
                         [&](const jit::CacheEntry& entry) { return entry.path == directory / entry.path.filename(); });
  };
  std::error_code ignored;

  if (json) {
    nlohmann::ordered_json out = {{"version", DG_VERSION}, {"backend", gpu ? "cuda" : "cpu"}};
    out["devices"] = nlohmann::ordered_json::array();
    for (const auto& device : devices) {
      out["devices"].push_back({{"name", device.info.name},
                                {"compute_capability", device.compute_capability / 10.0},
                                {"memory_bytes", device.memory_bytes},
                                {"sms", device.info.num_sms},
                                {"l2_bytes", device.info.l2_bytes},
                                {"uuid", device.uuid}});
    }
    const auto text_or_null = [](const std::string& text) {
      return text.empty() ? nlohmann::json() : nlohmann::json(text);
    };
    out["driver"] = {{"cuda_version", text_or_null(driver == 0 ? "" : version_text(driver))},
                     {"problem", text_or_null(no_driver)}};
    out["compiler"] = {{"name", text_or_null(compiler.name)},
                       {"path", text_or_null(compiler.path)},
                       {"problem", text_or_null(compiler.problem)}};
    out["caches"] = nlohmann::ordered_json::array();
    for (const fs::path& directory : store.directories()) {
      out["caches"].push_back({{"path", directory.string()},
                               {"exists", fs::is_directory(directory, ignored)},
                               {"writable", jit::can_be_written(directory)},
                               {"entries", entries_in(directory)}});
    }
    print_json(out);
    return;
  }
  fmt::print("deep_gemm {}\n", DG_VERSION);
  fmt::print("backend   {}\n", gpu ? "cuda" : "cpu (no GPU that there are kernels for)");
  for (const auto& device : devices) {
    fmt::print("device    {}, sm_{}, {}, {} SMs\n", device.info.name, device.compute_capability,
               bytes_text(static_cast<double>(device.memory_bytes)), device.info.num_sms);
  }
  fmt::print("driver    {}\n", driver == 0 ? "none" : "CUDA " + version_text(driver));
  fmt::print("compiler  {}{}{}\n", compiler.name.empty() ? "none" : compiler.name, compiler.path.empty() ? "" : "  ",
             compiler.path);
  for (const fs::path& directory : store.directories()) {
    fmt::print("cache     {}  {}, {}, {} kernels\n", directory.string(),
               fs::is_directory(directory, ignored) ? "exists" : "not made yet",
               jit::can_be_written(directory) ? "writable" : "not writable", entries_in(directory));
  }
  if (store.directories().empty()) fmt::print("cache     none: DG_JIT_CACHE_DIR, XDG_CACHE_HOME and HOME name none\n");
  if (!no_driver.empty()) fmt::print("missing   GPU: {}\n", no_driver);
  if (!compiler.problem.empty()) fmt::print("missing   compiler: {}\n", compiler.problem);
}

}  // namespace

void add_info(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("info", "Show devices, driver, compiler and caches, and what is missing");
  add_json(*command, *json);
  command->footer("Example: deep_gemm info --json");
  command->callback([json] { show(*json); });
}

}  // namespace deep_gemm::cli
