#include "output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>

#include "text.h"

namespace deep_gemm::cli {
namespace fs = std::filesystem;
namespace {

/// Of the newest file that is not committed: for a signal handler, which may take no lock and no memory.
std::atomic<const char*> newest_part = nullptr;
static_assert(std::atomic<const char*>::is_always_lock_free);

void remove_part_and_die(int signal) {
  if (const char* part = newest_part) unlink(part);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void remove_at_signals(const std::string& part) {
  newest_part = part.c_str();
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    // Who was told to ignore one, as under nohup, goes on doing so.
    if (std::signal(signal, remove_part_and_die) == SIG_IGN) std::signal(signal, SIG_IGN);
  }
}

/// Where a chain of symbolic links leads, be there a file or not.
fs::path followed(fs::path path) {
  std::error_code error;
  while (fs::is_symlink(path, error)) path = path.parent_path() / fs::read_symlink(path, error);
  return path;
}

}  // namespace

OutputFile::OutputFile(const std::string& path) : path_(path) {
  struct stat old {};
  const bool exists = stat(path.c_str(), &old) == 0;
  if (!exists && errno != ENOENT) fail_writing(errno);
  if (exists && !S_ISREG(old.st_mode)) {  // by the name given: what /dev/stdout links to may have none
    descriptor_ = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail_writing(errno);
    return;
  }
  target_ = followed(path);
  std::random_device random;
  std::string part;
  do {
    part = fmt::format("{}.{:08x}.part", target_, random());
    descriptor_ = open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) fail_writing(errno);
  part_ = part;
  remove_at_signals(part_);
  if (exists) fchmod(descriptor_, old.st_mode & 07777);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) close(descriptor_);
  if (part_.empty()) return;
  unlink(part_.c_str());
  newest_part = nullptr;
}

void OutputFile::fail_writing(int error) const {
  fail(ErrorCode::io, "{}: cannot be written: {}", path_, std::strerror(error));
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_writing(errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_writing(errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
}

void OutputFile::commit() {
  if (part_.empty()) return;
  // Some file systems find out only here that there is no room.
  if (fsync(descriptor_) != 0 || std::rename(part_.c_str(), target_.c_str()) != 0) fail_writing(errno);
  newest_part = nullptr;
  part_.clear();
}

}  // namespace deep_gemm::cli
