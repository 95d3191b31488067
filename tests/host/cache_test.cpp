#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <csignal>
#include <thread>

#include "cache_fixture.h"
#include "jit/entry.h"
#include "jit/files.h"
#include "self_process.h"

namespace deep_gemm::jit {
namespace {

TEST_F(Cache, KeyDependsOnAllThatChangesTheKernel) {
  const std::string key = KernelStore::key(kSource);
  EXPECT_EQ(key.size(), 32U);
  EXPECT_EQ(key.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(key, KernelStore::key(kSource));
  EXPECT_NE(key, KernelStore::key({"some_kernel", "// text of a kernel"}));
  EXPECT_NE(key, KernelStore::key({"other_kernel", "// text of a kernel\n"}));
  const ScopedEnv lines("DG_JIT_WITH_LINEINFO", "1");
  EXPECT_NE(key, KernelStore::key(kSource));
  EXPECT_EQ(embedded_digest().size(), 32U);
}

TEST_F(Cache, SecondProcessReadsWithoutACompiler) {
  const Binary built = store()->get(kSource);
  EXPECT_FALSE(built.cached);
  EXPECT_EQ(bytes_of(built), read_text(nvcc_.root() / "cubin"));
  EXPECT_EQ(built.registers, 40);
  const ScopedEnv missing("DG_JIT_NVCC_COMPILER", "/nonexistent/nvcc");
  const Binary read = store()->get(kSource);
  EXPECT_TRUE(read.cached);
  EXPECT_EQ(read.cubin, built.cubin);
  EXPECT_EQ(read.compiler, "nvcc 13.0");
  EXPECT_EQ(read.seconds, built.seconds);
  EXPECT_EQ(read.registers, built.registers);
  EXPECT_EQ(read.spill_bytes, built.spill_bytes);
  EXPECT_EQ(nvcc_.runs(), 1);
  EXPECT_TRUE(warnings_.empty());
  EXPECT_EQ(files(), std::vector<std::string>{KernelStore::key(kSource) + ".dgk"});
  EXPECT_TRUE(fs::is_empty(directory() / "locks"));
}

TEST_F(Cache, ListAndRemoveKnowOnlyOurFiles) {
  const auto s = store();
  s->get(kSource);
  s->get({"other_kernel", "// other\n"});
  const std::string key = KernelStore::key(kSource);
  auto list = s->list();
  ASSERT_EQ(list.size(), 2U);
  if (list[0].key != key) std::swap(list[0], list[1]);
  EXPECT_EQ(list[0].key, key);
  EXPECT_EQ(list[0].entry, "some_kernel");
  EXPECT_EQ(list[0].compiler, "nvcc 13.0");
  EXPECT_EQ(list[0].path, entry_path());
  EXPECT_EQ(list[0].bytes, fs::file_size(entry_path()));

  const std::vector<std::string> foreign{"README",      "notes.dgk", "x" + key.substr(1) + ".dgk",
                                         key + ".dgk2", key,         key + ".txt"};
  for (const std::string& name : foreign) write_text(directory() / name, "keep");
  for (const char* suffix : {".dgk.bad-1-1", ".dgk.tmp-1-1", ".ptx", ".cu", ".sass", ".cu.tmp-9-9"})
    write_text(directory() / (key + suffix), "remove");
  write_text(directory() / "locks" / std::string(32, '0'), "");
  const fs::path held = directory() / "locks" / std::string(32, '1');
  write_text(held, "");
  const int lock = open(held.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  EXPECT_EQ(s->list().size(), 2U);
  const auto removed = s->remove_all();
  EXPECT_EQ(removed.entries, 2);
  EXPECT_EQ(removed.bytes, list[0].bytes + list[1].bytes + 6 * 6);
  auto left = foreign;
  std::ranges::sort(left);
  EXPECT_EQ(files(), left);
  EXPECT_FALSE(fs::exists(directory() / "locks" / std::string(32, '0')));
  EXPECT_TRUE(fs::exists(held)) << "it is locked";
  close(lock);
  EXPECT_EQ(s->remove_all().entries, 0);
  EXPECT_FALSE(fs::exists(directory() / "locks"));
  EXPECT_FALSE(s->get(kSource).cached);
}

TEST_F(Cache, RemoveKeepsWhatOthersPutUnderLocks) {
  const std::string key(32, 'a');
  const std::vector<std::string> foreign{"notes", "x" + key.substr(1), key + "0", key.substr(1)};
  for (const std::string& name : foreign) write_text(directory() / "locks" / name, "keep");
  fs::create_directories(directory() / "locks" / std::string(32, 'b'));
  fs::create_symlink("notes", directory() / "locks" / std::string(32, 'c'));
  write_text(directory() / "locks" / key, "");
  fs::create_directories(directory("other") / "locks");
  store({"cache", "other"})->remove_all();
  for (const std::string& name : foreign) EXPECT_EQ(read_text(directory() / "locks" / name), "keep") << name;
  EXPECT_TRUE(fs::exists(directory() / "locks" / std::string(32, 'b')));
  EXPECT_TRUE(fs::is_symlink(directory() / "locks" / std::string(32, 'c')));
  EXPECT_FALSE(fs::exists(directory() / "locks" / key));
  EXPECT_TRUE(fs::exists(directory("other") / "locks")) << "nothing says that it is ours";
}

// What a process is writing stays; what a killed one left goes.
TEST_F(Cache, RemoveKeepsTemporariesOfKeysThatAreLocked) {
  const std::string held = std::string(32, '1') + ".dgk.tmp-1-1", left = std::string(32, '2') + ".dgk.tmp-1-1";
  write_text(directory() / held, "keep");
  write_text(directory() / left, "remove");
  {
    const FileLock lock(directory() / "locks" / std::string(32, '1'), std::chrono::seconds(0));
    ASSERT_TRUE(lock.held());
    EXPECT_EQ(store()->remove_all().bytes, 6U);
    EXPECT_EQ(files(), std::vector<std::string>{held});
  }
  EXPECT_EQ(store()->remove_all().bytes, 4U);
  EXPECT_TRUE(fs::is_empty(directory()));
}

// A writer whose lock is in the first directory may write to the second one.
TEST_F(Cache, RemoveKeepsTemporariesWhoseLockIsElsewhere) {
  const fs::path first = directory() / "first", second = directory() / "second";
  const std::string key(32, '1');
  write_text(second / (key + ".dgk.tmp-1-1"), "keep");
  KernelStore both({first, second}, CompilerChoice::nvcc, {});
  {
    const FileLock lock(first / "locks" / key, std::chrono::seconds(0));
    ASSERT_TRUE(lock.held());
    EXPECT_EQ(both.remove_all().bytes, 0U);
  }
  EXPECT_EQ(both.remove_all().bytes, 4U);
}

TEST_F(Cache, RemoveCountsEntriesThatAreLinks) {
  store()->get({"kernel", "// text"});
  const fs::path entry = directory() / files().at(0), shipped = directory() / "shipped";
  fs::rename(entry, shipped);
  fs::create_symlink(shipped, entry);
  ASSERT_EQ(store()->list().size(), 1U);
  const KernelStore::Removed removed = store()->remove_all();
  EXPECT_EQ(removed.entries, 1);
  EXPECT_EQ(removed.bytes, fs::file_size(shipped));
  EXPECT_EQ(files(), std::vector<std::string>{"shipped"});
}

// Whoever clears the cache meanwhile, kernels are compiled and written.
TEST_F(Cache, RemoveWhileOthersCompile) {
  std::atomic<bool> stop = false;
  std::jthread removing([&] {
    while (!stop) store()->remove_all();
  });
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < 40; ++i) store()->get({"kernel_" + std::to_string(t), "// " + std::to_string(i)});
      });
  }
  stop = true;
  removing.join();
  EXPECT_TRUE(warnings_.empty()) << warnings_[0];
}

