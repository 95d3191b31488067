// The disk cache. One file an entry, so that publishing is one rename; a lock file a key, so that processes that miss
// together compile once. Nothing here fails because a disk is full, read-only or absent: the kernel is then built in memory.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <sstream>
#include <utility>

#include <fmt/ranges.h>

#include "fork.h"
#include "jit/compiler.h"
#include "jit/entry.h"
#include "jit/env.h"
#include "jit/files.h"
#include "jit/process.h"
#include "jit/sha256.h"
#include "text.h"

namespace deep_gemm::jit {
namespace fs = std::filesystem;
using namespace std::chrono_literals;
namespace {

// From here on ptxas interleaves FFMA by itself; kernels of older ones are about 10 % slower.
constexpr int kGoodCudaVersion = 12090;
// A holder that takes longer than this hangs; a kernel takes well under a second with NVRTC, seconds with nvcc.
constexpr std::chrono::seconds kLockTimeout{120};
constexpr std::string_view kBadMark = ".bad-", kLockDirectory = "locks";
constexpr std::string_view kSourceSuffix = ".cu", kPtxSuffix = ".ptx", kSassSuffix = ".sass";
constexpr std::string_view kSuffixes[] = {kEntrySuffix, kSourceSuffix, kPtxSuffix, kSassSuffix};
constexpr std::size_t kKeyDigits = 32;

// Whether a driver's error is about the binary itself. The texts of Error{cuda} have the driver's own names.
bool is_about_the_binary(const Error& error) {
  constexpr std::string_view kNames[] = {"CUDA_ERROR_INVALID_IMAGE", "CUDA_ERROR_NO_BINARY_FOR_GPU",
                                         "CUDA_ERROR_INVALID_SOURCE", "CUDA_ERROR_NOT_FOUND"};
  return error.code() == ErrorCode::cuda && std::ranges::any_of(kNames, [&](std::string_view name) {
           return std::string_view(error.what()).find(name) != std::string_view::npos;
         });
}

bool starts_with_key(std::string_view name) {
  return name.size() >= kKeyDigits &&
         name.substr(0, kKeyDigits).find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Whether this cache writes files of that name: KEY.SUFFIX, or such a one moved aside or half written.
bool is_ours(std::string_view name) {
  if (!starts_with_key(name)) return false;
  const std::string_view rest = name.substr(kKeyDigits);
  return std::ranges::any_of(kSuffixes, [&](std::string_view suffix) {
    return rest == suffix || (rest.starts_with(suffix) && (rest.substr(suffix.size()).starts_with(kBadMark) ||
                                                           rest.substr(suffix.size()).starts_with(kTemporaryMark)));
  });
}

}  // namespace

const std::string& embedded_digest() {
  static const std::string digest = [] {
    Sha256 hash;
    for (const EmbeddedHeader& header : embedded_headers())
      hash.update(fmt::format("{} {}\n", header.path, header.text.size())).update(header.text);
    return hash.hex().substr(0, 32);
  }();
  return digest;
}

std::vector<fs::path> cache_directories(const std::vector<std::string>& given) {
  std::vector<fs::path> directories;
  const auto add = [&](const fs::path& directory) {
    const auto plain = [](const fs::path& path) {
      std::error_code error;
      const fs::path canonical = fs::weakly_canonical(fs::absolute(path, error), error);
      return error ? path : canonical / "";
    };
    const auto is_it = [&](const fs::path& other) { return plain(other) == plain(directory); };
    if (std::ranges::none_of(directories, is_it)) directories.push_back(directory);
  };
  if (!given.empty()) {
    for (const std::string& directory : given) {
      if (directory.empty())
        fail(ErrorCode::invalid_argument,
             "cache directory: an empty name is given, expected a path; name none to get the default directories");
      add(directory);
    }
    return directories;
  }
  if (const auto list = env("DG_JIT_CACHE_DIR")) {
    std::istringstream stream(*list);
    for (std::string directory; std::getline(stream, directory, ':');)
      if (!directory.empty()) add(directory);
    return directories;
  }
  // The XDG specification has relative paths ignored; each working directory would have a cache of its own.
  const char *xdg = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (xdg && *xdg == '/') return {fs::path(xdg) / "deep_gemm"};
  if (home && *home == '/') return {fs::path(home) / ".cache" / "deep_gemm"};
  return {};
}

struct KernelStore::Impl {
  // What the threads of one process share. A forked child starts with a new one: in its parent's, a lock may be held and a
  // kernel in the making by threads that the child does not have.
  struct State {
    const unsigned made_after = forks();

