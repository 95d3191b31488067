// The inner step of the CPU product, compiled once for each instruction set.
#pragma once

#include <cstdint>

namespace deep_gemm::cpu {

inline constexpr int64_t kBlockK = 128;  ///< what one scale covers along k
inline constexpr int64_t kTileM = 256;   ///< at most so many rows of D at a time: a multiple of kGrainM
/// At most so many columns of D at a time: a multiple of kGrainN, so that Eigen's kernel takes one path for all of them
/// and an element's bits do not depend on the shape around it.
inline constexpr int64_t kTileN = 192;
inline constexpr int64_t kGrainM = 4, kGrainN = 48;

constexpr int64_t round_up(int64_t x, int64_t grain) { return (x + grain - 1) / grain * grain; }

/// sum[i, j] += (scale_a[i] · scale_b[j]) · Σ_p a[i, p] · b[j, p] for one tile and at most 128 of k.
struct GemmBlock {
  const uint8_t* a;  ///< e4m3 [rows, depth], row pitch `a_pitch`
  const uint8_t* b;  ///< e4m3 [cols, depth], row pitch `b_pitch`
  int64_t a_pitch, b_pitch;
  int64_t rows, cols, depth;
  const float* scale_a;  ///< [rows], padded to a multiple of kGrainM
  const float* scale_b;  ///< [cols], padded to a multiple of kGrainN
  float* panel_a;        ///< scratch [kTileM, kBlockK]
  float* panel_b;        ///< scratch [kTileN, kBlockK]
  float* partial;        ///< scratch [kTileM, kTileN]
  float* sum;            ///< [kTileM, kTileN], row pitch kTileN
};

namespace baseline {
void accumulate(const GemmBlock& block);
}
namespace avx2 {
void accumulate(const GemmBlock& block);
}

}  // namespace deep_gemm::cpu
