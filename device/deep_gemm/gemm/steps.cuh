// What a role keeps while it goes through a tile's steps, 128 of k each: which they are, B's scales for them, and the rows of A
// that are kept.
#pragma once

#include <deep_gemm/gemm/args.cuh>
#include <deep_gemm/gemm/promote.cuh>
#include <deep_gemm/ptx/control.cuh>
#include <deep_gemm/ptx/global.cuh>

namespace deep_gemm {

/// The blocks of 128 of k that a CTA goes through for a tile: `count` of them from `first` on, at least one. Where there are
/// none (k = 0, padding, more CTAs than blocks to split) that is one beyond all tensors: TMA fills it with zeros.
struct Steps {
  static constexpr uint32_t kNowhere = 1 << 23;  // times 128 is still a coordinate
  uint32_t first, count;
};

/// Those of this CTA.
template <GemmConfig C>
DG_DEVICE Steps steps_of(const KernelArgs<C>& args, const Tile& tile) {
  constexpr bool kPadding = C.layout == Layout::contiguous || C.layout == Layout::offsets;
  uint32_t depth = args.k;
  if constexpr (C.layout == Layout::k_grouped) depth = args.depth[tile.group];
  const uint32_t all = kPadding && tile.row >= tile.valid_end ? 0 : ceil_div(depth, kTileK);
  Steps own{0, all};
  if constexpr (C.split_k) {
    own.first = all * ptx::cluster_rank() / C.cluster;
    own.count = all * (ptx::cluster_rank() + 1) / C.cluster - own.first;
  }
  if (own.count == 0) own = {Steps::kNowhere, 1};
  return own;
}

/// B's scales for blocks of 128 rows: those of 32 steps of a tile in a warp's registers, a step in each lane, and those of
/// the 32 steps after them on their way: one coalesced load for 32 steps, no shared memory and no barrier.
template <GemmConfig C>
struct BlockScales {
  static constexpr uint32_t kBlocks = scale_blocks_b(C);
  float current[kBlocks], next[kBlocks];

  /// Where two ways meet, ptxas copies what is being loaded, and waits for it; and it puts off a plain copy of `next` until the
  /// load after that. With the few steps of a tile whose A is kept this was a twentieth of the time, so there it is one load
  /// under a condition, and a shuffle in which each lane gets its own. Elsewhere that gained nothing (0.996 to 1.003 of the
  /// time, H100, 2026-11-28).
  static constexpr bool kWithoutBranch = C.kept_blocks > 0;

  /// Starts to load those of steps `first` … `first + 31` of a tile, if they are wanted.
  DG_DEVICE void fetch(const GemmArgs& args, const Tile& tile, const Steps& steps, uint32_t first, bool wanted = true) {
    const uint32_t step = first + threadIdx.x % 32;
    const bool is_step = wanted && step < steps.count;
    if (!kWithoutBranch && !is_step) return;
    const bool known = args.block_scale_b && steps.first != Steps::kNowhere;
#pragma unroll
    for (uint32_t b = 0; b < kBlocks; ++b) {
      const uint32_t row = min(tile.col / kScaleRows + b, (args.n - 1) / kScaleRows);
      const int64_t at = tile.group * args.scale_b_stride_group + row * args.scale_b_stride_n;
      if constexpr (kWithoutBranch) {
        const float* from = args.block_scale_b + at + (steps.first + step) * args.scale_b_stride_k;
        next[b] = ptx::load_if(is_step && known, from, 1.f);
      } else {
        next[b] = known ? args.block_scale_b[at + (steps.first + step) * args.scale_b_stride_k] : 1.f;
      }
    }
  }
  DG_DEVICE void turn() {
#pragma unroll
    for (uint32_t b = 0; b < kBlocks; ++b)
      current[b] = kWithoutBranch ? __shfl_sync(~0u, next[b], threadIdx.x % 32) : next[b];
  }
  /// Step `i` of the current 32, by all lanes.
  DG_DEVICE void get(float (&scale)[scales_b(C)], uint32_t i) const {
#pragma unroll
    for (uint32_t b = 0; b < kBlocks; ++b) scale[b] = __shfl_sync(~0u, current[b], i);
  }
};

/// The rows of A that are kept. `phase`: parity of their barriers; it flips when other rows come.
struct KeptRows {
  uint32_t row = ~0u, phase = 1;

  /// Whether these are other rows than before.
  DG_DEVICE bool turn_to(uint32_t first) {
    if (first == row) return false;
    row = first;
    phase ^= 1;
    return true;
  }
};

}  // namespace deep_gemm
