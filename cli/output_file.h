// A file that appears under its name whole, or not at all: what was there before is kept until the new one is complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace deep_gemm::cli {

class OutputFile {
 public:
  /// Writes beside `path`; where that is a symbolic link, beside its target, which need not exist. A path that is no regular
  /// file, such as a pipe or /dev/null, is written as it is. What is written goes if SIGINT, SIGTERM or SIGHUP end the
  /// program, if this is the newest such file. Throws Error{io}.
  explicit OutputFile(const std::string& path);
  ~OutputFile();  ///< removes what was not committed
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Appends. Throws Error{io} that names the path given.
  void write(std::span<const std::byte> bytes);
  /// Writes at `offset`, in any order. Not for pipes.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  /// Puts the file in its place.
  void commit();
  /// Whether there is a file to put in a place: not so of a pipe, which has got what was written.
  bool is_beside() const { return !part_.empty(); }

 private:
  [[noreturn]] void fail_writing(int error) const;

  std::string path_, target_, part_;  ///< as given; what is replaced; what is written, both empty where that is `path_`
  int descriptor_ = -1;
};

}  // namespace deep_gemm::cli
