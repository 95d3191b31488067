// Files that commands write, and files that are not what they say, at sizes and on disks that hurt.
#include "output_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "child_process.h"
#include "layer.h"
#include "npy.h"
#include "safetensors.h"
#include "scratch.h"

namespace deep_gemm::cli {
namespace {

namespace fs = std::filesystem;

// A sanitizer's shadow memory fills the address space, so that it cannot be limited.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kLimitedAddressSpace = false;
#else
constexpr bool kLimitedAddressSpace = true;
#endif
bool limit_address_space(rlim_t bytes) {
  const rlimit limit{bytes, bytes};
  return !kLimitedAddressSpace || setrlimit(RLIMIT_AS, &limit) == 0;
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

class Output : public testing::Test {
 protected:
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(scratch.path(""))) names.push_back(file.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  /// `body` in a child with a tmpfs of `size` on the directory `full`; `body` returns 0 where all is well.
  template <class Body>
  void on_small_disk(const char* size, Body&& body) {
    fs::create_directory(scratch.path("full"));
    const int status = test::in_child(
        [&] { return test::mount_tmpfs(scratch.path("full"), std::string("size=") + size) ? body() : test::kNoMount; });
    if (status == test::kNoMount) GTEST_SKIP() << "NOT TESTED: A TMPFS CANNOT BE MOUNTED HERE (root can)";
    EXPECT_EQ(status, 0);
  }
  Scratch scratch;
};

/// Whether `call` throws Error{io} with `part`; for children, where assertions are lost.
template <class Call>
bool fails_with(const std::string& part, Call&& call) {
  try {
    call();
    return false;
  } catch (const Error& e) {
    return e.code() == ErrorCode::io && std::string(e.what()).find(part) != std::string::npos;
  }
}

TEST_F(Output, AppearsWholeOrNotAtAll) {
  scratch.write("x", "old");
  {
    OutputFile file(scratch.path("x"));
    file.write(bytes_of("new "));
    file.write(bytes_of("text"));
    EXPECT_EQ(read_text(scratch.path("x")), "old");
    file.commit();
    EXPECT_EQ(read_text(scratch.path("x")), "new text");
  }
  EXPECT_EQ(read_text(scratch.path("x")), "new text");
  { OutputFile(scratch.path("x")).write(bytes_of("given up")); }
  EXPECT_EQ(read_text(scratch.path("x")), "new text");
  {
    OutputFile file(scratch.path("y"));
    file.write_at(4, bytes_of("5678"));
    file.write_at(0, bytes_of("1234"));
    file.commit();
  }
  EXPECT_EQ(read_text(scratch.path("y")), "12345678");
  EXPECT_EQ(files(), (std::vector<std::string>{"x", "y"}));
}

TEST_F(Output, LinksStayLinksAndDevicesStayDevices) {
  scratch.write("target", "old");
  fs::create_symlink("target", scratch.path("link"));
  {
    OutputFile file(scratch.path("link"));
    file.write(bytes_of("new"));
    file.commit();
  }
  EXPECT_TRUE(fs::is_symlink(scratch.path("link")));
  EXPECT_EQ(read_text(scratch.path("target")), "new");

  const float values[] = {1, 2};
  write_npy("/dev/null", values, 1, 2);
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_TRUE(fails_with("/dev/full: cannot be written: No space left", [&] { write_npy("/dev/full", values, 1, 2); }));

  ASSERT_EQ(mkfifo(scratch.path("pipe").c_str(), 0600), 0);
  const int reader = open(scratch.path("pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  write_npy(scratch.path("pipe"), values, 1, 2);
  char text[256] = {};
  EXPECT_EQ(read(reader, text, sizeof text), 128 + 8);
  close(reader);
  EXPECT_TRUE(fs::is_fifo(scratch.path("pipe")));
  EXPECT_EQ(files(), (std::vector<std::string>{"link", "pipe", "target"}));
  EXPECT_TRUE(fails_with("cannot be written: Is a directory", [&] { write_npy(scratch.path(""), values, 1, 2); }));
}

TEST_F(Output, LinksToNothingArePointedAtSomething) {
  fs::create_symlink("second", scratch.path("first"));
  fs::create_symlink(scratch.path("target"), scratch.path("second"));
  {
    OutputFile file(scratch.path("first"));
    file.write(bytes_of("new"));
    file.commit();
  }
  EXPECT_EQ(files(), (std::vector<std::string>{"first", "second", "target"}));
  EXPECT_TRUE(fs::is_symlink(scratch.path("first")) && fs::is_symlink(scratch.path("second")));
  EXPECT_EQ(read_text(scratch.path("target")), "new");
}

TEST_F(Output, KeepsPermissions) {
  scratch.write("x", "old");
  chmod(scratch.path("x").c_str(), 0604);
  {
    OutputFile file(scratch.path("x"));
    file.write(bytes_of("new"));
    file.commit();
  }
  struct stat after {};
  ASSERT_EQ(stat(scratch.path("x").c_str(), &after), 0);
  EXPECT_EQ(after.st_mode & 07777, 0604u);
}

TEST_F(Output, TellsFilesFromPipes) {
  EXPECT_TRUE(OutputFile(scratch.path("x")).is_beside());
  EXPECT_FALSE(OutputFile("/dev/null").is_beside());
  EXPECT_TRUE(files().empty());
}

// /dev/stdout and the shell's >(…) are such names; what they link to has none of its own.
TEST_F(Output, PipesByTheirDescriptor) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  {
    OutputFile file(fmt::format("/proc/self/fd/{}", ends[1]));
    EXPECT_FALSE(file.is_beside());
    file.write(bytes_of("text"));
    file.commit();
  }
  close(ends[1]);
  char got[8] = {};
  EXPECT_EQ(read(ends[0], got, sizeof got), 4);
  EXPECT_STREQ(got, "text");
  close(ends[0]);
}

TEST_F(Output, LinksInACircleAreErrors) {
  fs::create_symlink("b", scratch.path("a"));
  fs::create_symlink("a", scratch.path("b"));
  EXPECT_TRUE(fails_with("cannot be written: Too many levels", [&] { OutputFile(scratch.path("a")); }));
}

// In a container the process's number is the same each time, and so is that of whoever was killed and left a part.
TEST_F(Output, WhatWasLeftByAnotherIsNotInTheWay) {
  scratch.write(fmt::format("x.{}.part", getpid()), "of a process with this number");
  OutputFile file(scratch.path("x"));
  file.write(bytes_of("new"));
  file.commit();
  EXPECT_EQ(read_text(scratch.path("x")), "new");
}

TEST_F(Output, SignalsLeaveNoPart) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    scratch.write("x", "old");
    EXPECT_EQ(test::in_child([&] {
                std::signal(signal, SIG_DFL);
                OutputFile file(scratch.path("x"));
                file.write(bytes_of("new"));
                std::raise(signal);
                return 1;
              }),
              128 + signal);
    EXPECT_EQ(files(), std::vector<std::string>{"x"});
    EXPECT_EQ(read_text(scratch.path("x")), "old");
    // As under nohup.
    EXPECT_EQ(test::in_child([&] {
                std::signal(signal, SIG_IGN);
                OutputFile file(scratch.path("x"));
                std::raise(signal);
                file.commit();
                return 7;
              }),
              7);
  }
}

TEST_F(Output, FullDiskKeepsWhatWasThere) {
  const std::vector<float> small(4, 1.5f), large(100'000, 2.5f);
  on_small_disk("64k", [&] {
    const std::string path = scratch.path("full/y.npy");
    write_npy(path, small, 2, 2);
    if (!fails_with(path + ": cannot be written: No space left", [&] { write_npy(path, large, 100, 1000); })) return 1;
    if (read_npy(path).shape != std::vector<int64_t>{2, 2}) return 2;
    const std::string model = scratch.path("full/m");
    const auto write_model = [&](int64_t n) {
      SafetensorsWriter writer(model, {{"w", "F32", {n}}});
      writer.write("w", std::as_bytes(std::span(large).first(static_cast<std::size_t>(n))));
      writer.commit();
    };
    write_model(7);
    if (!fails_with(model + ": cannot be written: No space left", [&] { write_model(100'000); })) return 3;
    if (SafetensorsFile(model).find("w")->shape != std::vector<int64_t>{7}) return 4;
    return std::distance(fs::directory_iterator(scratch.path("full")), {}) == 2 ? 0 : 5;
  });
}

TEST_F(Output, UnwritableDirectoryAndUnreadableFile) {
  scratch.write("x", "secret");
  chmod(scratch.path("x").c_str(), 0000);
  chmod(scratch.path("").c_str(), 0555);
  EXPECT_EQ(test::in_child([&] {
              test::become_nobody();
              if (!fails_with("cannot be written: Permission denied", [&] { OutputFile(scratch.path("y")); })) return 1;
              if (!fails_with("cannot be opened: Permission denied", [&] { SafetensorsFile(scratch.path("x")); }))
                return 2;
              return fails_with("cannot be opened: Permission denied", [&] { read_npy(scratch.path("x")); }) ? 0 : 3;
            }),
            0);
  chmod(scratch.path("").c_str(), 0755);
}

// Larger than memory: mapped, and read only where it is used. The files have holes and take no space. ThreadSanitizer has
// room for less.
TEST_F(Output, HugeFiles) {
  constexpr int64_t kSide = kLimitedAddressSpace ? 1 << 20 : 1 << 17, kHuge = kSide * kSide;
  const std::string header = fmt::format(R"({{"a":{{"dtype":"U8","shape":[{0},{0}],"data_offsets":[0,{1}]}},)"
                                         R"("b.weight":{{"dtype":"F32","shape":[1,2],"data_offsets":[{1},{2}]}}}})",
                                         kSide, kHuge, kHuge + 8);
  const std::string model = scratch.write("model", safetensors_text(header, ""));
  const auto begin = static_cast<std::uintmax_t>(fs::file_size(model));
  const float values[] = {3, 4};
  std::error_code error;
  fs::resize_file(model, begin + kHuge + sizeof values, error);
  if (error) GTEST_SKIP() << "NOT TESTED: NO SUCH LARGE FILE CAN BE MADE HERE: " << error.message();
  const int file = open(model.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_EQ(pwrite(file, values, sizeof values, static_cast<off_t>(begin) + kHuge), 8);
  close(file);
  EXPECT_EQ(test::in_child([&] {
              if (!limit_address_space(2 * kHuge)) return 1;
              const SafetensorsFile opened(model);
              if (opened.find("a")->bytes.size() != static_cast<std::size_t>(kHuge)) return 2;
              if (opened.find("a")->bytes[kHuge - 1] != std::byte{0}) return 3;
              const Layer layer = find_layer(opened, "b");
              float got[2];
              std::memcpy(got, layer.weight.data, sizeof got);
              return got[0] == 3 && got[1] == 4 ? 0 : 4;
            }),
            0);
  // The address space ends before the file does.
  EXPECT_EQ(test::in_child([&] {
              if (!limit_address_space(1 << 30)) return 1;
              if (!kLimitedAddressSpace) return 0;
              return fails_with("model: cannot be mapped: Cannot allocate memory", [&] { SafetensorsFile{model}; }) ? 0
                                                                                                                    : 2;
            }),
            0);
  // One byte less, and it lies about its end.
  fs::resize_file(model, begin + kHuge + sizeof values - 1);
  expect_error(ErrorCode::io, "truncated: tensor 'b.weight' ends at byte ", [&] { SafetensorsFile{model}; });

  const std::string head =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}\n", kSide, kSide / 4);
  std::string npy = std::string("\x93NUMPY\x01", 7) + '\0' + static_cast<char>(head.size()) + '\0' + head;
  const std::string array = scratch.write("x.npy", npy);
  fs::resize_file(array, npy.size() + static_cast<std::uintmax_t>(kHuge));
  EXPECT_EQ(read_npy(array).bytes.size(), static_cast<std::size_t>(kHuge));
  fs::resize_file(array, npy.size() + static_cast<std::uintmax_t>(kHuge) + 1);
  expect_error(ErrorCode::io, fmt::format("{} bytes of data", kHuge + 1), [&] { read_npy(array); });
}

// A header as long as the format allows, and not JSON from its first bracket on.
TEST_F(Output, LongHeaders) {
  const std::string path =
      scratch.write("x", safetensors_text("{\"a\":" + std::string(5'000'000, '['), std::string(8, 'd')));
  expect_error(ErrorCode::io, "the header is nested deeper", [&] { SafetensorsFile{path}; });
  std::string many = "{";
  for (int i = 0; i < 20'000; ++i)
    many += (i ? ",\"t" : "\"t") + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_EQ(SafetensorsFile(scratch.write("y", safetensors_text(many + "}", ""))).tensors().size(), 20'000u);
}

}  // namespace
}  // namespace deep_gemm::cli
