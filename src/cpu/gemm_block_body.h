// The body of gemm_block.h's accumulate(), in the namespace that DG_CPU_TARGET names. No include guard is wanted: each
// instruction set's translation unit includes it once.
#include <Eigen/Core>

#include <deep_gemm/core/fp8.cuh>

#include "cpu/gemm_block.h"

namespace deep_gemm::cpu::DG_CPU_TARGET {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Decodes [rows, depth] into [padded_rows, kBlockK]; zeros beyond.
void decode(const uint8_t* codes, int64_t pitch, int64_t rows, int64_t depth, int64_t padded_rows, float* panel) {
  for (int64_t i = 0; i < rows; ++i) {
    const uint8_t* row = codes + i * pitch;
    float* out = panel + i * kBlockK;
    // Rows lie a pitch apart, out of sight of the hardware's prefetcher. The hint may point past the row; it reads nothing.
    __builtin_prefetch(row + kBlockK);
    __builtin_prefetch(row + kBlockK + 64);
    for (int64_t p = 0; p < depth; ++p) out[p] = decode_e4m3(row[p]);
    for (int64_t p = depth; p < kBlockK; ++p) out[p] = 0;
  }
  for (float* out = panel + rows * kBlockK; out < panel + padded_rows * kBlockK; ++out) *out = 0;
}

}  // namespace

void accumulate(const GemmBlock& block) {
  const int64_t rows = round_up(block.rows, kGrainM);
  const int64_t cols = round_up(block.cols, kGrainN);
  decode(block.a, block.a_pitch, block.rows, block.depth, rows, block.panel_a);
  decode(block.b, block.b_pitch, block.cols, block.depth, cols, block.panel_b);

  const Eigen::Map<const RowMajor, Eigen::Aligned64> a(block.panel_a, rows, kBlockK);
  const Eigen::Map<const RowMajor, Eigen::Aligned64> b(block.panel_b, cols, kBlockK);
  using Tile = Eigen::Map<RowMajor, Eigen::Aligned64, Eigen::OuterStride<kTileN>>;
  Tile partial(block.partial, rows, cols), sum(block.sum, rows, cols);
  partial.noalias() = a * b.transpose();

  const Eigen::Map<const Eigen::ArrayXf, Eigen::Aligned64> scale_b(block.scale_b, cols);
  for (int64_t i = 0; i < rows; ++i)
    sum.row(i).array() += (block.scale_a[i] * scale_b.transpose()) * partial.row(i).array();
}

}  // namespace deep_gemm::cpu::DG_CPU_TARGET
