// gemm_block.h's accumulate() for any instruction set. `Isa` gives the vector type and the decoders; it lies in the
// anonymous namespace of its source file, and with it all that is compiled from here: the linker keeps one copy of an
// inline function for the whole program, and that one must not need AVX2.
#pragma once

#include <cstring>

#include "cpu/gemm_block.h"

namespace deep_gemm::cpu {

/// The step in registers: kRows rows of D by kVectors vectors of columns, 12 of the 16 vector registers.
template <class Isa>
struct GemmStep {
  using Vec = typename Isa::Vec;
  static constexpr int64_t kLanes = sizeof(Vec) / sizeof(float);
  static constexpr int64_t kRows = 4, kVectors = 3, kCols = kVectors * kLanes;
  static_assert(kGrainM % kLanes == 0 && kGrainM % kRows == 0 && kGrainN % kCols == 0);

  /// Decodes kLanes rows from `begin` on into `out` [kBlockK, kLanes], in units of Isa::unit(); zeros beyond
  /// [count, depth].
  static void pack(const Codes& codes, int64_t begin, int64_t count, int64_t depth, float* out) {
    alignas(64) uint8_t padded[kLanes][kBlockK];
    const uint8_t* from = codes.data + begin * codes.pitch;
    int64_t pitch = codes.pitch;
    if (count - begin < kLanes || depth < kBlockK) {
      std::memset(padded, 0, sizeof padded);
      for (int64_t i = begin; i < count && i < begin + kLanes; ++i, from += pitch)
        std::memcpy(padded[i - begin], from, static_cast<std::size_t>(depth));
      from = padded[0];
      pitch = kBlockK;
    }
    // Rows lie a pitch apart, out of sight of the hardware's prefetcher. The hint may point past the row; it reads nothing.
    for (int64_t i = 0; i < kLanes; ++i) {
      __builtin_prefetch(from + i * pitch + kBlockK);
      __builtin_prefetch(from + i * pitch + kBlockK + 64);
    }
    if (codes.dtype == DType::e4m3)
      Isa::template decode<DType::e4m3>(from, pitch, out);
    else
      Isa::template decode<DType::e5m2>(from, pitch, out);
  }

  /// The sums of `rows` rows of D from i on and kCols columns from j on, whose rows of B lie in panel_b.
  template <int64_t rows>
  static void multiply(const GemmBlock& block, int64_t i, int64_t j, float unit) {
    const float* a = block.panel_a + i / kLanes * kLanes * kBlockK + i % kLanes;
    Vec partial[rows][kVectors] = {};
    for (int64_t p = 0; p < kBlockK; ++p) {
#pragma GCC unroll 4
      for (int64_t r = 0; r < rows; ++r)
#pragma GCC unroll 3
        for (int64_t v = 0; v < kVectors; ++v)
          partial[r][v] += a[p * kLanes + r] * vec(block.panel_b + (v * kBlockK + p) * kLanes);
    }
#pragma GCC unroll 4
    for (int64_t r = 0; r < rows; ++r)
#pragma GCC unroll 3
      for (int64_t v = 0; v < kVectors; ++v) {
        const Vec scale = block.scale_a[i + r] * vec(block.scale_b + j + v * kLanes);
        vec(block.sum + (i + r) * kTileN + j + v * kLanes) += scale * (unit * partial[r][v]);
      }
  }

  static const Vec& vec(const float* p) { return *reinterpret_cast<const Vec*>(p); }
  static Vec& vec(float* p) { return *reinterpret_cast<Vec*>(p); }

  static void run(const GemmBlock& block) {
    const float unit = Isa::unit(block.a.dtype) * Isa::unit(block.b.dtype);
    for (int64_t i = 0; i < block.rows; i += kLanes)
      pack(block.a, i, block.rows, block.depth, block.panel_a + i * kBlockK);
    for (int64_t j = 0; j < block.cols; j += kCols) {
      for (int64_t v = 0; v < kCols; v += kLanes)
        pack(block.b, j + v, block.cols, block.depth, block.panel_b + v * kBlockK);
      for (int64_t i = 0; i < block.rows; i += kRows) {
        if (block.rows - i == 1)
          multiply<1>(block, i, j, unit);
        else
          multiply<kRows>(block, i, j, unit);
      }
    }
  }
};

}  // namespace deep_gemm::cpu
