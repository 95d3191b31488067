// The full/empty barrier protocol of a ring of shared-memory slots, written once.
#pragma once

#include <deep_gemm/ptx/control.cuh>
#include <deep_gemm/ptx/mbarrier.cuh>

namespace deep_gemm {

/// A position in the ring. `phase` is the parity of the lap; it flips on each wrap.
template <uint32_t kStages>
struct PipelineState {
  uint32_t stage = 0, phase = 0;
  DG_DEVICE void advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

/// full[s]:  kFullArrivals arrivals and the bytes announced with one of them. Every consumer waits on it.
/// empty[s]: one arrival from each of kConsumerWarps warps of every CTA of the cluster, since a multicast of any of
/// them
///           writes into all. Whoever fills slot s waits on it.
template <uint32_t kStages, uint32_t kFullArrivals, uint32_t kConsumerWarps, uint32_t kCluster>
struct Pipeline {
  using State = PipelineState<kStages>;
  uint64_t* full;
  uint64_t* empty;

  /// By one thread, before the CTAs of the cluster synchronise.
  DG_DEVICE void init() const {
    for (uint32_t s = 0; s < kStages; ++s) {
      ptx::mbarrier_init(full + s, kFullArrivals);
      ptx::mbarrier_init(empty + s, kConsumerWarps * kCluster);
    }
    ptx::fence_mbarrier_init();
  }
  /// A slot counts as empty before its first use: the wait for the phase before the first one returns at once.
  DG_DEVICE void wait_empty(State at) const { ptx::mbarrier_wait_parity(empty + at.stage, at.phase ^ 1); }
  DG_DEVICE void wait_full(State at) const { ptx::mbarrier_wait_parity(full + at.stage, at.phase); }
  /// By whoever fills the slots, at the end: returns when all slots are empty, so that no arrival and no multicast of
  /// another CTA is still on its way here and the CTA may exit.
  DG_DEVICE void drain(State at) const {
    for (uint32_t s = 0; s < kStages; ++s, at.advance()) wait_empty(at);
  }
  /// By all lanes of a consumer warp, after its last read of the slot.
  DG_DEVICE void release(State at) const {
    const uint32_t lane = threadIdx.x % 32;
    if constexpr (kCluster == 1) {
      if (lane == 0) ptx::mbarrier_arrive(empty + at.stage);
    } else {
      if (lane < kCluster) ptx::mbarrier_arrive_cluster(empty + at.stage, lane);
    }
  }
};

}  // namespace deep_gemm
