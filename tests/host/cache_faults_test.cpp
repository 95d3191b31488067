// Disks that are full, read-only or in the way, and what lies in the cache that is no entry: a kernel is built all the
// same, nothing of others is lost, and nothing waits for ever.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "cache_fixture.h"
#include "jit/files.h"
#include "self_process.h"
#include "text.h"

namespace deep_gemm::jit {
namespace {

using test::in_child;
using test::kNoMount;

class CacheFaults : public Cache {
 protected:
  /// `body` in a child where the cache directory is a tmpfs with `options`; `body` returns 0 where all is well.
  template <class Body>
  void on_tmpfs(const std::string& options, Body&& body) {
    fs::create_directories(directory());
    const int status = in_child([&] { return test::mount_tmpfs(directory(), options) ? body() : kNoMount; });
    if (status == kNoMount) GTEST_SKIP() << "NOT TESTED: A TMPFS CANNOT BE MOUNTED HERE (root can)";
    EXPECT_EQ(status, 0) << "the line that failed, or 128 + signal";
  }
  bool warned_of(const std::string& part) const {
    return std::ranges::any_of(warnings_, [&](const std::string& w) { return w.find(part) != std::string::npos; });
  }
};

// In a child, where an assertion of GoogleTest would be lost: the line is the exit status (lines below 256, or modulo).
#define DG_REQUIRE(condition)                                                      \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      return __LINE__ % 200 + 1 == kNoMount ? 1 : __LINE__ % 200 + 1;              \
    }                                                                              \
  } while (false)

