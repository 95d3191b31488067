// D = A·Bᵀ (+ C) on the CPU: tiles of D shared out over the cores; within a tile, FP32 products of 128 of k, scaled and
// added in FP32.
#include <algorithm>
#include <memory>
#include <new>

#include <deep_gemm/core/fp8.cuh>

#include "cpu/cpu.h"
#include "cpu/gemm_block.h"
#include "cpu/parallel.h"
#include "gemm/check.h"

namespace deep_gemm::cpu {
namespace {

struct FreeAligned {
  void operator()(float* p) const { ::operator delete(p, std::align_val_t(64)); }
};
using AlignedFloats = std::unique_ptr<float[], FreeAligned>;
AlignedFloats allocate_floats(int64_t count) {
  return AlignedFloats(
      static_cast<float*>(::operator new(static_cast<std::size_t>(count) * sizeof(float), std::align_val_t(64))));
}

/// What a thread works in.
struct Workspace {
  AlignedFloats panel_a = allocate_floats(kTileM * kBlockK), panel_b = allocate_floats(kGrainN * kBlockK);
  AlignedFloats sum = allocate_floats(kTileM * kTileN);
  alignas(64) float scale_a[kTileM] = {}, scale_b[kTileN] = {};
};

float load(const TensorView& t, int64_t i, int64_t j) {
  const int64_t at = i * t.strides[0] + j * t.strides[1];
  return t.dtype == DType::f32 ? static_cast<const float*>(t.data)[at]
                               : decode_bf16(static_cast<const uint16_t*>(t.data)[at]);
}

void store(const TensorView& t, int64_t i, int64_t j, float value) {
  const int64_t at = i * t.strides[0] + j * t.strides[1];
  if (t.dtype == DType::f32)
    static_cast<float*>(t.data)[at] = value;
  else
    static_cast<uint16_t*>(t.data)[at] = encode_bf16(value);
}

/// The scales of `count` rows from `begin` on in k-block `block`; one scale covers `granularity` rows.
void gather_scales(const TensorView& scale, int64_t begin, int64_t count, int64_t block, int64_t granularity,
                   float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = scale ? load(scale, (begin + i) / granularity, block) : 1.0f;
}

Codes codes_from(const TensorView& t, int64_t row, int64_t p) {
  const int64_t pitch = stride_or(t, 0, 0);
  return {static_cast<const uint8_t*>(t.data) + row * pitch + p, pitch, t.dtype};
}

struct Tile {
  int64_t row, col, rows, cols;
};

void compute_tile(const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, const GemmOptions& options,
                  const Tile& tile, Workspace& space, Accumulate accumulate) {
  const std::optional<TensorView>& c = options.c;
  const int64_t k = a.data.shape[1];
  std::fill_n(space.sum.get(), (tile.rows + kGrainM - 1) / kGrainM * kGrainM * kTileN, 0.0f);
  for (int64_t p = 0; p < k; p += kBlockK) {
    gather_scales(a.scale, tile.row, tile.rows, p / kBlockK, 1, space.scale_a);
    gather_scales(b.scale, tile.col, tile.cols, p / kBlockK, options.recipe.rows_b, space.scale_b);
    accumulate({.a = codes_from(a.data, tile.row, p),
                .b = codes_from(b.data, tile.col, p),
                .rows = tile.rows,
                .cols = tile.cols,
                .depth = std::min(kBlockK, k - p),
                .scale_a = space.scale_a,
                .scale_b = space.scale_b,
                .panel_a = space.panel_a.get(),
                .panel_b = space.panel_b.get(),
                .sum = space.sum.get()});
  }
  for (int64_t i = 0; i < tile.rows; ++i) {
    for (int64_t j = 0; j < tile.cols; ++j) {
      const float sum = space.sum[i * kTileN + j];
      store(d, tile.row + i, tile.col + j, c ? load(*c, tile.row + i, tile.col + j) + sum : sum);
    }
  }
}

}  // namespace

std::vector<Accumulate> accumulate_variants() {
#ifdef DG_CPU_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    return {avx2::accumulate, baseline::accumulate};
#endif
  return {baseline::accumulate};
}

void fp8_gemm_nt(const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, const GemmOptions& options) {
  const Accumulate accumulate = accumulate_variants().front();
  const int64_t m = d.shape[0], n = d.shape[1], k = a.data.shape[1];
  if (m == 0 || n == 0) return;

  // Full tiles decode least; smaller ones are taken where there would be fewer than two a core.
  const double operations = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k + 1);
  int64_t tile_m = kTileM, tile_n = kTileN;
  const auto tiles = [&] { return ((m + tile_m - 1) / tile_m) * ((n + tile_n - 1) / tile_n); };
  const int64_t wanted = 2 * thread_count(m * n, operations);
  while (tiles() < wanted && tile_n > kGrainN) tile_n /= 2;
  while (tiles() < wanted && tile_m > 64) tile_m /= 2;

  const int64_t tiles_n = (n + tile_n - 1) / tile_n, count = tiles();
  run_workers(thread_count(count, operations), [&](const auto& next) {
    const auto space = std::make_unique<Workspace>();
    for (int64_t i = next(); i < count; i = next()) {
      Tile tile{.row = i / tiles_n * tile_m, .col = i % tiles_n * tile_n, .rows = 0, .cols = 0};
      tile.rows = std::min(tile_m, m - tile.row);
      tile.cols = std::min(tile_n, n - tile.col);
      compute_tile(a, b, d, options, tile, *space, accumulate);
    }
  });
}

}  // namespace deep_gemm::cpu
