#include "safetensors.h"

#include <algorithm>
#include <set>

#include "text.h"

namespace deep_gemm::cli {
namespace {

using nlohmann::json;

struct FormatType {
  const char* name;
  unsigned bits;
};
constexpr FormatType kTypes[] = {
    {"BOOL", 8},    {"U8", 8},      {"I8", 8},   {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F4", 4},
    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"I16", 16}, {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},
    {"U32", 32},    {"F32", 32},    {"F64", 64}, {"I64", 64},    {"U64", 64},    {"C64", 64},
};

unsigned bits_of(std::string_view dtype) {
  for (const FormatType& type : kTypes) {
    if (dtype == type.name) return type.bits;
  }
  return 0;
}

/// The bytes of a tensor; none where the product overflows or ends inside a byte.
std::optional<uint64_t> size_in_bytes(unsigned bits, const std::vector<int64_t>& shape) {
  uint64_t total = bits;
  for (int64_t extent : shape) {
    if (__builtin_mul_overflow(total, static_cast<uint64_t>(extent), &total)) return std::nullopt;
  }
  if (total % 8 != 0) return std::nullopt;
  return total / 8;
}

/// What JSON leaves open, decided: no name twice in an object, no nesting beyond the format's. (A callback of json::parse
/// would do, but takes time quadratic in the number of tensors.)
class HeaderRules : public nlohmann::json_sax<json> {
 public:
  explicit HeaderRules(const std::string& path) : path_(path) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(json::binary_t&) override { return true; }
  bool start_object(std::size_t) override { return enter(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(std::string& name) override {
    // What names are matched with takes a call for each letter.
    constexpr std::size_t kMaxName = 4096;
    if (name.size() > kMaxName)
      fail(ErrorCode::io, "{}: the header has a name of {} bytes, at most {} are allowed", path_, name.size(),
           kMaxName);
    if (!names_.back().insert(name).second) fail(ErrorCode::io, "{}: the header has the name '{}' twice", path_, name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& e) override {
    fail(ErrorCode::io, "{}: the header is not JSON: {:.200}", path_, e.what());
  }

 private:
  bool enter() {
    constexpr std::size_t kMaxDepth = 3;
    if (names_.size() == kMaxDepth)
      fail(ErrorCode::io, "{}: the header is nested deeper than the format allows", path_);
    names_.emplace_back();
    return true;
  }
  bool leave() {
    names_.pop_back();
    return true;
  }

  const std::string& path_;
  std::vector<std::set<std::string>> names_;  // of the objects that are open
};

json parse_header(const std::string& path, std::string_view text) {
  HeaderRules rules(path);
  json::sax_parse(text.begin(), text.end(), &rules);
  return json::parse(text.begin(), text.end());
}

std::vector<int64_t> parse_numbers(const json& entry, const char* field) {
  const auto it = entry.find(field);
  if (it == entry.end() || !it->is_array()) return {-1};
  std::vector<int64_t> numbers;
  for (const json& value : *it) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return {-1};
    numbers.push_back(value.get<int64_t>());
  }
  return numbers;
}

}  // namespace

std::optional<DType> dtype_of(std::string_view dtype) {
  if (dtype == "F8_E4M3") return DType::e4m3;
  if (dtype == "F8_E5M2") return DType::e5m2;
  if (dtype == "BF16") return DType::bf16;
  if (dtype == "F16") return DType::f16;
  if (dtype == "F32") return DType::f32;
  if (dtype == "I32") return DType::i32;
  return std::nullopt;
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  const std::span<const std::byte> bytes = file_.bytes();
  if (bytes.size() < 8)
    fail(ErrorCode::io, "{}: {} bytes long, expected at least the 8 of a safetensors header length", path,
         bytes.size());
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i)
    header_bytes = header_bytes << 8 | static_cast<uint64_t>(bytes[static_cast<std::size_t>(i)]);
  if (header_bytes > kMaxHeaderBytes)
    fail(ErrorCode::io, "{}: header of {} bytes, at most {} are allowed; is this a safetensors file?", path,
         header_bytes, kMaxHeaderBytes);
  if (header_bytes > bytes.size() - 8)
    fail(ErrorCode::io, "{}: truncated: header of {} bytes in a file of {}", path, header_bytes, bytes.size());
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  if (!text.starts_with('{'))
    fail(ErrorCode::io, "{}: the header does not start with '{{'; is this a safetensors file?", path);
  // The parser takes a NUL for the end.
  if (text.find('\0') != std::string_view::npos) fail(ErrorCode::io, "{}: the header has a NUL byte in it", path);
  const json header = parse_header(path, text);
  const std::span<const std::byte> data = bytes.subspan(8 + header_bytes);

  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      const auto is_string = [](const json& value) { return value.is_string(); };
      if (!entry.is_object() || !std::all_of(entry.begin(), entry.end(), is_string))
        fail(ErrorCode::io, "{}: __metadata__ is not an object of strings", path);
      metadata_ = entry;
      continue;
    }
    if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string())
      fail(ErrorCode::io, "{}: tensor '{}' has no dtype", path, name);
    StoredTensor tensor;
    tensor.name = name;
    tensor.dtype = entry["dtype"].get<std::string>();
    tensor.shape = parse_numbers(entry, "shape");
    const std::vector<int64_t> offsets = parse_numbers(entry, "data_offsets");
    const unsigned bits = bits_of(tensor.dtype);
    if (bits == 0) fail(ErrorCode::io, "{}: tensor '{}' has the unknown dtype '{}'", path, name, tensor.dtype);
    if (std::count(tensor.shape.begin(), tensor.shape.end(), -1) != 0)
      fail(ErrorCode::io, "{}: tensor '{}': shape is not an array of whole numbers", path, name);
    if (offsets.size() != 2 || offsets[0] > offsets[1])
      fail(ErrorCode::io, "{}: tensor '{}': data_offsets is not [begin, end] with begin <= end", path, name);
    const auto begin = static_cast<uint64_t>(offsets[0]), end = static_cast<uint64_t>(offsets[1]);
    if (end > data.size())
      fail(ErrorCode::io, "{}: truncated: tensor '{}' ends at byte {} of the data, which has {}", path, name, end,
           data.size());
    const std::optional<uint64_t> size = size_in_bytes(bits, tensor.shape);
    if (!size)
      fail(ErrorCode::io, "{}: tensor '{}': the size of shape {} overflows or is no whole number of bytes", path, name,
           shape_text(tensor.shape));
    if (*size != end - begin)
      fail(ErrorCode::io, "{}: tensor '{}': data_offsets span {} bytes, but {} {} takes {}", path, name, end - begin,
           tensor.dtype, shape_text(tensor.shape), *size);
    tensor.bytes = data.subspan(begin, end - begin);
    tensors_.emplace(name, std::move(tensor));
  }

  std::vector<const StoredTensor*> by_offset;
  for (const auto& [name, tensor] : tensors_) by_offset.push_back(&tensor);
  std::sort(by_offset.begin(), by_offset.end(), [](const StoredTensor* x, const StoredTensor* y) {
    return std::pair(x->bytes.data(), x->bytes.size()) < std::pair(y->bytes.data(), y->bytes.size());
  });
  const std::byte* covered = data.data();
  const StoredTensor* previous = nullptr;
  for (const StoredTensor* tensor : by_offset) {
    if (tensor->bytes.data() < covered)
      fail(ErrorCode::io, "{}: tensors '{}' and '{}' overlap", path, previous->name, tensor->name);
    if (tensor->bytes.data() > covered)
      fail(ErrorCode::io, "{}: the {} bytes before tensor '{}' belong to no tensor", path,
           tensor->bytes.data() - covered, tensor->name);
    covered = tensor->bytes.data() + tensor->bytes.size();
    previous = tensor;
  }
  if (covered != data.data() + data.size())
    fail(ErrorCode::io, "{}: the last {} bytes belong to no tensor", path, data.data() + data.size() - covered);
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorSpec> specs, const json& metadata)
    : path_(path), file_(path) {
  // Wide elements first, so that every tensor is aligned to its element size.
  std::stable_sort(specs.begin(), specs.end(),
                   [](const TensorSpec& x, const TensorSpec& y) { return bits_of(x.dtype) > bits_of(y.dtype); });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.is_null()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorSpec& spec : specs) {
    const uint64_t size = size_in_bytes(bits_of(spec.dtype), spec.shape).value();
    if (!places_.try_emplace(spec.name, Place{offset, size}).second)
      fail(ErrorCode::invalid_argument, "{}: the tensor '{}' would be written twice", path, spec.name);
    header[spec.name] = {{"dtype", spec.dtype}, {"shape", spec.shape}, {"data_offsets", {offset, offset + size}}};
    offset += size;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> 8 * i & 0xff);
  const std::string head = length + text;

  for (auto& [name, place] : places_) place.begin += head.size();
  file_.write_at(0, std::as_bytes(std::span(head)));
}

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  const Place place = places_.at(name);
  if (bytes.size() != place.size)
    fail(ErrorCode::invalid_argument, "{}: tensor '{}': {} bytes given, expected {}", path_, name, bytes.size(),
         place.size);
  file_.write_at(place.begin, bytes);
}

void SafetensorsWriter::commit() { file_.commit(); }

}  // namespace deep_gemm::cli
