// Shape files and the M N K arguments that check, bench and compile share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace deep_gemm::cli {

struct Shape {
  int64_t m = 0, n = 0, k = 0;
};

/// Reads a CSV with a header line that names at least m, n and k; further columns are ignored, `layout`, where present,
/// must be `dense`. Throws Error{io} with file and line.
std::vector<Shape> read_shapes(const std::string& path);

}  // namespace deep_gemm::cli