TEST_F(Cache, EntryFormatNoticesEveryFlippedBit) {
  Entry entry{"key", "entry", {}};
  entry.binary.cubin = {std::byte{1}, std::byte{'\n'}, std::byte{0}};
  entry.binary.compiler = "NVRTC 12.9";
  entry.binary.seconds = 0.1234567890123;
  entry.binary.registers = 168;
  entry.binary.spill_bytes = 4;
  const std::string text = write_entry(entry);
  const auto read = read_entry(text);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->key, "key");
  EXPECT_EQ(read->entry, "entry");
  EXPECT_EQ(read->binary.cubin, entry.binary.cubin);
  EXPECT_EQ(read->binary.compiler, "NVRTC 12.9");
  EXPECT_EQ(read->binary.seconds, 0.1234567890123);
  EXPECT_EQ(read->binary.registers, 168);
  EXPECT_EQ(read->binary.spill_bytes, 4);
  for (std::size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string damaged = text;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    ASSERT_FALSE(read_entry(damaged)) << "bit " << bit;
  }
  for (std::size_t length = 0; length < text.size(); ++length)
    ASSERT_FALSE(read_entry(text.substr(0, length))) << length;
  EXPECT_FALSE(read_entry(text + "x"));
}

TEST_F(Cache, DamagedEntriesAreMovedAsideAndRebuilt) {
  store()->get(kSource);
  store()->get({"other_kernel", "// other\n"});
  const std::string whole = read_text(entry_path());
  const std::string other = read_text(entry_path("cache", {"other_kernel", "// other\n"}));
  std::string flipped = whole;
  flipped[whole.size() - 3] = static_cast<char>(flipped[whole.size() - 3] ^ 4);
  int runs = nvcc_.runs();
  for (const std::string& damaged : {std::string(), whole.substr(0, whole.size() / 2), whole.substr(0, 30), flipped,
                                     other, whole + whole, std::string(5000, '\xff')}) {
    warnings_.clear();
    write_text(entry_path(), damaged);
    const Binary binary = store()->get(kSource);
    EXPECT_FALSE(binary.cached);
    EXPECT_EQ(nvcc_.runs(), ++runs);
    EXPECT_EQ(bytes_of(binary), read_text(nvcc_.root() / "cubin"));
    ASSERT_EQ(warnings_.size(), 1U);
    const std::size_t at = warnings_[0].find("moved to ");
    ASSERT_NE(at, std::string::npos) << warnings_[0];
    const std::string aside = warnings_[0].substr(at + 9, warnings_[0].find(',', at) - at - 9);
    EXPECT_EQ(read_text(directory() / aside), damaged);
    EXPECT_TRUE(store()->get(kSource).cached);
  }
  fs::remove(entry_path());
  fs::create_directories(entry_path() / "a directory");
  EXPECT_FALSE(store()->get(kSource).cached);
  EXPECT_TRUE(store()->get(kSource).cached);
  fs::remove(entry_path());
  fs::create_symlink("/nonexistent", entry_path());
  EXPECT_FALSE(store()->get(kSource).cached);
  EXPECT_TRUE(store()->get(kSource).cached);
}