    std::mutex mutex;                                          // of the members below
    std::unique_ptr<Compiler> compiler_or_null;                // opened on the first miss
    std::map<std::string, std::shared_future<Binary>> making;  // by key
    std::map<std::string, Binary> unwritten;                   // what no directory would take
    bool warned = false;
  };

  std::vector<fs::path> directories;
  CompilerChoice choice;
  Log sink;
  std::atomic<State*> current = new State;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    // A parent's state cannot even be destroyed.
    if (State* state = current.load(); state->made_after == forks()) delete state;
  }

  State& state() {
    State* seen = current.load();
    while (seen->made_after != forks()) {
      auto fresh = std::make_unique<State>();
      if (current.compare_exchange_strong(seen, fresh.get())) return *fresh.release();
    }
    return *seen;
  }

  void log(LogLevel level, const std::string& text) const {
    if (sink) sink(level, text);
  }

  void warn_once(const std::string& text) {
    {
      State& s = state();
      const std::scoped_lock lock(s.mutex);
      if (std::exchange(s.warned, true)) return;
    }
    log(LogLevel::warning, text);
  }

  // `use(compiler)`: opening the compiler and working with it take locks that a child forked meanwhile never gets.
  template <class Use>
  auto with_compiler(const KernelSource& source, const Use& use) {
    if (compiler_is_lost())
      fail(ErrorCode::unavailable,
           "kernel {}: it is not in the cache, and this process was forked while another thread was compiling, so that "
           "the compiler does not work here: compile before the fork, or start processes afresh (in Python, "
           "multiprocessing's \"spawn\")",
           source.entry);
    const CompilerUse in_use;
    return use(compiler());
  }

  const Compiler& compiler() {
    State& s = state();
    const std::scoped_lock lock(s.mutex);
    if (!s.compiler_or_null) s.compiler_or_null = open_compiler(choice);
    return *s.compiler_or_null;
  }

  fs::path path_of(const fs::path& directory, const std::string& key) const {
    return directory / (key + std::string(kEntrySuffix));
  }

  fs::path writable_directory() const {
    const auto it = std::find_if(directories.begin(), directories.end(), can_be_written);
    return it == directories.end() ? fs::path() : *it;
  }

  // An entry of an old compiler is used only where the compiler at hand is no newer, or there is none.
  bool is_outdated(const KernelSource& source, const std::string& entry_compiler) {
    const int version = cuda_version_of(entry_compiler);
    if (version >= kGoodCudaVersion) return false;
    try {
      return with_compiler(source, [&](const Compiler& c) { return cuda_version_of(c.name()) > version; });
    } catch (const Error&) {
      return false;
    }
  }

  // The key's lock, in the first directory that has it. It saves work and keeps nothing whole: where there is none, the
  // kernel is compiled and written all the same.
  class Place {
   public:
    Place(const Impl& store, const std::string& key) : problems(store.directories.size()) {
      for (first = 0; first < problems.size(); ++first) {
        directory_ = store.directories[first];
        lock_.emplace(directory_ / kLockDirectory / key, kLockTimeout);
        if (lock_->error() == 0) return;
        const bool hangs = lock_->error() == EWOULDBLOCK;
        problems[first] = fmt::format("{}: {}", lock_->path().string(),
                                      hangs ? fmt::format("locked by another process for {} s", kLockTimeout.count())
                                            : std::strerror(lock_->error()));
        if (hangs)
          store.log(LogLevel::warning, problems[first] + ": not waited for any longer; end that process if it hangs");
      }
      first = 0;
    }
    bool is_locked(const fs::path& directory) const { return lock_ && lock_->held() && directory == directory_; }

