#include "shapes.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <string_view>

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

}  // namespace

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
    const auto extent = [&](const char* name) {
      const std::string_view text = *cell(name);
      int64_t value = -1;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc{} || end != text.data() + text.size() || value < 0 || value > kMaxExtent)
        fail(ErrorCode::io, "{}:{}: {} is '{}', expected a whole number from 0 to {}", path, number, name, text,
             kMaxExtent);
      return value;
    };
    if (const auto layout = cell("layout"); layout && *layout != "dense")
      fail(ErrorCode::io, "{}:{}: layout is '{}', expected 'dense'", path, number, *layout);
    if (const auto groups = cell("groups"); groups && !groups->empty() && *groups != "1")
      fail(ErrorCode::io, "{}:{}: groups is '{}', expected 1 for the layout dense", path, number, *groups);
    shapes.push_back({extent("m"), extent("n"), extent("k")});
  }
  if (file.bad()) fail(ErrorCode::io, "{}: cannot be read: {}", path, std::strerror(errno));
  if (shapes.empty())
    fail(ErrorCode::io, "{}: no shapes in it; expected a header line such as 'm,n,k' and one line a shape", path);
  return shapes;
}

}  // namespace deep_gemm::cli
