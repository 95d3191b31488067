// A hash of the fields of a key, one after the other.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deep_gemm {

class Hash {
 public:
  /// A number or an enumerator.
  template <class T>
  void add(T value) {
    hash_ = (hash_ ^ static_cast<uint64_t>(value)) * 0x9e3779b97f4a7c15u;
    hash_ ^= hash_ >> 32;
  }
  std::size_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0;
};

}  // namespace deep_gemm
