// The file of one cached kernel:
//
//   deep_gemm kernel 1\n
//   SHA-256 of all that follows, 64 hex digits\n
//   {"bytes":…,"compiler":"NVRTC 13.0","entry":…,"key":…,"registers":…,"seconds":…,"spill_bytes":…}\n
//   the cubin
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "jit/jit.h"

namespace deep_gemm::jit {

constexpr std::string_view kEntrySuffix = ".dgk";

struct Entry {
  std::string key, entry;
  Binary binary;
};

std::string write_entry(const Entry& entry);
/// Empty where `file` is not a whole, unharmed entry of this format.
std::optional<Entry> read_entry(std::string_view file);

}  // namespace deep_gemm::jit
