#include "output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "text.h"

namespace deep_gemm::cli {
namespace fs = std::filesystem;

OutputFile::OutputFile(const std::string& path) : path_(path), target_(path) {
  std::error_code error;
  if (const fs::path real = fs::canonical(path, error); !error) target_ = real;
  const fs::file_type type = fs::status(target_, error).type();
  if (type == fs::file_type::not_found || type == fs::file_type::regular) {
    part_ = fmt::format("{}.{}.part", target_, getpid());
    descriptor_ = open(part_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } else {
    descriptor_ = open(target_.c_str(), O_WRONLY | O_CLOEXEC);
  }
  if (descriptor_ < 0) {
    part_.clear();
    fail_writing(errno);
  }
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) close(descriptor_);
  if (!part_.empty()) unlink(part_.c_str());
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
  part_.clear();
}

}  // namespace deep_gemm::cli
