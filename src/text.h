// Texts of errors and reports: names of types, shapes, and the one way to throw.
#pragma once

#include <string>

#include <fmt/format.h>

#include <deep_gemm/error.h>
#include <deep_gemm/tensor.h>

namespace deep_gemm {

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::e4m3:
      return "e4m3";
    case DType::e5m2:
      return "e5m2";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::f32:
      return "f32";
    case DType::i32:
      return "i32";
  }
  return "unknown";
}

constexpr const char* name_of(Multicast multicast) {
  switch (multicast) {
    case Multicast::none:
      return "none";
    case Multicast::a:
      return "a";
    case Multicast::b:
      return "b";
  }
  return "unknown";
}

constexpr const char* name_of(Layout layout) {
  switch (layout) {
    case Layout::dense:
      return "dense";
    case Layout::contiguous:
      return "contiguous";
    case Layout::offsets:
      return "offsets";
    case Layout::masked:
      return "masked";
    case Layout::k_grouped:
      return "k_grouped";
  }
  return "unknown";
}

inline std::string name_of(const Device& device) {
  return device.type == DeviceType::cpu ? "cpu" : fmt::format("cuda:{}", device.index);
}

/// "[4096, 56]"
inline std::string shape_text(const TensorView& t) {
  std::string text = "[";
  for (int i = 0; i < t.rank; ++i) text += fmt::format("{}{}", i ? ", " : "", t.shape[static_cast<std::size_t>(i)]);
  return text + "]";
}

template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace deep_gemm
