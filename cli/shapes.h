// Shape files and the M N K arguments that check, bench and compile share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace deep_gemm::cli {

struct Shape {
  int64_t m = 0, n = 0, k = 0;
  bool operator==(const Shape&) const = default;
};

/// The largest extent a shape may have: what fits a kernel's 32-bit sizes.
constexpr int64_t kMaxExtent = 2147483647;

/// Reads a CSV with a header line that names at least m, n and k; further columns are ignored, `layout`, where present,
/// must be `dense` and `groups` 1. Empty lines and lines that start with # are skipped. Throws Error{io} with file and
/// line.
std::vector<Shape> read_shapes(const std::string& path);

}  // namespace deep_gemm::cli
