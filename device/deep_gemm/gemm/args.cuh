// What a launch passes to the kernel: one trivially copyable struct. Host and device.
#pragma once

#include <deep_gemm/gemm/scheduler.cuh>

namespace deep_gemm {

struct GemmArgs {
  TensorMap a;               // [m, k] FP8; masked: [groups, m, k]; boxes of 128 × (tile_m / CTAs that share it)
  TensorMap b;               // [n, k] FP8; grouped: [groups, n, k]; boxes of 128 × (tile_n / CTAs that share it)
  TensorMap scale_a;         // [ceil(k/128), m] FP32; masked: [groups, ceil(k/128), m]; offsets: [ceil(k/128), m/4, 4];
                             // boxes of scale_a_rows; unused without scales
  TensorMap d;               // [m, n] or, where groups end inside a tile, see store_panel; unused where tma_cols is 0
  const float* scale_b;      // null: unit scales
  int64_t scale_b_stride_n;  // elements from one block of 128 rows of B to the next
  int64_t scale_b_stride_k;  // elements from one block of 128 of k to the next
  int64_t scale_b_stride_group;
  const void* c;    // D's type; read only by kernels that accumulate
  int64_t c_pitch;  // elements
  void* d_data;
  int64_t d_pitch;         // elements
  int64_t d_stride_group;  // elements; 0 but in the masked layout
  uint32_t n, k;
  uint32_t tma_cols;  // TMA stores what lies before this column: see stored_by_tma
  Work work;
};

}  // namespace deep_gemm
