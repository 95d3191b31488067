// A file's bytes, mapped read-only: nothing is read before it is used, however large the file is.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace deep_gemm::cli {

class MappedFile {
 public:
  /// Throws Error{io} where `path` is not a regular file that can be read.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::string path_;
  std::span<const std::byte> bytes_;
};

}  // namespace deep_gemm::cli