    std::size_t first = 0;              // of the directories that an entry may go to
    std::vector<std::string> problems;  // by directory

   private:
    fs::path directory_;
    std::optional<FileLock> lock_;
  };

  // The entry of `key`; one that holds what the driver `refused` is none. With a `place`, at the last look, what is
  // damaged or foreign is moved aside where the key is locked; elsewhere, another process may just be replacing that file.
  std::optional<Binary> find(const std::string& key, const KernelSource& source, int max_cuda_version,
                             const Place* place, const Binary* refused = nullptr) {
    for (const fs::path& directory : directories) {
      const fs::path path = path_of(directory, key);
      std::error_code absent;
      if (fs::symlink_status(path, absent).type() == fs::file_type::not_found || absent) continue;
      std::string text;
      if (const int error = read_file(path, text); error != 0) {
        if (place)
          log(LogLevel::warning,
              fmt::format("cache entry {} cannot be read: {}: rebuilding", path.string(), std::strerror(error)));
        continue;
      }
      std::optional<Entry> entry = read_entry(text);
      if (!entry || entry->key != key || entry->entry != source.entry) {
        if (place) move_aside(path, "is unreadable, damaged or foreign", place->is_locked(directory));
        continue;
      }
      if (refused && entry->binary.cubin == refused->cubin) {
        if (place) move_aside(path, "was refused by the driver", place->is_locked(directory));
        continue;
      }
      const int version = cuda_version_of(entry->binary.compiler);
      if ((max_cuda_version != 0 && version > max_cuda_version) || is_outdated(source, entry->binary.compiler)) {
        if (place)
          log(LogLevel::info, fmt::format("kernel {}: the entry of {} in {} is not for this machine: rebuilding",
                                          source.entry, entry->binary.compiler, path.string()));
        continue;
      }
      log(LogLevel::debug, fmt::format("kernel {}: read from {}", source.entry, path.string()));
      return std::move(entry->binary);
    }
    return std::nullopt;
  }

  void move_aside(const fs::path& path, const char* why, bool is_locked) {
    const fs::path aside = path.string() + std::string(kBadMark) + unique_suffix();
    const bool moved = is_locked && rename(path.c_str(), aside.c_str()) == 0;
    if (is_locked && !moved && errno == ENOENT) return;  // somebody cleared the cache
    log(LogLevel::warning, fmt::format("cache entry {} {}: {}, rebuilding", path.string(), why,
                                       moved ? "moved to " + aside.filename().string() : "left in place"));
  }

  Binary build(const KernelSource& source) {
    Binary binary = with_compiler(source, [&](const Compiler& c) { return c.compile(source); });
    const bool debug = env_flag("DG_JIT_DEBUG");
    if (debug || env_flag("DG_JIT_PRINT_COMPILER_COMMAND"))
      log(LogLevel::info, fmt::format("kernel {}: {}", source.entry, binary.command));
    if (debug || env_flag("DG_JIT_PTXAS_VERBOSE"))
      log(LogLevel::info, fmt::format("kernel {}: {}", source.entry, binary.log));
    log(LogLevel::info,
        fmt::format("kernel {}: compiled by {} in {:.2f} s, {} registers, {} bytes spilled", source.entry,
                    binary.compiler, binary.seconds, binary.registers, binary.spill_bytes));
    return binary;
  }

  Binary find_or_build(const std::string& key, const KernelSource& source, int max_cuda_version) {
    Place place(*this, key);
    if (auto binary = find(key, source, max_cuda_version, &place)) return std::move(*binary);
    return keep(place, key, source, build(source));
  }

  Binary find_or_build_another(const std::string& key, const KernelSource& source, int max_cuda_version,
                               const Binary& refused) {
    Place place(*this, key);
    // Another process may have been here.
    if (auto binary = find(key, source, max_cuda_version, nullptr, &refused)) return std::move(*binary);
    Binary binary = build(source);
    // The entry is what compiling gives, so nothing is wrong with it.
    if (binary.cubin == refused.cubin) return binary;
    find(key, source, max_cuda_version, &place, &refused);  // moves it aside
    return keep(place, key, source, std::move(binary));
  }

