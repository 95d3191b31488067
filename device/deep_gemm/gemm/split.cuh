// A tile that the CTAs of a cluster compute together, each a part of k: their sums meet through distributed shared memory,
// always in the same order.
#pragma once

#include <deep_gemm/core/pipeline.cuh>
#include <deep_gemm/gemm/scheduler.cuh>
#include <deep_gemm/ptx/control.cuh>

namespace deep_gemm {

/// full:  the bytes of all CTAs' sums, announced by one arrival. Math threads wait on it.
/// empty: one arrival of each math warp of each CTA of the cluster, once it has read them. Whoever sends waits on it.
template <GemmConfig C>
using PartRing = Ring<1, 1, math_threads(C) / 32 * C.cluster>;

/// Math role: CTA r of the cluster gets what all of them summed for columns r · stored_cols … of the tile, and adds it in the
/// order of their ranks. A thread sends its accumulators to the thread with the same number, so their order is nobody's
/// concern.
template <GemmConfig C>
DG_DEVICE void add_parts(uint8_t* parts, const PartRing<C>& ring, typename PartRing<C>::Position& at, const Tile& tile,
                         const float (&sum)[row_waves(C)][C.tile_n / 2],
                         float (&total)[row_waves(C)][stored_cols(C) / 2]) {
  constexpr uint32_t kOwn = stored_cols(C) / 2, kThreads = math_threads(C);
  const auto place = [&](uint32_t source, uint32_t wave, uint32_t i) {
    return parts + (((source * row_waves(C) + wave) * (kOwn / 4) + i / 4) * kThreads + threadIdx.x) * 16;
  };
  const uint32_t rank = ptx::cluster_rank();
  ring.wait_empty(at, tile);
  if (threadIdx.x == 0) ptx::mbarrier_arrive_expect_tx(ring.full, parts_bytes(C));
#pragma unroll
  for (uint32_t target = 0; target < C.cluster; ++target) {
#pragma unroll
    for (uint32_t wave = 0; wave < row_waves(C); ++wave) {
#pragma unroll
      for (uint32_t i = 0; i < kOwn; i += 4) {
        const float* own = sum[wave] + target * kOwn + i;
        ptx::st_async_v4(place(rank, wave, i), ring.full, target, own[0], own[1], own[2], own[3]);
      }
    }
  }
  ring.wait_full(at, tile);
#pragma unroll
  for (uint32_t wave = 0; wave < row_waves(C); ++wave) {
#pragma unroll
    for (uint32_t i = 0; i < kOwn; i += 4) {
      float4 all = *reinterpret_cast<const float4*>(place(0, wave, i));
#pragma unroll
      for (uint32_t source = 1; source < C.cluster; ++source) {
        const float4 part = *reinterpret_cast<const float4*>(place(source, wave, i));
        all.x += part.x, all.y += part.y, all.z += part.z, all.w += part.w;
      }
      total[wave][i] = all.x, total[wave][i + 1] = all.y, total[wave][i + 2] = all.z, total[wave][i + 3] = all.w;
    }
  }
  __syncwarp();
  release<C.cluster>(ring, at);
  at.advance();
}

}  // namespace deep_gemm
