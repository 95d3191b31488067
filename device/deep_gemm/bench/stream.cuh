// The streaming floor: kernels that only read memory, as fast as the hardware lets all SMs read it. A product that must read
// N bytes from memory cannot be faster than the better of these two on N bytes. Host side: bench/regime.cpp.
//
// deep_gemm_bench_read_bulk     Formula: none; each CTA reads an equal contiguous share by bulk copies into a ring.
//                               Roles: thread 0 alone. Barriers: full[slot], 1 arrival + a chunk's bytes, waited on before
//                               the slot is filled again. What limits: HBM, and latency below a few MB.
// deep_gemm_bench_read_vectors  all threads read 16-byte vectors, eight in flight each, neighbours side by side.
// deep_gemm_bench_flush         the latter under a name of its own: it puts the L2 into a known state.
#pragma once

#include <deep_gemm/core/types.cuh>
#ifdef __CUDACC__
#include <deep_gemm/ptx/global.cuh>
#include <deep_gemm/ptx/tma.cuh>
#endif

namespace deep_gemm::bench {

constexpr uint32_t kChunkBytes = 8192;
constexpr uint32_t kSlots = 24;  ///< 192 KiB of dynamic shared memory
constexpr uint32_t kVectorThreads = 1024;

#ifdef __CUDACC__

/// `bytes`: a multiple of 16.
DG_DEVICE void read_bulk(const uint8_t* data, uint64_t bytes, uint8_t* ring) {
  __shared__ uint64_t full[kSlots];
  if (threadIdx.x != 0) return;
  const uint64_t share = ((bytes + gridDim.x - 1) / gridDim.x + 127) / 128 * 128;
  const uint64_t begin = share * blockIdx.x;
  if (begin >= bytes) return;
  const uint64_t end = begin + share < bytes ? begin + share : bytes;
  const uint32_t chunks = static_cast<uint32_t>((end - begin + kChunkBytes - 1) / kChunkBytes);
  for (uint32_t slot = 0; slot < kSlots; ++slot) ptx::mbarrier_init(full + slot, 1);
  ptx::fence_mbarrier_init();
  // Nobody reads the ring: a slot is filled again as soon as its last chunk has landed, and the last kSlots rounds only wait.
  uint32_t slot = 0, phase = 1;
  for (uint32_t i = 0; i < chunks + kSlots; ++i) {
    if (i >= kSlots && i - kSlots < chunks) ptx::mbarrier_wait_parity(full + slot, phase);
    if (i < chunks) {
      const uint64_t at = begin + static_cast<uint64_t>(i) * kChunkBytes;
      const uint32_t size = static_cast<uint32_t>(end - at < kChunkBytes ? end - at : kChunkBytes);
      ptx::mbarrier_arrive_expect_tx(full + slot, size);
      ptx::bulk_load(ring + slot * kChunkBytes, data + at, size, full + slot);
    }
    if (++slot == kSlots) slot = 0, phase ^= 1;
  }
}

/// `bytes`: a multiple of 16. `sink` is written only if the data's sum happens to be one certain value: without that chance
/// the compiler would drop the loads.
DG_DEVICE void read_vectors(const uint8_t* data, uint64_t bytes, uint32_t* sink) {
  constexpr uint32_t kInFlight = 8;
  const uint64_t count = bytes / 16;
  const uint64_t stride = static_cast<uint64_t>(gridDim.x) * kVectorThreads;
  uint32_t sum = 0;
  for (uint64_t at = static_cast<uint64_t>(blockIdx.x) * kVectorThreads + threadIdx.x; at < count;
       at += stride * kInFlight) {
    ptx::Vector v[kInFlight];
#pragma unroll
    for (uint32_t i = 0; i < kInFlight; ++i) {
      v[i] = ptx::Vector{0, 0, 0, 0};
      if (at + i * stride < count) v[i] = ptx::load_vector(data + (at + i * stride) * 16);
    }
#pragma unroll
    for (uint32_t i = 0; i < kInFlight; ++i) sum ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
  }
  if (sum == 0x9e3779b9u) *sink = sum;
}

extern "C" __global__ void __launch_bounds__(32, 1)
    deep_gemm_bench_read_bulk(const uint8_t* data, uint64_t bytes, uint32_t*) {
  extern __shared__ __align__(128) uint8_t ring[];
  read_bulk(data, bytes, ring);
}

extern "C" __global__ void __launch_bounds__(kVectorThreads, 1)
    deep_gemm_bench_read_vectors(const uint8_t* data, uint64_t bytes, uint32_t* sink) {
  read_vectors(data, bytes, sink);
}

extern "C" __global__ void __launch_bounds__(kVectorThreads, 1)
    deep_gemm_bench_flush(const uint8_t* data, uint64_t bytes, uint32_t* sink) {
  read_vectors(data, bytes, sink);
}

#endif

}  // namespace deep_gemm::bench
