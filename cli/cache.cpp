// deep_gemm cache: where compiled kernels lie, which, and their removal.
#include <numeric>
#include <ranges>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "backend.h"
#include "commands.h"
#include "options.h"
#include "output.h"
#include "text.h"

namespace deep_gemm::cli {
namespace {

struct CacheOptions {
  std::string directory;
  bool json = false;

  jit::KernelStore store() const {
    const ContextOptions settings = context_options();
    const std::vector<std::string> given = directory.empty() ? std::vector<std::string>{} : std::vector{directory};
    return {jit::cache_directories(given), settings.compiler, settings.log};
  }
};

/// A directory that is not there yet holds nothing; of one that cannot be listed nobody knows.
void check_listable(const jit::KernelStore& store) {
  for (const std::filesystem::path& directory : store.directories()) {
    std::error_code error;
    const std::filesystem::directory_iterator opened(directory, error);
    if (error && error != std::errc::no_such_file_or_directory)
      fail(ErrorCode::io, "cache: {} cannot be listed: {}; name another directory with --cache", directory.string(),
           error.message());
  }
}

void print_path(const CacheOptions& options) {
  const jit::KernelStore store = options.store();
  const std::filesystem::path writable = store.writable_directory();
  if (options.json) {
    nlohmann::ordered_json directories = nlohmann::ordered_json::array();
    for (const auto& directory : store.directories()) directories.push_back(directory.string());
    print_json({{"directories", directories},
                {"written", writable.empty() ? nlohmann::json() : nlohmann::json(writable.string())}});
    return;
  }
  if (store.directories().empty())
    fail(ErrorCode::io,
         "cache: DG_JIT_CACHE_DIR, XDG_CACHE_HOME and HOME name no directory for the cache; name one with --cache");
  if (writable.empty())
    fail(ErrorCode::io, "cache: no cache directory can be written: {}; name another one with --cache",
         fmt::join(store.directories() | std::views::transform([](const auto& path) { return path.string(); }), ", "));
  fmt::print("{}\n", writable.string());
}

void print_list(const CacheOptions& options) {
  const jit::KernelStore store = options.store();
  check_listable(store);
  const std::vector<jit::CacheEntry> entries = store.list();
  const auto add = [](std::uintmax_t sum, const jit::CacheEntry& entry) { return sum + entry.bytes; };
  const std::uintmax_t bytes = std::accumulate(entries.begin(), entries.end(), std::uintmax_t{0}, add);
  if (options.json) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const jit::CacheEntry& entry : entries) {
      all.push_back({{"key", entry.key},
                     {"kernel", entry.entry},
                     {"compiler", entry.compiler},
                     {"path", entry.path.string()},
                     {"bytes", entry.bytes}});
    }
    print_json({{"entries", all}, {"bytes", bytes}});
    return;
  }
  Table table({"kernel", "compiler", "bytes", "path"});
  for (const jit::CacheEntry& entry : entries)
    table.add({entry.entry, entry.compiler, fmt::to_string(entry.bytes), entry.path.string()});
  if (!entries.empty()) table.print();
  fmt::print("{}{} kernels, {}\n", entries.empty() ? "" : "\n", entries.size(), bytes_text(static_cast<double>(bytes)));
}

void remove_all(const CacheOptions& options) {
  jit::KernelStore store = options.store();
  check_listable(store);
  const jit::KernelStore::Removed removed = store.remove_all();
  const std::size_t left = store.list().size();
  if (options.json)
    print_json({{"removed", removed.entries}, {"bytes", removed.bytes}, {"left", left}});
  else
    fmt::print("{} kernels removed, {}\n", removed.entries, bytes_text(static_cast<double>(removed.bytes)));
  if (left > 0) {
    say(fmt::format("deep_gemm: {} kernels cannot be removed; `deep_gemm cache ls` shows where they lie\n", left));
    throw ExitCode{1};
  }
}

}  // namespace

void add_cache(CLI::App& app) {
  CLI::App* command = app.add_subcommand("cache", "Show or empty the cache of compiled kernels");
  command->require_subcommand(1);
  command->footer(
      "Directories: --cache, else DG_JIT_CACHE_DIR (a:b, searched in order), DG_CACHE_DIR, $XDG_CACHE_HOME/deep_gemm,\n"
      "~/.cache/deep_gemm.\n"
      "Example: deep_gemm cache ls");
  const auto add = [&](const char* name, const char* what, void (*action)(const CacheOptions&)) {
    auto options = std::make_shared<CacheOptions>();
    CLI::App* subcommand = command->add_subcommand(name, what);
    add_cache_directory(*subcommand, options->directory, "This directory instead of the default ones");
    add_json(*subcommand, options->json);
    subcommand->callback([options, action] { action(*options); });
  };
  add("path", "Print the directory that new kernels are written to", print_path);
  add("ls", "List the kernels", print_list);
  add("rm", "Remove all kernels", remove_all);
}

}  // namespace deep_gemm::cli
