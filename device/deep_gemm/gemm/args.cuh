// What a launch passes to the kernel: one trivially copyable struct. Host and device.
#pragma once

#include <deep_gemm/gemm/scheduler.cuh>

namespace deep_gemm {

struct GemmArgs {
  TensorMap a;        // [m, k] FP8; masked: [groups, m, k]; boxes of 128 × a_box_rows
  TensorMap b;        // [n, k] FP8; grouped: [groups, n, k]; boxes of 128 × b_box_rows
  TensorMap scale_a;  // [ceil(k/128), m] FP32; masked: [groups, ceil(k/128), m]; offsets: [ceil(k/128), m/4, 4];
                      // boxes of scale_a_box_rows; unused without scales
  TensorMap scale_b;  // [ceil(k/128), n] FP32, boxes of tile_n; only with scale_rows_b = 1
  TensorMap d;        // [m, n] or, where groups end inside a tile, see store_panel; unused where tma_cols is 0
  // What each CTA needs before its first load lies in the 72 bytes from here on: constants come by the line of 64.
  uint32_t k;
  uint32_t stage_bytes;  // see loaded_stage_bytes
  bool stream_b;         // B's lines are the first to leave L2
  bool prefetch_b;       // B may be read before the kernels before this one have ended
  bool in_place;         // C is D, f32: TMA adds to it, C is not read
  Work work;
  const float* block_scale_b;  // only with scale_rows_b = 128; null: unit scales
  int64_t scale_b_stride_n;    // elements from one block of 128 rows of B to the next
  int64_t scale_b_stride_k;    // elements from one block of 128 of k to the next
  int64_t scale_b_stride_group;
  const void* c;           // D's type; read only by kernels that accumulate
  int64_t c_pitch;         // elements
  int64_t c_stride_group;  // elements; 0 but in the k-grouped layout
  void* d_data;
  int64_t d_pitch;         // elements
  int64_t d_stride_group;  // elements; 0 but in the masked and the k-grouped layout
  uint32_t n;
  uint32_t tma_cols;  // TMA stores what lies before this column: see stored_by_tma
};

/// The groups of a k-grouped launch, largest first, since the last tiles should be the short ones. Each has maps of its own,
/// whose end is the end of its k: what TMA reads beyond are zeros.
struct KGroupedArgs : GemmArgs {
  static constexpr uint32_t kMaxGroups = 8;
  struct Maps {
    TensorMap a, b;
  } maps[kMaxGroups];
  uint32_t depth[kMaxGroups];        // k of the group
  uint32_t first_block[kMaxGroups];  // of k, in the scales
  uint32_t of_d[kMaxGroups];         // its place in D
};

template <Layout kLayout>
struct ArgsOf {
  using Type = GemmArgs;
};
template <>
struct ArgsOf<Layout::k_grouped> {
  using Type = KGroupedArgs;
};
template <GemmConfig C>
using KernelArgs = typename ArgsOf<C.layout>::Type;

}  // namespace deep_gemm
