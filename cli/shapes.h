// Shape files and the M N K arguments that check, bench and compile share.
#pragma once

#include <string>
#include <vector>

#include "verify/workload.h"

namespace deep_gemm::cli {

/// The largest extent a shape may have: what fits a kernel's 32-bit sizes.
constexpr int64_t kMaxExtent = 2147483647;
constexpr int64_t kMaxGroups = 65535;

/// The names that options, errors and files use: layout_text().
std::vector<std::string> layout_names();
/// By that name; none of that name: nothing.
std::optional<Layout> layout_of(std::string_view name);

/// Reads a CSV with a header line that names at least m, n and k; `layout` (default dense), `groups`, `loads` (rows of each
/// group, `a;b;c`, instead of m each; k-grouped: its k), `alignment` (offsets) and `m_max` (masked) say more, further columns are ignored.
/// Empty lines and lines that start with # are skipped. Throws Error{io} with file and line.
std::vector<Shape> read_shapes(const std::string& path);

}  // namespace deep_gemm::cli
