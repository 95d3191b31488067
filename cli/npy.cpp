#include "npy.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "output_file.h"
#include "text.h"

namespace deep_gemm::cli {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

/// Reads the header, a Python literal such as {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
class HeaderParser {
 public:
  HeaderParser(const std::string& path, std::string_view text) : path_(path), rest_(text) {}

  void parse() {
    expect('{');
    while (!accept('}')) {
      const std::string_view key = string();
      expect(':');
      if (key == "descr" && !descr)
        descr = string();
      else if (key == "fortran_order" && !fortran_order)
        fortran_order = boolean();
      else if (key == "shape" && !shape)
        shape = tuple();
      else
        broken();
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_blanks();
    if (!rest_.empty() || !descr || !fortran_order || !shape) broken();
  }

  std::optional<std::string_view> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<int64_t>> shape;

 private:
  [[noreturn]] void broken() const {
    fail(ErrorCode::io, "{}: the .npy header is not a dictionary of descr, fortran_order and shape", path_);
  }
  void skip_blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \n"), rest_.size())); }
  bool accept(char c) {
    skip_blanks();
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!accept(c)) broken();
  }
  std::string_view string() {
    const char quote = accept('\'') ? '\'' : '"';
    if (quote == '"') expect('"');
    const auto end = rest_.find(quote);
    if (end == std::string_view::npos) broken();
    const std::string_view text = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return text;
  }
  bool boolean() {
    skip_blanks();
    for (const auto& [word, value] : {std::pair<std::string_view, bool>{"True", true}, {"False", false}}) {
      if (!rest_.starts_with(word)) continue;
      rest_.remove_prefix(word.size());
      return value;
    }
    broken();
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> extents;
    expect('(');
    while (!accept(')')) {
      skip_blanks();
      int64_t value = -1;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
      if (error != std::errc{} || value < 0) broken();
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      extents.push_back(value);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return extents;
  }

  const std::string& path_;
  std::string_view rest_;
};

}  // namespace

NpyArray read_npy(const std::string& path) {
  NpyArray array{MappedFile(path), DType::f32, {}, {}};
  const std::string_view text(reinterpret_cast<const char*>(array.file.bytes().data()), array.file.bytes().size());
  if (text.size() < 10 || !text.starts_with(kMagic)) fail(ErrorCode::io, "{}: not a .npy file", path);
  const auto byte = [&](std::size_t i) { return static_cast<uint64_t>(static_cast<unsigned char>(text[i])); };
  const uint64_t version = byte(6);
  if (version < 1 || version > 3) fail(ErrorCode::io, "{}: .npy version {}, expected 1, 2 or 3", path, version);
  const std::size_t length_bytes = version == 1 ? 2 : 4;
  if (text.size() < 8 + length_bytes) fail(ErrorCode::io, "{}: truncated in the .npy header", path);
  uint64_t header_bytes = 0;
  for (std::size_t i = length_bytes; i-- > 0;) header_bytes = header_bytes << 8 | byte(8 + i);
  const std::size_t start = 8 + length_bytes;
  if (header_bytes > text.size() - start) fail(ErrorCode::io, "{}: truncated in the .npy header", path);

  HeaderParser header(path, text.substr(start, header_bytes));
  header.parse();
  if (*header.descr == "<f2")
    array.dtype = DType::f16;
  else if (*header.descr != "<f4")
    fail(ErrorCode::io, "{}: elements are '{}', expected '<f4' or '<f2'; convert with x.astype('<f4')", path,
         *header.descr);
  if (*header.fortran_order) fail(ErrorCode::io, "{}: column-major; save numpy.ascontiguousarray(x) instead", path);
  array.shape = *header.shape;
  array.bytes = array.file.bytes().subspan(start + header_bytes);
  uint64_t size = static_cast<uint64_t>(size_of(array.dtype));
  for (int64_t extent : array.shape) {
    if (__builtin_mul_overflow(size, static_cast<uint64_t>(extent), &size))
      fail(ErrorCode::io, "{}: the size of shape [{}] overflows", path, fmt::join(array.shape, ", "));
  }
  if (size != array.bytes.size())
    fail(ErrorCode::io, "{}: {} bytes of data, but {} [{}] takes {}", path, array.bytes.size(), name_of(array.dtype),
         fmt::join(array.shape, ", "), size);
  return array;
}

void write_npy(const std::string& path, std::span<const float> values, int64_t rows, int64_t cols) {
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  // The format asks for data that starts at a multiple of 64 and a header that ends in a newline.
  const std::size_t unpadded = kMagic.size() + 4 + header.size() + 1;
  header.append((64 - unpadded % 64) % 64, ' ').push_back('\n');
  std::string head(kMagic);
  head += {'\x01', '\x00', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  head += header;
  OutputFile file(path);
  file.write(std::as_bytes(std::span(head)));
  file.write(std::as_bytes(values));
  file.commit();
}

}  // namespace deep_gemm::cli
