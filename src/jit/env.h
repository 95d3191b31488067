// The environment variables that the JIT reads: one table, from which the documentation is generated.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace deep_gemm::jit {

struct EnvVariable {
  const char* name;
  const char* fallback;  ///< name in the first release, read where `name` is not set; null: there was none
  const char* meaning;
};
std::span<const EnvVariable> env_variables();

/// Value of `name`, or of its first-release name. Empty values count as not set. `name` is in the table.
std::optional<std::string> env(std::string_view name);
/// Whether `name` is set to something other than 0.
bool env_flag(std::string_view name);

}  // namespace deep_gemm::jit
