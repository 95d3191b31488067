// The full/empty barrier protocol of a ring of shared-memory slots, written once.
#pragma once

#include <deep_gemm/ptx/mbarrier.cuh>
#ifdef DG_DEBUG_BARRIERS
#include <deep_gemm/ptx/debug.cuh>
#endif

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

/// Where a thread is when it waits; tiles have the same fields.
struct NoTile {
  uint32_t row = 0, col = 0, group = 0;
};

/// Waits for a phase of barrier `name[slot]` of a ring. Compiled with DG_DEBUG_BARRIERS, a wait of over a second says which it
/// is, and where, and ends the kernel.
template <class Tile>
DG_DEVICE void wait_phase(uint64_t* bar, uint32_t parity, const char* ring, const char* name, uint32_t slot,
                          const Tile& tile) {
#ifdef DG_DEBUG_BARRIERS
  const uint64_t start = ptx::globaltimer();
  while (!ptx::mbarrier_try_wait_parity(bar, parity)) {
    if (ptx::globaltimer() - start < 1000000000) continue;
    if (threadIdx.x % 32 == 0)
      printf("deep_gemm: CTA %u, warp %u, tile at row %u, column %u of group %u: waited a second for %s.%s[%u]\n",
             blockIdx.x, threadIdx.x / 32, tile.row, tile.col, tile.group, ring, name, slot);
    __trap();
  }
#else
  ptx::mbarrier_wait_parity(bar, parity);
#endif
}

/// full[s]:  kFills arrivals (and the bytes that one of them announces) make slot s full; who uses it waits for that.
/// empty[s]: kReleases arrivals make it empty again; who fills it waits for that.
template <uint32_t kSlots, uint32_t kFills, uint32_t kReleases>
struct Ring {
  using Position = RingPosition<kSlots>;
  uint64_t* full;
  uint64_t* empty;
  const char* name = "ring";

  /// By one thread, before all others (of the cluster, where there is one) synchronise with it.
  DG_DEVICE void init() const {
#pragma unroll  // a loop takes 63 clocks a slot
    for (uint32_t s = 0; s < kSlots; ++s) {
      ptx::mbarrier_init(full + s, kFills);
      ptx::mbarrier_init(empty + s, kReleases);
    }
  }
  /// A slot counts as empty before its first use: the wait for the phase before the first one returns at once.
  template <class Tile = NoTile>
  DG_DEVICE void wait_empty(Position at, const Tile& tile = {}) const {
    wait_phase(empty + at.slot, at.phase ^ 1, name, "empty", at.slot, tile);
  }
  template <class Tile = NoTile>
  DG_DEVICE void wait_full(Position at, const Tile& tile = {}) const {
    wait_phase(full + at.slot, at.phase, name, "full", at.slot, tile);
  }
  DG_DEVICE bool is_full(Position at) const { return ptx::mbarrier_test_wait_parity(full + at.slot, at.phase); }
  DG_DEVICE bool is_empty(Position at) const { return ptx::mbarrier_test_wait_parity(empty + at.slot, at.phase ^ 1); }
  /// By whoever fills the slots, at the end: returns when all slots are empty, so that no arrival and no multicast of
  /// another CTA is still on its way here and the CTA may exit.
  DG_DEVICE void drain(Position at) const {
#pragma unroll 1
    for (uint32_t s = 0; s < kSlots; ++s, at.advance()) wait_empty(at);
  }
};

/// By all lanes of a warp after its last read of the slot: one arrival, or one in each of the kCtas of the cluster where
/// any of them writes into all.
template <uint32_t kCtas, class RingType>
DG_DEVICE void release(const RingType& ring, typename RingType::Position at) {
  const uint32_t lane = threadIdx.x % 32;
  if constexpr (kCtas == 1) {
    ptx::mbarrier_arrive_if(ring.empty + at.slot, lane == 0);
  } else {
    ptx::mbarrier_arrive_cluster<kCtas>(ring.empty + at.slot, lane);
  }
}

}  // namespace deep_gemm