TEST_F(CacheFaults, FullDisk) {
  const std::string small = read_text(nvcc_.root() / "cubin"), large(300'000, 'c');
  on_tmpfs("size=128k", [&] {
    DG_REQUIRE(!store()->get(kSource).cached);
    DG_REQUIRE(store()->get(kSource).cached);
    nvcc_.set_cubin(large);
    const KernelSource other{"large_kernel", "// large\n"};
    const auto s = store();
    DG_REQUIRE(bytes_of(s->get(other)) == large);
    DG_REQUIRE(bytes_of(s->get(other)) == large);
    DG_REQUIRE(nvcc_.runs() == 2);
    DG_REQUIRE(warnings_.size() == 1);
    DG_REQUIRE(warned_of("No space left on device"));
    DG_REQUIRE(warned_of("this process alone"));
    DG_REQUIRE(files() == std::vector<std::string>{KernelStore::key(kSource) + ".dgk"});
    DG_REQUIRE(s->get(kSource).cached);
    DG_REQUIRE(bytes_of(store()->get(kSource)) == small);
    // Room again: the next process writes it.
    nvcc_.set_cubin("less");
    DG_REQUIRE(!store()->get(other).cached);
    DG_REQUIRE(store()->get(other).cached);
    return 0;
  });
}

TEST_F(CacheFaults, NotASingleFileMore) {
  on_tmpfs("size=1m,nr_inodes=2", [&] {  // the root and one more: not even a lock
    const auto s = store();
    DG_REQUIRE(!s->get(kSource).cached);
    DG_REQUIRE(bytes_of(s->get(kSource)) == read_text(nvcc_.root() / "cubin"));
    DG_REQUIRE(nvcc_.runs() == 1);
    DG_REQUIRE(warnings_.size() == 1 && warned_of("No space left on device"));
    return 0;
  });
}

TEST_F(CacheFaults, ReadOnlyMount) {
  on_tmpfs("size=1m", [&] {
    store()->get(kSource);
    write_text(entry_path("cache", {"damaged", "// x\n"}), "damaged");
    DG_REQUIRE(mount(nullptr, directory().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0);
    const auto s = store();  // also root cannot write here
    DG_REQUIRE(s->writable_directory().empty());
    DG_REQUIRE(s->get(kSource).cached);
    DG_REQUIRE(!s->get({"damaged", "// x\n"}).cached);
    DG_REQUIRE(warned_of("left in place"));
    DG_REQUIRE(warned_of("no cache directory can be written"));
    DG_REQUIRE(s->remove_all().entries == 0);
    DG_REQUIRE(files().size() == 2);
    // What cannot be written here is written behind.
    DG_REQUIRE(!store({"cache", "own"})->get({"new", "// new\n"}).cached);
    DG_REQUIRE(fs::exists(entry_path("own", {"new", "// new\n"})));
    return 0;
  });
}

// The compiler's own files do not fit: an error that says where, and the cache stays as it is.
TEST_F(CacheFaults, NoRoomForTheCompiler) {
  on_tmpfs("size=16k", [&] {
    const ScopedEnv temporary("TMPDIR", directory().c_str());
    const auto s = store({"own"});
    std::string text;
    try {
      s->get(kSource);
    } catch (const Error& e) {
      DG_REQUIRE(e.code() == ErrorCode::io);
      text = e.what();
    }
    DG_REQUIRE(text.find("No space left on device (set TMPDIR") != text.npos);
    DG_REQUIRE(fs::is_empty(directory()));
    DG_REQUIRE(files("own").empty());
    const ScopedEnv elsewhere("TMPDIR", scratch_.path().c_str());
    DG_REQUIRE(!s->get(kSource).cached);
    DG_REQUIRE(store({"own"})->get(kSource).cached);
    return 0;
  });
}

// Nor do their directories.
TEST_F(CacheFaults, NoRoomForTheCompilersDirectories) {
  on_tmpfs("size=1m,nr_inodes=3", [&] {
    const ScopedEnv temporary("TMPDIR", directory().c_str());
    try {
      store({"own"})->get(kSource);
      return 1;
    } catch (const Error& e) {
      DG_REQUIRE(e.code() == ErrorCode::io);
      DG_REQUIRE(std::string(e.what()).find("No space left on device (set TMPDIR") != std::string::npos);
    }
    DG_REQUIRE(fs::is_empty(directory()));
    return 0;
  });
}

TEST_F(CacheFaults, TemporaryDirectoryThatCannotBeMade) {
  const ScopedEnv temporary("TMPDIR", "/nonexistent");
  const auto s = store();
  try {
    s->get(kSource);
    ADD_FAILURE() << "compiled without a temporary directory";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::io);
    EXPECT_NE(std::string(e.what()).find("set TMPDIR to a writable directory"), std::string::npos) << e.what();
  }
  EXPECT_EQ(files(), std::vector<std::string>{});
  const ScopedEnv good("TMPDIR", scratch_.path().c_str());
  EXPECT_FALSE(s->get(kSource).cached);
  EXPECT_TRUE(s->get(kSource).cached);
}

// Killed between the first byte and the rename: what it left is nobody's entry, and goes with the next clearing.
TEST_F(CacheFaults, ProcessKilledWhileWriting) {
  nvcc_.set_cubin(std::string(1'000'000, 'c'));
  EXPECT_EQ(in_child([&] {
              const rlimit limit{500'000, 500'000}, no_core{0, 0};
              setrlimit(RLIMIT_CORE, &no_core);
              // The compiler's own output is copied by another process, and is as large.
              nvcc_.set_cubin(std::string(499'990, 'c'));
              if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
              store()->get(kSource);
              return 2;
            }),
            128 + SIGXFSZ);
  const std::vector<std::string> left = files();
  ASSERT_EQ(left.size(), 1U);
  EXPECT_NE(left[0].find(".dgk.tmp-"), std::string::npos);
  EXPECT_TRUE(store()->list().empty());
  EXPECT_FALSE(store()->get(kSource).cached);
  EXPECT_TRUE(store()->get(kSource).cached);
  EXPECT_TRUE(warnings_.empty());
  EXPECT_EQ(store()->list().size(), 1U);
  EXPECT_EQ(store()->remove_all().entries, 1);
  EXPECT_EQ(files(), std::vector<std::string>{});
}

// In a container the next process has the id of the killed one, and what that left is in the way of nobody.
TEST_F(CacheFaults, TemporariesOfAProcessWithTheSameId) {
  for (int i = 0; i < 1000; ++i)
    write_text(entry_path().string() + ".tmp-" + std::to_string(getpid()) + "-" + std::to_string(i), "left");
  EXPECT_FALSE(store()->get(kSource).cached);
  EXPECT_TRUE(store()->get(kSource).cached);
  EXPECT_TRUE(warnings_.empty());
}

// Each in the place of an entry: not waited for, not read into memory, moved aside, rebuilt.
TEST_F(CacheFaults, WhatIsNoFile) {
  fs::create_directories(directory());
  const auto rebuilt = [&](const char* what) {
    warnings_.clear();
    EXPECT_EQ(in_child(
                  [&] {
                    const auto s = store();
                    DG_REQUIRE(s->list().empty());
                    DG_REQUIRE(!s->get(kSource).cached);
                    DG_REQUIRE(warned_of("moved to"));
                    return 0;
                  },
                  30),
              0)
        << what;
    EXPECT_TRUE(store()->get(kSource).cached) << what;
    EXPECT_EQ(files().size(), 2U) << what << " is moved aside";
    EXPECT_EQ(store()->remove_all().entries, 1) << what;
    EXPECT_EQ(files(), std::vector<std::string>{}) << what;
  };
  ASSERT_EQ(mkfifo(entry_path().c_str(), 0644), 0);
  rebuilt("a pipe that nobody writes");
  fs::create_symlink("/nonexistent", entry_path());
  rebuilt("a link to nothing");
  fs::create_directories(entry_path() / "with" / "files");
  rebuilt("a directory");
  fs::create_symlink("/dev/zero", entry_path());
  rebuilt("a device without end");
  fs::create_symlink(entry_path(), entry_path());
  rebuilt("a link to itself");
  write_text(entry_path(), "deep_gemm kernel 1\n");
  fs::resize_file(entry_path(), std::uintmax_t{1} << 40);
  rebuilt("a file of a TiB");
  store()->get(kSource);
  write_text(entry_path(), read_text(entry_path()).replace(0, 19, "deep_gemm kernel 2\n"));
  rebuilt("an entry of another format");
}

// A process that lacks something itself says nothing about the entry.
TEST_F(CacheFaults, EntryThatCannotBeReadNowStays) {
  const KernelSource damaged{"damaged", "// x\n"};
  store()->get(kSource);
  write_text(entry_path("cache", damaged), "damaged");
  EXPECT_EQ(in_child([&] {
              const auto s = store();
              rlimit limit;
              DG_REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
              const rlimit none{0, limit.rlim_max};
              DG_REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
              for (const KernelSource& source : {kSource, damaged}) {
                try {
                  s->get(source);
                  return 1;
                } catch (const Error& e) {  // of the compiler, which cannot be started
                  DG_REQUIRE(e.code() == ErrorCode::unavailable);
                }
              }
              DG_REQUIRE(warnings_.size() == 2 && warned_of("cannot be read: Too many open files"));
              DG_REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
              DG_REQUIRE(s->get(kSource).cached);
              return 0;
            }),
            0);
  EXPECT_EQ(nvcc_.runs(), 1);
  EXPECT_EQ(read_text(entry_path("cache", damaged)), "damaged");
}

// Without the key's lock nothing is moved: another process may just be replacing it.
TEST_F(CacheFaults, DamagedEntryIsMovedWhereTheKeyIsLocked) {
  const auto damage = [&](const char* name) { write_text(entry_path(name), "damaged"); };
  damage("cache");
  damage("behind");
  EXPECT_FALSE(store({"cache", "behind"})->get(kSource).cached);
  EXPECT_TRUE(warned_of("moved to"));
  EXPECT_EQ(files().size(), 2U);
  EXPECT_EQ(read_text(entry_path("behind")), "damaged") << "of the two directories, the first is locked";
  warnings_.clear();
  damage("unlocked");
  write_text(directory("unlocked") / "locks", "in the way");
  EXPECT_FALSE(store({"unlocked"})->get(kSource).cached);
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_TRUE(warned_of("left in place"));
  EXPECT_TRUE(store({"unlocked"})->get(kSource).cached) << "written over it";
  EXPECT_EQ(files("unlocked").size(), 1U);
}

// A lock saves work, no more.
TEST_F(CacheFaults, LocksThatCannotBe) {
  fs::create_directories(directory());
  write_text(directory() / "locks", "a file");
  EXPECT_FALSE(store()->get(kSource).cached);
  EXPECT_TRUE(store()->get(kSource).cached);
  EXPECT_EQ(read_text(directory() / "locks"), "a file") << "what is not ours stays";
  const KernelSource other{"other_kernel", "// other\n"};
  fs::create_directories(directory("dir") / "locks" / KernelStore::key(other));
  EXPECT_FALSE(store({"dir"})->get(other).cached);
  EXPECT_TRUE(store({"dir"})->get(other).cached);
  EXPECT_TRUE(warnings_.empty());
  // Where another directory has locks, the kernel goes there.
  const KernelSource third{"third_kernel", "// third\n"};
  EXPECT_FALSE(store({"cache", "own"})->get(third).cached);
  EXPECT_TRUE(fs::exists(entry_path("own", third)));
  EXPECT_FALSE(fs::exists(entry_path("cache", third)));
  EXPECT_NE(log_.find("written to " + directory("own").string() + " (" + directory("cache").string() + "/locks/"),
            std::string::npos)
      << log_;
}

TEST_F(CacheFaults, FileSystemWithoutLocksOrSync) {
  for (const auto& [number, error] :
       {std::pair{SYS_flock, ENOSYS}, {SYS_flock, ENOLCK}, {SYS_flock, EOPNOTSUPP}, {SYS_fsync, EINVAL}}) {
    const std::string name = "cache" + std::to_string(number) + "-" + std::to_string(error);
    const int status = in_child([&, &number = number, &error = error] {
      if (!test::deny(static_cast<unsigned>(number), static_cast<unsigned>(error))) return test::kNoDeny;
      DG_REQUIRE(!store({name, "behind"})->get(kSource).cached);
      DG_REQUIRE(store({name})->get(kSource).cached);
      write_text(entry_path(name), "damaged");
      DG_REQUIRE(!store({name})->get(kSource).cached);
      DG_REQUIRE(store({name})->get(kSource).cached);
      DG_REQUIRE(fs::is_empty(directory(name) / "locks"));
      DG_REQUIRE(store({name})->remove_all().entries == 1);
      return 0;
    });
    if (status == test::kNoDeny) GTEST_SKIP() << "NOT TESTED: SECCOMP IS NOT ALLOWED HERE";
    EXPECT_EQ(status, 0) << name;
  }
}

// The first directory looks writable, and takes nothing.
TEST_F(CacheFaults, DirectoryBehindOneThatTakesNothing) {
  fs::create_symlink("/nonexistent/directory", directory("dangling"));
  EXPECT_FALSE(store({"dangling", "own"})->get(kSource).cached);
  EXPECT_TRUE(fs::exists(entry_path("own")));
  nvcc_.set_cubin(std::string(300'000, 'c'));
  const KernelSource large{"large_kernel", "// large\n"};
  on_tmpfs("size=128k", [&] {
    DG_REQUIRE(!store({"cache", "own"})->get(large).cached);
    DG_REQUIRE(files().empty());
    DG_REQUIRE(fs::exists(entry_path("own", large)));
    DG_REQUIRE(store({"cache", "own"})->get(large).cached);
    DG_REQUIRE(warnings_.empty());
    return 0;
  });
}

// One directory of many users: those who may write there may lock, whatever the umask of who came first.
TEST_F(CacheFaults, SharedDirectory) {
  fs::create_directories(directory());
  chmod(directory().c_str(), 01777);
  const fs::path lock_path = directory() / "locks" / KernelStore::key(kSource);
  const auto old = umask(0077);
  std::optional<FileLock> held(std::in_place, lock_path, std::chrono::seconds(0));
  umask(old);
  ASSERT_TRUE(held->held());
  struct stat info;
  ASSERT_EQ(stat((directory() / "locks").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 01777U);
  ASSERT_EQ(stat(lock_path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0666U);
  const auto as_nobody = [&](auto body) {
    return in_child([&] {
      test::become_nobody();
      const ScopedEnv temporary("TMPDIR", nullptr);
      return body();
    });
  };
  EXPECT_EQ(as_nobody([&] { return FileLock(lock_path, std::chrono::seconds(0)).error(); }), EWOULDBLOCK);
  chmod(lock_path.c_str(), 0644);
  EXPECT_EQ(as_nobody([&] { return FileLock(lock_path, std::chrono::seconds(0)).error(); }), EWOULDBLOCK);
  held.reset();
  // A lock file left by a killed process of another user.
  write_text(lock_path, "");
  EXPECT_EQ(as_nobody([&] {
              DG_REQUIRE(FileLock(lock_path, std::chrono::seconds(0)).held());
              DG_REQUIRE(!store()->get(kSource).cached);
              DG_REQUIRE(store()->get(kSource).cached);
              DG_REQUIRE(warnings_.empty());
              return 0;
            }),
            0);
}

TEST_F(CacheFaults, DirectoryThatVanishes) {
  const auto s = store();
  s->get(kSource);
  fs::remove_all(directory());
  EXPECT_FALSE(s->get(kSource).cached);
  EXPECT_TRUE(s->get(kSource).cached);
  EXPECT_TRUE(warnings_.empty());
}

TEST(CacheFaultsWorker, DISABLED_NoHome) {
  KernelStore store(cache_directories({}), CompilerChoice::nvcc, {});
  EXPECT_TRUE(store.directories().empty());
  EXPECT_FALSE(store.get(kSource).cubin.empty());
  EXPECT_FALSE(store.get(kSource).cubin.empty());
}

TEST_F(CacheFaults, EmptyEnvironment) {
  const ProcessResult result =
      test::run_self("CacheFaultsWorker.DISABLED_NoHome", {"-i", "DG_JIT_NVCC_COMPILER=" + nvcc_.path().string()});
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_EQ(nvcc_.runs(), 1);
}

// A compiler that is not there leaves nothing behind, and is looked for again.
TEST_F(CacheFaults, CompilerThatComesLater) {
  Context context({}, {.cache_dirs = {directory().string()}, .compiler = CompilerChoice::nvcc});
  {
    const ScopedEnv missing("DG_JIT_NVCC_COMPILER", "/nonexistent/nvcc");
    try {
      compile(context, GemmConfig{});
      ADD_FAILURE() << "compiled without a compiler";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::unavailable);
      EXPECT_NE(std::string(e.what()).find("/nonexistent/nvcc"), std::string::npos) << e.what();
    }
    EXPECT_EQ(files(), std::vector<std::string>{});
  }
  EXPECT_FALSE(compile(context, GemmConfig{}).cached);
  EXPECT_TRUE(compile(context, GemmConfig{}).cached);
}

// What the driver says to a kernel whose first byte is no good. (With the driver's own words: driver_test.cpp.)
std::string loaded(const Binary& binary) {
  const std::string text = bytes_of(binary);
  if (text[0] == '!') fail(ErrorCode::cuda, "cuModuleLoadData: CUDA_ERROR_INVALID_IMAGE (bad); kernel some_kernel");
  if (text[0] == '$') fail(ErrorCode::cuda, "cuModuleLoadData: CUDA_ERROR_OUT_OF_MEMORY (full); kernel some_kernel");
  return text;
}

TEST_F(CacheFaults, EntryThatTheDriverRefuses) {
  nvcc_.set_cubin("!broken");
  store()->get(kSource);
  nvcc_.set_cubin("good");
  {
    std::vector<std::jthread> threads;  // each like a process of its own
    for (int i = 0; i < 8; ++i) threads.emplace_back([&] { EXPECT_EQ(store()->load(kSource, 0, loaded), "good"); });
  }
  EXPECT_EQ(nvcc_.runs(), 2) << "compiled once for all";
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_TRUE(warned_of("was refused by the driver: moved to"));
  EXPECT_EQ(store()->load(kSource, 0, loaded), "good");
  EXPECT_TRUE(store()->get(kSource).cached);
  EXPECT_EQ(files().size(), 2U) << "the good one, and the bad one aside";
}

TEST_F(CacheFaults, ShippedEntryThatTheDriverRefuses) {
  nvcc_.set_cubin("!broken");
  store({"shipped"})->get(kSource);
  nvcc_.set_cubin("good");
  EXPECT_EQ(store({"own", "shipped"})->load(kSource, 0, loaded), "good");
  EXPECT_EQ(store({"own", "shipped"})->load(kSource, 0, loaded), "good");
  EXPECT_EQ(nvcc_.runs(), 2);
  EXPECT_TRUE(fs::exists(entry_path("own")));
}

TEST_F(CacheFaults, KernelThatTheDriverRefusesHoweverOftenItIsCompiled) {
  nvcc_.set_cubin("!broken");
  for (int i = 0; i < 3; ++i) {
    const int before = nvcc_.runs();
    try {
      store()->load(kSource, 0, loaded);
      ADD_FAILURE() << "loaded";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::cuda);
      EXPECT_STREQ(e.what(),
                   "cuModuleLoadData: CUDA_ERROR_INVALID_IMAGE (bad); kernel some_kernel: nvcc 13.0 compiled it for "
                   "sm_90a, which this GPU or its driver does not take");
    }
    EXPECT_EQ(nvcc_.runs(), before + 1);
  }
  EXPECT_EQ(files().size(), 1U) << "nothing is wrong with the entry";
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(CacheFaults, RefusalsForOtherReasons) {
  nvcc_.set_cubin("$large");
  store()->get(kSource);
  for (int i = 0; i < 2; ++i) {
    try {
      store()->load(kSource, 0, loaded);
      ADD_FAILURE() << "loaded";
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(), "cuModuleLoadData: CUDA_ERROR_OUT_OF_MEMORY (full); kernel some_kernel");
    }
  }
  EXPECT_EQ(nvcc_.runs(), 1);
  EXPECT_TRUE(warnings_.empty());
}

// With nowhere to write, the process keeps the kernel for itself.
TEST_F(CacheFaults, RefusedEntryOnAReadOnlyMount) {
  on_tmpfs("size=1m", [&] {
    nvcc_.set_cubin("!broken");
    store()->get(kSource);
    nvcc_.set_cubin("good");
    DG_REQUIRE(mount(nullptr, directory().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0);
    DG_REQUIRE(store()->load(kSource, 0, loaded) == "good");
    DG_REQUIRE(warned_of("was refused by the driver: left in place"));
    DG_REQUIRE(nvcc_.runs() == 2);
    return 0;
  });
}

}  // namespace
}  // namespace deep_gemm::jit
