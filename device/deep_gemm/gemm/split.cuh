// A tile that the CTAs of a cluster compute together, each a part of k: their sums meet through distributed shared memory,
// always in the same order.
#pragma once

#include <deep_gemm/core/pipeline.cuh>
#include <deep_gemm/gemm/scheduler.cuh>
#include <deep_gemm/ptx/control.cuh>

namespace deep_gemm {

/// full:  the bytes of the other CTAs' sums, announced by one arrival. Math threads wait on it.
/// empty: one arrival of each math warp of each CTA of the cluster, once it has read them. Whoever sends waits on it.
template <GemmConfig C>
using PartRing = Ring<1, 1, math_threads(C) / 32 * C.cluster>;

/// Math role: CTA r of the cluster gets what the others summed for columns r · stored_cols … of the tile, and adds it to its
/// own in the order of all ranks. A thread sends its accumulators to the thread with the same number, so their order is
/// nobody's concern. `first`: the warp's first row in the tile; 16 rows of which none is stored are not sent. An SM sends some
/// 12 to 20 bytes a clock (H100, 2026-11-23), so it sends none to itself and begins with the next one, lest all send to the
/// same one at a time. The code is there once for each rank, which says what registers are whose.
template <GemmConfig C, uint32_t kRank = 0>
DG_DEVICE void add_parts(uint8_t* parts, const PartRing<C>& ring, typename PartRing<C>::Position& at, const Tile& tile,
                         uint32_t first, const float (&sum)[row_waves(C)][C.tile_n / 2],
                         float (&total)[row_waves(C)][stored_cols(C) / 2]) {
  constexpr uint32_t kOwn = stored_cols(C) / 2, kThreads = math_threads(C), kRanks = C.cluster;
  if constexpr (kRank + 1 < kRanks) {
    if (ptx::cluster_rank() != kRank) return add_parts<C, kRank + 1>(parts, ring, at, tile, first, sum, total);
  }
  const uint32_t rows = min(tile.end - tile.row, C.tile_m);
  /// In CTA `target`, which sends nothing to itself.
  const auto place = [&](uint32_t source, uint32_t target, uint32_t wave, uint32_t i) {
    const uint32_t other = source - (source > target);
    return parts + (((other * row_waves(C) + wave) * (kOwn / 4) + i / 4) * kThreads + threadIdx.x) * 16;
  };
  ring.wait_empty(at, tile);
  if (threadIdx.x == 0) ptx::mbarrier_arrive_expect_tx(ring.full, parts_bytes(C) / C.tile_m * align_up(rows, 16));
#pragma unroll
  for (uint32_t next = 1; next < kRanks; ++next) {
    const uint32_t target = (kRank + next) % kRanks;
#pragma unroll
    for (uint32_t wave = 0; wave < row_waves(C); ++wave) {
      if (first + wave * 64 >= rows) continue;
#pragma unroll
      for (uint32_t i = 0; i < kOwn; i += 4) {
        const float* part = sum[wave] + target * kOwn + i;
        ptx::st_async_v4(place(kRank, target, wave, i), ring.full, target, part[0], part[1], part[2], part[3]);
      }
    }
  }
  ring.wait_full(at, tile);
#pragma unroll
  for (uint32_t wave = 0; wave < row_waves(C); ++wave) {
    const bool was_sent = first + wave * 64 < rows;
#pragma unroll
    for (uint32_t i = 0; i < kOwn; i += 4) {
      float4 all{};
#pragma unroll
      for (uint32_t source = 0; source < kRanks; ++source) {
        const float* own = sum[wave] + kRank * kOwn + i;
        float4 part{own[0], own[1], own[2], own[3]};
        if (source != kRank && was_sent) part = *reinterpret_cast<const float4*>(place(source, kRank, wave, i));
        all = source == 0 ? part : float4{all.x + part.x, all.y + part.y, all.z + part.z, all.w + part.w};
      }
      total[wave][i] = all.x, total[wave][i + 1] = all.y, total[wave][i + 2] = all.z, total[wave][i + 3] = all.w;
    }
  }
  __syncwarp();
  release<kRanks>(ring, at);
  at.advance();
}

}  // namespace deep_gemm
