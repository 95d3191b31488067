#include "jit/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <thread>
#include <utility>

#include <fmt/format.h>

namespace deep_gemm::jit {
namespace fs = std::filesystem;
namespace {

// A kernel takes some 100 KiB; what is larger than this is none, and is not read into memory.
constexpr off_t kMaxFileBytes = 64 << 20;
// How often others may undo what a step has just prepared before that is an error.
constexpr int kAttempts = 100;

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }
  int close() { return ::close(std::exchange(fd_, -1)); }

 private:
  int fd_;
};

// Whether an operation failed because the file system has none of that kind.
bool is_unsupported(int error) { return error == ENOSYS || error == ENOLCK || error == EOPNOTSUPP || error == EINVAL; }

// Opens the lock file, which is made where it is not there. Returns -1 with errno.
int open_lock(const fs::path& path) {
  constexpr int kFlags = O_CLOEXEC | O_NOFOLLOW;
  int fd = open(path.c_str(), O_RDWR | kFlags);
  // Another user's: reading is enough to lock it, except on NFS.
  if (fd < 0 && errno == EACCES) fd = open(path.c_str(), O_RDONLY | kFlags);
  if (fd >= 0 || errno != ENOENT) return fd;
  const fs::path locks = path.parent_path(), directory = locks.parent_path();
  if (const int error = make_directories(directory); error != 0) {
    errno = error;
    return -1;
  }
  // Modes follow those of the cache's directory, not the umask, so that users who share it share its locks.
  struct stat info;
  if (stat(directory.c_str(), &info) != 0) return -1;
  if (mkdir(locks.c_str(), info.st_mode & 0777) == 0)
    chmod(locks.c_str(), info.st_mode & 07777);
  else if (errno != EEXIST)
    return -1;
  fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | kFlags, info.st_mode & 0666);
  if (fd >= 0) fchmod(fd, info.st_mode & 0666);
  return fd;
}

// Whether `fd` is what `path` names: what was opened may have been removed since, and the name be another file's.
bool is_named(int fd, const fs::path& path) {
  struct stat opened, named;
  return fstat(fd, &opened) == 0 && lstat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

}  // namespace

std::string unique_suffix() {
  // Containers that share a disk have the same few process ids again and again.
  return fmt::format("{}-{}", getpid(), std::chrono::steady_clock::now().time_since_epoch().count());
}

int read_file(const fs::path& path, std::string& text) {
  text.clear();
  // O_NONBLOCK: a pipe is not waited for.
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info;
  if (!file || fstat(file.get(), &info) != 0) {
    constexpr int kOfTheFile[] = {ENOENT, EACCES, ELOOP, ENXIO};
    return std::ranges::find(kOfTheFile, errno) != std::end(kOfTheFile) ? 0 : errno;
  }
  if (!S_ISREG(info.st_mode) || info.st_size > kMaxFileBytes) return 0;
  text.resize(static_cast<std::size_t>(info.st_size));
  std::size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t bytes = read(file.get(), text.data() + filled, text.size() - filled);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) return errno;
    if (bytes == 0) break;
    filled += static_cast<std::size_t>(bytes);
  }
  text.resize(filled);
  return 0;
}

int publish(const fs::path& path, std::string_view text) {
  std::string temporary;
  int fd = -1;
  for (int attempt = 0; fd < 0 && attempt < kAttempts; ++attempt) {
    temporary = path.string() + std::string(kTemporaryMark) + unique_suffix();
    fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 && errno != EEXIST) break;
  }
  FileDescriptor file(fd);
  if (!file) return errno;
  int error = 0;
  while (!text.empty() && error == 0) {
    const ssize_t bytes = write(file.get(), text.data(), text.size());
    if (bytes >= 0)
      text.remove_prefix(static_cast<std::size_t>(bytes));
    else if (errno != EINTR)
      error = errno;
  }
  if (error == 0 && fsync(file.get()) != 0 && !is_unsupported(errno)) error = errno;
  if (file.close() != 0 && error == 0) error = errno;
  if (error == 0 && rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) {
    unlink(temporary.c_str());
    return error;
  }
  // The name is in place; that it outlives a power cut is worth a try, not an error.
  if (const FileDescriptor directory(open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); directory)
    fsync(directory.get());
  return 0;
}

int make_directories(const fs::path& path) {
  if (mkdir(path.c_str(), 0755) == 0) return 0;
  if (errno == ENOENT && path.has_parent_path() && path.parent_path() != path) {
    if (const int error = make_directories(path.parent_path()); error != 0) return error;
    if (mkdir(path.c_str(), 0755) == 0) return 0;
  }
  const int error = errno;
  std::error_code ignored;
  if (error != EEXIST) return error;
  return fs::is_directory(path, ignored) ? 0 : ENOTDIR;
}

bool can_be_written(fs::path path) {
  std::error_code error;
  path = fs::absolute(path, error);
  while (!fs::exists(path, error) && path.has_parent_path() && path.parent_path() != path) path = path.parent_path();
  return fs::is_directory(path, error) && access(path.c_str(), W_OK | X_OK) == 0;
}

std::vector<fs::path> files_in(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error))
    files.push_back(it->path());
  std::sort(files.begin(), files.end());
  return files;
}

FileLock::FileLock(fs::path path, std::chrono::milliseconds patience) : path_(std::move(path)) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (int attempt = 1;;) {
    fd_ = open_lock(path_);
    if (fd_ < 0) {
      error_ = errno;
      // Its directory was made, and removed by others before the file was; or they made the file meanwhile.
      if ((error_ != ENOENT && error_ != EEXIST) || attempt++ == kAttempts) return;
      continue;
    }
    for (auto pause = std::chrono::milliseconds(1); flock(fd_, LOCK_EX | LOCK_NB) != 0;
         pause = std::min(2 * pause, std::chrono::milliseconds(20))) {
      error_ = errno;
      if ((error_ != EWOULDBLOCK && error_ != EINTR) || std::chrono::steady_clock::now() >= deadline) {
        ::close(std::exchange(fd_, -1));
        if (!is_unsupported(error_)) return;
        unlink(path_.c_str());
        error_ = 0;
        return;
      }
      std::this_thread::sleep_for(pause);
    }
    error_ = 0;
    // The holder before us removed the file when it was done.
    if (is_named(fd_, path_)) return;
    ::close(std::exchange(fd_, -1));
  }
}

FileLock::~FileLock() {
  if (fd_ < 0) return;
  if (is_named(fd_, path_)) unlink(path_.c_str());
  // Not left to close(): a process that was forked meanwhile has the file open as well.
  flock(fd_, LOCK_UN);
  ::close(fd_);
}

}  // namespace deep_gemm::jit
