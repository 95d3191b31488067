// What the disk cache asks of the file system. Errors are errnos: nothing here throws because of a disk.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace deep_gemm::jit {

/// What `publish` writes before it is whole is called NAME.tmp-….
constexpr std::string_view kTemporaryMark = ".tmp-";

/// An end of a name that is most likely not taken.
std::string unique_suffix();

/// Sets `text` to the file's bytes; to none where it is by its kind, mode or size none that can be read. Returns 0, or an
/// errno where that may be otherwise the next time: no descriptors or memory left, a server that does not answer.
int read_file(const std::filesystem::path& path, std::string& text);

/// Puts `text` at `path` whole or not at all. Returns 0, or an errno with nothing left behind.
int publish(const std::filesystem::path& path, std::string_view text);

/// mkdir -p with modes that leave others out. Returns 0 or an errno.
int make_directories(const std::filesystem::path& path);

/// Whether the nearest ancestor that exists is a directory we may write.
bool can_be_written(std::filesystem::path path);

/// What lies in `directory`, sorted.
std::vector<std::filesystem::path> files_in(const std::filesystem::path& directory);

/// An exclusive lock on the file DIRECTORY/locks/KEY, which is made for it, with its directories, and removed with it. Who
/// may write in DIRECTORY may lock. Threads have their own, so it keeps them apart as well.
class FileLock {
 public:
  /// Waits up to `patience` for another holder.
  FileLock(std::filesystem::path path, std::chrono::milliseconds patience);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  bool held() const { return fd_ >= 0; }
  /// Why it is not held: EWOULDBLOCK where another holds it, 0 where the file system has no locks.
  int error() const { return error_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  int error_ = 0;
};

}  // namespace deep_gemm::jit
