// What the emulated driver asks of the machine.
#pragma once

#include <cstdint>
#include <string>

#include "machine.h"

namespace emulator {

inline constexpr unsigned kSmemBytes = 232448;  // of a CTA at most

/// What lies in the 128 bytes of a CUtensorMap. Dimension 0 is the contiguous one.
struct Map {
  static constexpr uint32_t kMagic = 0x7e50a9;
  uint32_t magic, rank;
  uint32_t is_f32, element;  // element: bytes
  uint64_t base;
  uint64_t dims[5];
  uint64_t strides[4];  // bytes
  uint32_t box[5];
  uint32_t swizzle;  // bytes of a swizzled row: 0, 32, 64 or 128
};
static_assert(sizeof(Map) <= 128);

struct Launch {
  Index grid, block;
  unsigned cluster, smem_bytes;
  void (*call)(void** params);
  void** params;
};
/// Runs all CTAs, the clusters one after another; what went wrong, or nothing. One launch at a time.
std::string run(const Launch& launch);

}  // namespace emulator
