// The full/empty barrier protocol of a ring of shared-memory slots, written once.
#pragma once

#include <deep_gemm/ptx/mbarrier.cuh>

namespace deep_gemm {

/// A position in the ring. `phase` is the parity of the lap; it flips on each wrap.
template <uint32_t kSlots>
struct RingPosition {
  uint32_t slot = 0, phase = 0;
  DG_DEVICE void advance() {
    if (++slot == kSlots) {
      slot = 0;
      phase ^= 1;
    }
  }
};

/// full[s]:  kFills arrivals (and the bytes that one of them announces) make slot s full; who uses it waits for that.
/// empty[s]: kReleases arrivals make it empty again; who fills it waits for that.
template <uint32_t kSlots, uint32_t kFills, uint32_t kReleases>
struct Ring {
  using Position = RingPosition<kSlots>;
  uint64_t* full;
  uint64_t* empty;

  /// By one thread, before all others (of the cluster, where there is one) synchronise with it.
  DG_DEVICE void init() const {
#pragma unroll 1
    for (uint32_t s = 0; s < kSlots; ++s) {
      ptx::mbarrier_init(full + s, kFills);
      ptx::mbarrier_init(empty + s, kReleases);
    }
  }
  /// A slot counts as empty before its first use: the wait for the phase before the first one returns at once.
  DG_DEVICE void wait_empty(Position at) const { ptx::mbarrier_wait_parity(empty + at.slot, at.phase ^ 1); }
  DG_DEVICE void wait_full(Position at) const { ptx::mbarrier_wait_parity(full + at.slot, at.phase); }
  /// By whoever fills the slots, at the end: returns when all slots are empty, so that no arrival and no multicast of
  /// another CTA is still on its way here and the CTA may exit.
  DG_DEVICE void drain(Position at) const {
#pragma unroll 1
    for (uint32_t s = 0; s < kSlots; ++s, at.advance()) wait_empty(at);
  }
};

/// By all lanes of a warp after its last read of the slot: one arrival in each CTA of the cluster, since a multicast of
/// any of them writes into all.
template <uint32_t kCluster, class RingType>
DG_DEVICE void release(const RingType& ring, typename RingType::Position at) {
  ptx::mbarrier_arrive_cluster<kCluster>(ring.empty + at.slot, threadIdx.x % 32);
}

}  // namespace deep_gemm
