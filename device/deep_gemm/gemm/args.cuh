// What a launch passes to the kernel: one trivially copyable struct. Host and device.
#pragma once

#include <deep_gemm/gemm/scheduler.cuh>

namespace deep_gemm {

struct GemmArgs {
  TensorMap a, b;            // [m, k] and [n, k] FP8, boxes of 128 × (tile / CTAs that share it)
  TensorMap scale_a;         // [ceil(k/128), m] FP32, boxes of tile_m; unused without scales
  TensorMap d;               // [m, n], boxes of panel_cols × tile_m; unused where tma_cols is 0
  const float* scale_b;      // null: unit scales
  int64_t scale_b_stride_n;  // elements from one block of 128 rows of B to the next
  int64_t scale_b_stride_k;  // elements from one block of 128 of k to the next
  const void* c;             // D's type; read only by kernels that accumulate
  int64_t c_pitch;           // elements
  void* d_data;
  int64_t d_pitch;  // elements
  uint32_t m, n, k;
  TileOrder order;
  uint32_t tma_cols;  // TMA stores what lies before this column: see stored_by_tma
};

}  // namespace deep_gemm
