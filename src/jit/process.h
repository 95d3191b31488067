// Programs run without a shell, files written where nobody else looks.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace deep_gemm::jit {

struct ProcessResult {
  int status = 0;      ///< exit status; 128 + signal where a signal ended it
  std::string output;  ///< standard output and error together
};
/// Runs `argv[0]`, a path, and waits. Throws Error{unavailable} where it cannot be started.
ProcessResult run_process(const std::vector<std::string>& argv);

/// Whether `path` is an executable file.
bool is_program(const std::filesystem::path& path);

/// `name` in `directories`, then in those of PATH; empty where none has it as an executable file.
std::filesystem::path find_program(const std::string& name, const std::vector<std::filesystem::path>& directories);

/// A directory that only this user may enter, removed with all that it holds.
class TemporaryDirectory {
 public:
  TemporaryDirectory();  ///< under TMPDIR, else /tmp; throws Error{io}
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace deep_gemm::jit
