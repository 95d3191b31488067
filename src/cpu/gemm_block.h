// The inner step of the CPU product, compiled once for each instruction set.
#pragma once

#include <cstdint>
#include <vector>

#include <deep_gemm/config.h>

namespace deep_gemm::cpu {

inline constexpr int64_t kBlockK = 128;  ///< what one scale covers along k
inline constexpr int64_t kTileM = 256;   ///< at most so many rows of D at a time: a multiple of kGrainM
inline constexpr int64_t kTileN = 192;   ///< at most so many columns of D at a time: a multiple of kGrainN
/// Whatever the instruction set, it works on groups of rows and columns that divide these.
inline constexpr int64_t kGrainM = 8, kGrainN = 24;

/// Rows of FP8 codes.
struct Codes {
  const uint8_t* data;
  int64_t pitch;  ///< bytes between rows
  DType dtype;    ///< e4m3 or e5m2
};

/// sum[i, j] += (scale_a[i] · scale_b[j]) · Σ_p a[i, p] · b[j, p] for one tile and at most 128 of k. The sum over p goes
/// in order, so an element's bits do not depend on the shape around it.
struct GemmBlock {
  Codes a;  ///< [rows, depth]
  Codes b;  ///< [cols, depth]
  int64_t rows, cols, depth;
  const float* scale_a;  ///< [rows], padded to a multiple of kGrainM
  const float* scale_b;  ///< [cols], padded to a multiple of kGrainN
  float* panel_a;        ///< scratch [kTileM, kBlockK]; this and all below aligned to 64 bytes
  float* panel_b;        ///< scratch [kGrainN, kBlockK]
  float* sum;            ///< [kTileM, kTileN], row pitch kTileN; written up to the padded row and column too
};

using Accumulate = void (*)(const GemmBlock&);

/// What this processor can run, the fastest first.
std::vector<Accumulate> accumulate_variants();

namespace baseline {
void accumulate(const GemmBlock& block);
}
namespace avx2 {
void accumulate(const GemmBlock& block);
}

}  // namespace deep_gemm::cpu
