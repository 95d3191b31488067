#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "text.h"

namespace deep_gemm::cli {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  // O_NONBLOCK: a pipe without a writer is to be refused below, not waited for.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) fail(ErrorCode::io, "{}: cannot be opened: {}", path, std::strerror(errno));
  struct stat status {};
  void* address = nullptr;
  int error = 0;
  if (fstat(file, &status) != 0) {
    error = errno;
  } else if (S_ISREG(status.st_mode) && status.st_size > 0) {
    address = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    if (address == MAP_FAILED) error = errno;
  }
  close(file);
  if (error != 0) fail(ErrorCode::io, "{}: cannot be mapped: {}", path, std::strerror(error));
  if (!S_ISREG(status.st_mode)) fail(ErrorCode::io, "{}: not a regular file", path);
  if (address != nullptr) bytes_ = {static_cast<const std::byte*>(address), static_cast<std::size_t>(status.st_size)};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace deep_gemm::cli
