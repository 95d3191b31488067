#include "shapes.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <string_view>

#include <fmt/ranges.h>

#include "text.h"

namespace deep_gemm::cli {
namespace {

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::vector<std::string_view> cells_of(std::string_view line) {
  std::vector<std::string_view> cells;
  for (std::size_t at = 0;;) {
    const auto comma = line.find(',', at);
    cells.push_back(trimmed(line.substr(at, comma == std::string_view::npos ? comma : comma - at)));
    if (comma == std::string_view::npos) return cells;
    at = comma + 1;
  }
}

constexpr Layout kLayouts[] = {Layout::dense, Layout::contiguous, Layout::offsets, Layout::masked, Layout::k_grouped};

}  // namespace

std::vector<std::string> layout_names() {
  std::vector<std::string> names;
  for (const Layout layout : kLayouts) names.push_back(layout_text(layout));
  return names;
}

std::optional<Layout> layout_of(std::string_view name) {
  for (const Layout layout : kLayouts)
    if (name == layout_text(layout)) return layout;
  return std::nullopt;
}

std::vector<Shape> read_shapes(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail(ErrorCode::io, "{}: cannot be opened: {}", path, std::strerror(errno));
  std::vector<std::string> head;
  std::vector<Shape> shapes;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (number == 1 && line.starts_with("\xef\xbb\xbf")) line.erase(0, 3);
    if (trimmed(line).empty() || trimmed(line).starts_with('#')) continue;
    const auto cells = cells_of(line);
    if (head.empty()) {
      head.assign(cells.begin(), cells.end());
      for (const char* name : {"m", "n", "k"}) {
        if (std::count(head.begin(), head.end(), name) != 1)
          fail(ErrorCode::io, "{}:{}: the header line must name the column {} once; it is '{}'", path, number, name,
               trimmed(line));
      }
      continue;
    }
    if (cells.size() != head.size())
      fail(ErrorCode::io, "{}:{}: {} cells, expected {} as in the header line", path, number, cells.size(),
           head.size());
    const auto cell = [&](const char* name) -> std::optional<std::string_view> {
      const auto it = std::find(head.begin(), head.end(), name);
      if (it == head.end()) return std::nullopt;
      return cells[static_cast<std::size_t>(it - head.begin())];
    };
    const auto whole = [&](const char* name, std::string_view text, int64_t least, int64_t most) {
      int64_t value = -1;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most)
        fail(ErrorCode::io, "{}:{}: {} is '{}', expected a whole number from {} to {}", path, number, name, text, least,
             most);
      return value;
    };
    const auto extent = [&](const char* name) { return whole(name, *cell(name), 0, kMaxExtent); };
    const auto given = [&](const char* name) { return cell(name).value_or(std::string_view{}); };
    Shape shape{.m = extent("m"), .n = extent("n"), .k = extent("k")};
    if (!given("layout").empty()) {
      const auto layout = layout_of(given("layout"));
      if (!layout)
        fail(ErrorCode::io, "{}:{}: layout is '{}', expected one of {}", path, number, given("layout"),
             fmt::join(layout_names(), ", "));
      shape.layout = *layout;
    }
    if (!given("groups").empty())
      shape.groups = whole("groups", given("groups"), 1, shape.layout == Layout::dense ? 1 : kMaxGroups);
    if (!given("alignment").empty())
      shape.alignment = static_cast<int>(whole("alignment", given("alignment"), 1, 1 << 20));
    if (!given("m_max").empty()) shape.m_max = whole("m_max", given("m_max"), 0, kMaxExtent);
    for (std::string_view loads = given("loads"); !loads.empty();) {
      const auto end = std::min(loads.find(';'), loads.size());
      shape.loads.push_back(static_cast<int>(whole("loads", trimmed(loads.substr(0, end)), 0, kMaxExtent)));
      loads.remove_prefix(std::min(end + 1, loads.size()));
    }
    if (!shape.loads.empty() && (shape.layout == Layout::dense || std::ssize(shape.loads) != shape.groups))
      fail(ErrorCode::io, "{}:{}: {} loads, expected one for each of {} groups of a layout that has groups", path,
           number, shape.loads.size(), shape.groups);
    shapes.push_back(std::move(shape));
  }
  if (file.bad()) fail(ErrorCode::io, "{}: cannot be read: {}", path, std::strerror(errno));
  if (shapes.empty())
    fail(ErrorCode::io, "{}: no shapes in it; expected a header line such as 'm,n,k' and one line a shape", path);
  return shapes;
}

}  // namespace deep_gemm::cli