TEST_F(Cache, DirectoriesAreReadInOrderAndTheFirstWritableOneIsWritten) {
  store({"shipped"})->get(kSource);
  EXPECT_TRUE(store({"own", "shipped"})->get(kSource).cached);
  EXPECT_EQ(files("own"), std::vector<std::string>{});
  const KernelSource other{"other_kernel", "// other\n"};
  const auto both = store({"own", "shipped"});
  EXPECT_EQ(both->writable_directory(), directory("own"));
  EXPECT_FALSE(fs::exists(directory("own"))) << "asking creates nothing";
  both->get(other);
  EXPECT_TRUE(fs::exists(entry_path("own", other)));
  EXPECT_FALSE(fs::exists(entry_path("shipped", other)));
  // A file in the place of a directory cannot be written even by root.
  write_text(directory("file"), "");
  const KernelSource third{"third_kernel", "// third\n"};
  const auto behind = store({"file", "own"});
  EXPECT_EQ(behind->writable_directory(), directory("own"));
  behind->get(third);
  EXPECT_TRUE(fs::exists(entry_path("own", third)));
  // A damaged entry in front does not hide a good one behind.
  nvcc_.set_version("13.1");
  store({"front"})->get(kSource);
  write_text(entry_path("front"), "damaged");
  const Binary binary = store({"front", "shipped"})->get(kSource);
  EXPECT_TRUE(binary.cached);
  EXPECT_EQ(binary.compiler, "nvcc 13.0");
  EXPECT_EQ(store({"front", "shipped", "own"})->directories().size(), 3U);
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(Cache, WithoutADirectoryKernelsLiveInMemory) {
  write_text(directory("file"), "");
  for (const std::vector<std::string>& names : {std::vector<std::string>{}, std::vector<std::string>{"file"}}) {
    warnings_.clear();
    const int before = nvcc_.runs();
    const auto s = store(names);
    EXPECT_EQ(s->writable_directory(), "");
    EXPECT_EQ(bytes_of(s->get(kSource)), read_text(nvcc_.root() / "cubin"));
    EXPECT_EQ(bytes_of(s->get(kSource)), read_text(nvcc_.root() / "cubin"));
    s->get({"other_kernel", "// other\n"});
    EXPECT_EQ(nvcc_.runs(), before + 2) << "a kernel in memory is not compiled again";
    ASSERT_EQ(warnings_.size(), 1U) << "one warning, not one a kernel";
    EXPECT_NE(warnings_[0].find("DG_JIT_CACHE_DIR"), std::string::npos);
    EXPECT_TRUE(s->list().empty());
    EXPECT_EQ(s->remove_all().entries, 0);
  }
}

TEST_F(Cache, ReadOnlyDirectoryIsReadButNotWritten) {
  store()->get(kSource);
  const KernelSource other{"other_kernel", "// other\n"};
  write_text(entry_path("cache", other), "damaged");
  fs::remove(directory() / "locks");
  chmod(directory().c_str(), 0555);
  const int status = test::in_child([&] {
    test::become_nobody();
    const ScopedEnv temporary("TMPDIR", nullptr);
    const auto s = store();
    if (!s->writable_directory().empty()) return 1;
    if (!s->get(kSource).cached) return 2;
    if (s->get(other).cached || s->get(other).cubin.empty()) return 3;
    if (warnings_.size() != 2) return 4;
    if (warnings_[0].find("left in place") == std::string::npos) return 5;
    if (warnings_[1].find("this process alone") == std::string::npos) return 6;
    return s->remove_all().entries;
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(nvcc_.runs(), 2);
  chmod(directory().c_str(), 0755);
  EXPECT_EQ(files().size(), 2U);
}

TEST_F(Cache, UnreadableEntryIsMovedAside) {
  store()->get(kSource);
  chmod(directory().c_str(), 0777);
  chmod((directory() / "locks").c_str(), 0777);
  chmod(entry_path().c_str(), 0000);
  EXPECT_EQ(test::in_child([&] {
              test::become_nobody();
              if (store()->get(kSource).cached) return 1;
              return store()->get(kSource).cached ? 0 : 2;
            }),
            0);
  EXPECT_EQ(files().size(), 2U);
}

TEST_F(Cache, FullDiskLeavesNothingBehind) {
  nvcc_.set_cubin(std::string(4'000'000, 'c'));
  const int status = test::in_child([&] {
    // The cubin fits, the entry with its header does not.
    const rlimit limit{4'000'050, 4'000'050};
    if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR || setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
    const auto s = store();
    if (s->get(kSource).cubin.size() != 4'000'000 || s->get(kSource).cubin.size() != 4'000'000) return 2;
    return warnings_.size() == 1 ? 0 : 3;
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(nvcc_.runs(), 1);
  EXPECT_EQ(files(), std::vector<std::string>{});
}

TEST_F(Cache, FilesFollowTheUmask) {
  const auto mode = [](const fs::path& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0 ? info.st_mode & 0777 : 0U;
  };
  for (const auto& [mask, file, dir] : {std::tuple{0077U, 0600U, 0700U}, std::tuple{0022U, 0644U, 0755U}}) {
    const std::string name = "cache" + std::to_string(mask);
    const auto old = umask(mask);
    store({name + "/deep/down"})->get(kSource);
    umask(old);
    EXPECT_EQ(mode(entry_path(name + "/deep/down")), file);
    EXPECT_EQ(mode(directory(name)), dir);
    EXPECT_EQ(mode(directory(name + "/deep/down")), dir);
  }
}

TEST_F(Cache, ThreadsThatMissTogetherCompileOnce) {
  nvcc_.set_delay("0.2");
  for (const bool shared : {true, false}) {
    const KernelSource source{"kernel", shared ? "// shared\n" : "// own\n"};
    const int before = nvcc_.runs();
    const auto common = store();
    std::vector<std::string> results(8);
    std::barrier start(8);
    std::vector<std::jthread> threads;
    for (std::string& result : results)
      threads.emplace_back([&, mine = shared ? nullptr : store()] {
        start.arrive_and_wait();
        result = bytes_of((shared ? *common : *mine).get(source));
      });
    threads.clear();
    EXPECT_EQ(nvcc_.runs(), before + 1) << (shared ? "one store" : "a store each");
    for (const std::string& result : results) EXPECT_EQ(result, read_text(nvcc_.root() / "cubin"));
  }
}

TEST_F(Cache, ThreadsCompileDifferentKernelsSideBySide) {
  const auto s = store();
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] { s->get({"kernel_" + std::to_string(i), "// " + std::to_string(i / 2)}); });
  threads.clear();
  EXPECT_EQ(nvcc_.runs(), 8);
  EXPECT_EQ(s->list().size(), 8U);
}

TEST(CacheWorker, DISABLED_Get) {
  const Binary binary = KernelStore({std::getenv("WORKER_CACHE")}, CompilerChoice::nvcc, {}).get(kSource);
  ASSERT_EQ(bytes_of(binary), read_text(std::getenv("WORKER_CUBIN")));
}

TEST_F(Cache, ProcessesThatMissTogetherCompileOnce) {
  nvcc_.set_delay("0.5");
  const std::vector<std::string> environment{"WORKER_CACHE=" + directory().string(),
                                             "WORKER_CUBIN=" + (nvcc_.root() / "cubin").string()};
  std::vector<ProcessResult> results(16);
  {
    std::vector<std::jthread> threads;
    for (ProcessResult& result : results)
      threads.emplace_back([&] { result = test::run_self("CacheWorker.DISABLED_Get", environment); });
  }
  for (const ProcessResult& result : results) EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_EQ(nvcc_.runs(), 1);
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(Cache, ProcessKilledWhileCompilingBlocksNobody) {
  const ScopedEnv temporary("TMPDIR", scratch_.path().c_str());
  const std::vector<std::string> environment{"WORKER_CACHE=" + directory().string(),
                                             "WORKER_CUBIN=" + (nvcc_.root() / "cubin").string()};
  nvcc_.kill_the_next_caller();
  EXPECT_EQ(test::run_self("CacheWorker.DISABLED_Get", environment).status, 128 + SIGKILL);
  EXPECT_EQ(files(), std::vector<std::string>{});
  EXPECT_FALSE(fs::is_empty(directory() / "locks")) << "the dead process's lock file lies here";
  EXPECT_FALSE(store()->get(kSource).cached);
  EXPECT_TRUE(store()->get(kSource).cached);
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(Cache, FailedCompilationIsReportedAndTriedAgain) {
  const auto s = store();
  nvcc_.set_fail(true);
  nvcc_.set_log("kernel.cu(7): error: boom");
  try {
    s->get(kSource);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::compiler);
    EXPECT_EQ(std::string(e.what()),
              "kernel some_kernel does not compile with nvcc 13.0:\nkernel.cu(7): error: boom\n");
  }
  EXPECT_EQ(files(), std::vector<std::string>{});
  nvcc_.set_fail(false);
  EXPECT_FALSE(s->get(kSource).cached);
  EXPECT_EQ(nvcc_.runs(), 2);
}

TEST_F(Cache, EntriesThatTheDriverCannotLoadAreRebuilt) {
  nvcc_.set_version("13.2");
  store()->get(kSource);
  nvcc_.set_version("13.0");
  EXPECT_EQ(store()->get(kSource, 13020).compiler, "nvcc 13.2");
  const Binary rebuilt = store()->get(kSource, 13010);
  EXPECT_FALSE(rebuilt.cached);
  EXPECT_EQ(rebuilt.compiler, "nvcc 13.0");
  EXPECT_TRUE(store()->get(kSource, 13010).cached);
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(Cache, EntriesOfOldCompilersAreRebuiltWhereANewerOneIsAtHand) {
  nvcc_.set_version("12.4");
  store()->get(kSource);
  EXPECT_TRUE(store()->get(kSource).cached) << "no newer compiler, so compiling again gains nothing";
  {
    const ScopedEnv missing("DG_JIT_NVCC_COMPILER", "/nonexistent/nvcc");
    EXPECT_TRUE(store()->get(kSource).cached) << "an old kernel is better than none";
  }
  nvcc_.set_version("12.9");
  EXPECT_EQ(store()->get(kSource).compiler, "nvcc 12.9");
  nvcc_.set_version("13.0");
  EXPECT_EQ(store()->get(kSource).compiler, "nvcc 12.9") << "12.9 is good enough";
  EXPECT_EQ(nvcc_.runs(), 2);
}

TEST_F(Cache, SpillsAreErrorsOnRequest) {
  nvcc_.set_log(
      "    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\nptxas info : Used 255 registers");
  const Binary binary = store()->get(kSource);
  EXPECT_EQ(binary.spill_bytes, 28);
  EXPECT_EQ(binary.registers, 255);
  EXPECT_EQ(store()->get(kSource).spill_bytes, 28);
  const ScopedEnv check("DG_JIT_PTXAS_CHECK", "1");
  EXPECT_THROW(store()->get(kSource), Error) << "also one from the cache";
}

TEST_F(Cache, WhatTheEnvironmentAsksForIsLoggedAndWritten) {
  const ScopedEnv debug("DG_JIT_DEBUG", "1"), ptx("DG_JIT_DUMP_PTX", "1"), sass("DG_JIT_DUMP_SASS", "1");
  const fs::path toolkit = scratch_.path() / "toolkit";
  write_text(toolkit / "bin" / "nvdisasm", "#!/bin/sh\necho disassembly of; cat \"$1\"\n");
  chmod((toolkit / "bin" / "nvdisasm").c_str(), 0755);
  const ScopedEnv home("CUDA_HOME", toolkit.c_str());
  store()->get(kSource);
  const fs::path stem = directory() / KernelStore::key(kSource);
  EXPECT_EQ(read_text(stem.string() + ".cu"), kSource.text);
  EXPECT_EQ(read_text(stem.string() + ".ptx"), "the ptx\n");
  EXPECT_EQ(read_text(stem.string() + ".sass"), "disassembly of\n" + read_text(nvcc_.root() / "cubin"));
  EXPECT_NE(log_.find(nvcc_.path().string() + " -cubin -gencode=arch=compute_90a,code=sm_90a --std=c++20"),
            std::string::npos)
      << log_;
  EXPECT_NE(log_.find("Used 40 registers"), std::string::npos);
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(Cache, ManyKernelsAndProcessesMixed) {
  // Damage and rebuild at once: whoever comes, everybody gets the right bytes and at the end every entry is whole.
  const std::string cubin = read_text(nvcc_.root() / "cubin");
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 12; ++i) {
        const KernelSource source{"kernel", "// " + std::to_string(i % 3)};
        if ((i + t) % 4 == 0 && fs::exists(entry_path("cache", source)))
          fs::resize_file(entry_path("cache", source), 50);
        EXPECT_EQ(bytes_of(store()->get(source)), cubin);
      }
    });
  threads.clear();
  for (int i = 0; i < 3; ++i) {
    store()->get({"kernel", "// " + std::to_string(i)});
    EXPECT_TRUE(store()->get({"kernel", "// " + std::to_string(i)}).cached);
  }
}

}  // namespace
}  // namespace deep_gemm::jit