  // Writes the entry to the first directory that takes it; where none does, this process remembers the binary.
  Binary keep(Place& place, const std::string& key, const KernelSource& source, Binary binary) {
    const std::string text = write_entry({key, source.entry, binary});
    for (std::size_t i = place.first; i < directories.size(); ++i) {
      const fs::path& directory = directories[i];
      int error = make_directories(directory);
      if (error == 0) error = publish(path_of(directory, key), text);
      if (error == 0) {
        if (i != 0)
          log(LogLevel::info, fmt::format("kernel {}: written to {} ({})", source.entry, directory.string(),
                                          fmt::join(std::span(place.problems).first(i), "; ")));
        dump(directory / key, source, binary);
        return binary;
      }
      place.problems[i] = fmt::format("{}: {}", directory.string(), std::strerror(error));
    }
    warn_once(fmt::format(
        "no cache directory can be written ({}): kernels are compiled for this process alone (set DG_JIT_CACHE_DIR)",
        place.problems.empty() ? "none is named" : fmt::format("{}", fmt::join(place.problems, "; "))));
    State& s = state();
    const std::scoped_lock guard(s.mutex);
    return s.unwritten[key] = std::move(binary);
  }

  // What the environment asks for beside the entry.
  void dump(const fs::path& stem, const KernelSource& source, const Binary& binary) {
    const auto put = [&](std::string_view suffix, const std::string& text) {
      const fs::path path = stem.string() + std::string(suffix);
      const int error = publish(path, text);
      log(error == 0 ? LogLevel::info : LogLevel::warning,
          error == 0 ? fmt::format("kernel {}: {}", source.entry, path.string())
                     : fmt::format("{} cannot be written: {}", path.string(), std::strerror(error)));
    };
    if (env_flag("DG_JIT_DEBUG")) put(kSourceSuffix, source.text);
    if (env_flag("DG_JIT_DUMP_PTX")) put(kPtxSuffix, binary.ptx);
    if (!env_flag("DG_JIT_DUMP_SASS")) return;
    try {
      std::vector<fs::path> tools;
      for (const fs::path& root : toolkit_roots()) tools.push_back(root / "bin");
      const fs::path disassembler = find_program("nvdisasm", tools);
      if (disassembler.empty()) fail(ErrorCode::unavailable, "nvdisasm is neither in CUDA_HOME/bin nor on PATH");
      const TemporaryDirectory directory;
      const fs::path cubin = directory.path() / "kernel.cubin";
      if (const int error = publish(cubin, {reinterpret_cast<const char*>(binary.cubin.data()), binary.cubin.size()});
          error != 0)
        fail(ErrorCode::io, "{}: {}", cubin.string(), std::strerror(error));
      const ProcessResult result = run_process({disassembler, cubin});
      if (result.status != 0) fail(ErrorCode::unavailable, "{}: {}", disassembler.string(), result.output);
      put(kSassSuffix, result.output);
    } catch (const Error& e) {
      log(LogLevel::warning, fmt::format("DG_JIT_DUMP_SASS: {}", e.what()));
    }
  }
};

KernelStore::KernelStore(std::vector<fs::path> directories, CompilerChoice choice, Log log)
    : impl_(std::make_unique<Impl>()) {
  impl_->directories = std::move(directories);
  impl_->choice = choice;
  impl_->sink = std::move(log);
}

KernelStore::~KernelStore() = default;

std::string KernelStore::key(const KernelSource& source) {
  Sha256 hash;
  hash.update(fmt::format("{} {}\n", kArch, fmt::join(code_flags(), " ")));
  hash.update(embedded_digest()).update(source.entry).update("\n").update(source.text);
  return hash.hex().substr(0, kKeyDigits);
}

Binary KernelStore::get(const KernelSource& source, int max_cuda_version) {
  const std::string id = key(source);
  const auto checked = [&](Binary binary) {
    if (binary.spill_bytes != 0 && env_flag("DG_JIT_PTXAS_CHECK"))
      fail(ErrorCode::compiler, "kernel {}: {} spilled {} bytes of registers, and DG_JIT_PTXAS_CHECK is set",
           source.entry, binary.compiler, binary.spill_bytes);
    return binary;
  };
  if (auto binary = impl_->find(id, source, max_cuda_version, nullptr)) return checked(std::move(*binary));

  Impl::State& state = impl_->state();
  std::promise<Binary> promise;
  std::shared_future<Binary> result;
  bool mine = false;
  {
    const std::scoped_lock lock(state.mutex);
    if (const auto it = state.unwritten.find(id); it != state.unwritten.end()) return checked(it->second);
    auto& slot = state.making[id];
    mine = !slot.valid();
    if (mine) slot = promise.get_future().share();
    result = slot;
  }
  if (mine) {
    try {
      promise.set_value(impl_->find_or_build(id, source, max_cuda_version));
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
    const std::scoped_lock lock(state.mutex);
    state.making.erase(id);
  }
  return checked(result.get());
}

Binary KernelStore::replace(const KernelSource& source, int max_cuda_version, const Binary& refused,
                            const Error& error) {
  if (!is_about_the_binary(error)) throw error;
  if (refused.cached) {
    Binary other = impl_->find_or_build_another(key(source), source, max_cuda_version, refused);
    if (other.cubin != refused.cubin) return other;
  }
  fail(ErrorCode::cuda, "{}: {} compiled it for {}, which this GPU or its driver does not take", error.what(),
       refused.compiler, kArch);
}

std::vector<CacheEntry> KernelStore::list() const {
  std::vector<CacheEntry> entries;
  for (const fs::path& directory : impl_->directories)
    for (const fs::path& path : files_in(directory)) {
      if (path.extension() != kEntrySuffix || !is_ours(path.filename().string())) continue;
      std::string text;
      if (read_file(path, text) != 0) continue;
      // Under another name it is nobody's.
      if (const auto entry = read_entry(text); entry && path == impl_->path_of(directory, entry->key))
        entries.push_back({entry->key, entry->entry, entry->binary.compiler, path, text.size()});
    }
  return entries;
}

KernelStore::Removed KernelStore::remove_all() {
  Removed removed;
  const auto is_locked = [&](const std::string& key) {
    return std::ranges::any_of(impl_->directories, [&](const fs::path& directory) {
      const fs::path path = directory / kLockDirectory / key;
      std::error_code ignored;
      return fs::exists(path, ignored) && FileLock(path, 0ms).error() == EWOULDBLOCK;
    });
  };
  for (const fs::path& directory : impl_->directories) {
    const fs::path locks = directory / kLockDirectory;
    bool any = false;
    for (const fs::path& path : files_in(directory)) {
      const std::string name = path.filename();
      if (!is_ours(name)) continue;
      any = true;
      // It may be the holder's, who is writing it; the lock may lie in another directory.
      if (name.find(kTemporaryMark) != std::string::npos && is_locked(name.substr(0, kKeyDigits))) continue;
      // What was moved aside may be anything, an entry also a link to a file.
      std::error_code error;
      const bool is_file = fs::is_regular_file(path, error);
      const std::uintmax_t bytes = is_file ? fs::file_size(path, error) : 0;
      if (fs::remove_all(path, error) == 0 || error) continue;
      removed.entries += is_file && path.extension() == kEntrySuffix;
      removed.bytes += bytes;
    }
    // Those of processes that were killed; one that is held stays.
    for (const fs::path& path : files_in(locks)) {
      std::error_code error;
      const std::string name = path.filename();
      if (!starts_with_key(name) || name.size() != kKeyDigits || !fs::is_regular_file(fs::symlink_status(path, error)))
        continue;
      any = true;
      const FileLock lock(path, 0ms);  // removes it
    }
    if (any) rmdir(locks.c_str());  // refused while a key is locked
  }
  Impl::State& state = impl_->state();
  const std::scoped_lock lock(state.mutex);
  state.unwritten.clear();
  return removed;
}

const std::vector<fs::path>& KernelStore::directories() const { return impl_->directories; }

fs::path KernelStore::writable_directory() const { return impl_->writable_directory(); }

}  // namespace deep_gemm::jit
