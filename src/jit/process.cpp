#include "jit/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "text.h"

extern char** environ;

namespace deep_gemm::jit {
namespace fs = std::filesystem;

ProcessResult run_process(const std::vector<std::string>& argv) {
  // A file, not a pipe: of a pipe's writing end another thread's fork may keep a copy, and reading would not end.
  const int output = memfd_create("output", MFD_CLOEXEC);
  if (output < 0) fail(ErrorCode::unavailable, "{}: memfd_create: {}", argv[0], std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output, 1);
  posix_spawn_file_actions_adddup2(&actions, output, 2);
  // Last: where standard input is closed, the file itself is number 0.
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawn(&child, argv[0].c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    close(output);
    fail(ErrorCode::unavailable, "{} cannot be started: {}", argv[0], std::strerror(error));
  }
  ProcessResult result;
  int status = 0;
  int lost = 0;  // why the status is
  while ((lost = waitpid(child, &status, 0) < 0 ? errno : 0) == EINTR) {
  }
  char buffer[4096];
  for (ssize_t bytes; (bytes = pread(output, buffer, sizeof buffer, static_cast<off_t>(result.output.size()))) > 0;)
    result.output.append(buffer, static_cast<std::size_t>(bytes));
  close(output);
  if (lost != 0)
    fail(ErrorCode::unavailable,
         "{}: its exit status is lost (waitpid: {}), because this process ignores SIGCHLD or waits for any child; set "
         "SIGCHLD to SIG_DFL while kernels are compiled",
         argv[0], std::strerror(lost));
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

bool is_program(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) && access(path.c_str(), X_OK) == 0;
}

fs::path find_program(const std::string& name, const std::vector<fs::path>& directories) {
  std::vector<fs::path> all = directories;
  if (const char* path = std::getenv("PATH")) {
    std::istringstream stream(path);
    for (std::string directory; std::getline(stream, directory, ':');)
      if (!directory.empty()) all.emplace_back(directory);
  }
  for (const fs::path& directory : all) {
    const fs::path program = directory / name;
    if (is_program(program)) return program;
  }
  return {};
}

TemporaryDirectory::TemporaryDirectory() {
  const char* parent = std::getenv("TMPDIR");
  std::string name = fmt::format("{}/deep_gemm-XXXXXX", parent && *parent ? parent : "/tmp");
  if (!mkdtemp(name.data()))
    fail(ErrorCode::io, "temporary directory {}: {} (set TMPDIR to a writable directory)", name, std::strerror(errno));
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace deep_gemm::jit
