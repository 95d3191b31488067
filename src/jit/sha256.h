// SHA-256 (FIPS 180-4), for cache keys and the digests of cache entries.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace deep_gemm::jit {

class Sha256 {
 public:
  Sha256& update(std::string_view bytes);
  /// Ends the message; returns 64 hex digits.
  std::string hex();

 private:
  void compress(const unsigned char* block);

  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> block_{};
  uint64_t length_ = 0;
};

inline std::string sha256(std::string_view bytes) { return Sha256().update(bytes).hex(); }

}  // namespace deep_gemm::jit
