// The safetensors format: 8 bytes little-endian header length, a JSON header, the tensors' bytes. Files are mapped and
// never trusted: every offset, size, shape and dtype is checked against the file before a tensor is handed out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <deep_gemm/tensor.h>

#include "mapped_file.h"
#include "output_file.h"

namespace deep_gemm::cli {

/// A tensor's header entry, in row-major order without gaps. `dtype` is the format's name, such as "F8_E4M3".
struct TensorSpec {
  std::string name, dtype;
  std::vector<int64_t> shape;
  bool operator==(const TensorSpec&) const = default;
};

struct StoredTensor : TensorSpec {
  std::span<const std::byte> bytes;  ///< inside the mapping; its address need not be aligned
};

/// The element type that the format's `dtype` stands for, where the library has it.
std::optional<DType> dtype_of(std::string_view dtype);

/// "[1536, 384]"
std::string shape_text(const std::vector<int64_t>& shape);

class SafetensorsFile {
 public:
  /// The longest header that is read, as in the format's own library.
  static constexpr uint64_t kMaxHeaderBytes = 100'000'000;

  /// Throws Error{io} that names the file, the tensor and what is wrong with it: truncation, a header that is too long
  /// or not JSON, names given twice, unknown dtypes, shapes whose size overflows or is not that of the tensor's bytes,
  /// offsets beyond the file, tensors that overlap, bytes that belong to no tensor.
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  /// Null where there is none of this name.
  const StoredTensor* find(std::string_view name) const;
  /// What the header has under `__metadata__`: an object of strings, or null.
  const nlohmann::json& metadata() const { return metadata_; }

 private:
  MappedFile file_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  nlohmann::json metadata_;
};

/// Writes a file tensor by tensor, in any order. It appears under its name, whole, with commit(), and never otherwise.
class SafetensorsWriter {
 public:
  /// Throws Error{io} where the file cannot be made, Error{invalid_argument} where two specs have one name.
  SafetensorsWriter(const std::string& path, std::vector<TensorSpec> specs, const nlohmann::json& metadata = nullptr);

  /// `bytes` must be the size of the tensor's spec.
  void write(const std::string& name, std::span<const std::byte> bytes);
  void commit();

 private:
  struct Place {
    uint64_t begin = 0, size = 0;
  };
  std::string path_;
  OutputFile file_;
  std::map<std::string, Place> places_;
};

}  // namespace deep_gemm::cli
