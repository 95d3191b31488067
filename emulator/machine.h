// What a kernel that runs on the emulator sees of the machine: each instruction of include/deep_gemm/ptx ends in one of these
// functions, which libcuda.so.1 exports. No other header is included, as in device code.
#pragma once

namespace emulator {

struct Index {
  unsigned x, y, z;
};

/// The thread that runs now, as it knows itself.
struct Thread {
  Index thread, block, grid, block_dim;
};
extern Thread* current;

/// 1024-aligned, full of NaN when a CTA starts.
void* dynamic_smem();

// Collectives of a warp, a CTA and a cluster. `what` is named in errors. `orders`: what lanes did before it is before what the
// others do after it.
void sync_warp(const char* what, bool orders);
/// The `value` of each of the 32 lanes.
const unsigned long* exchange(const char* what, unsigned long value);
void sync_block(unsigned id, unsigned threads);
void arrive_block(unsigned id, unsigned threads);
void arrive_cluster();
void wait_cluster();
unsigned cluster_rank();

// mbarrier objects. `rank`: of the CTA whose barrier at this place is meant; kOwn: the caller's.
inline constexpr unsigned kOwn = ~0u;
void barrier_init(unsigned long* barrier, unsigned arrivals);
void barrier_arrive(unsigned long* barrier, unsigned rank, unsigned bytes);
bool barrier_test(unsigned long* barrier, unsigned parity);
void barrier_wait(unsigned long* barrier, unsigned parity);
void fence_barrier_init();
/// Lets others run; for loops that poll.
void yield();

// Ordinary stores to shared memory that TMA reads, and the fence between them.
void note_store(const void* at, unsigned bytes);
void fence_async();

// Asynchronous copies.
struct Box {
  int at[5];
};
/// `ranks`: a bit for each CTA of the cluster that gets the box; 0: the caller alone.
void load_box(void* to, const void* map, unsigned long* barrier, int rank, Box box, unsigned ranks);
void load_bytes(void* to, const void* from, unsigned bytes, unsigned long* barrier);
void send_bytes(void* to, unsigned long* barrier, unsigned rank, const void* data, unsigned bytes);
void store_box(const void* map, const void* from, int rank, Box box, bool add);
void commit_stores();
void wait_stores_read(unsigned pending);

// Tensor cores: d[64, n] = a[64, 128] · b[n, 128]ᵀ by the warps of a warpgroup, each 16 rows and at its own time. `e5m2`: A's
// type (1) and B's (2).
unsigned long matrix_descriptor(const void* matrix);
void multiply(float* d, unsigned n, unsigned long a, unsigned long b, unsigned e5m2);
void wait_multiplied();

[[noreturn]] void trap(const char* why);

/// What the runtime needs of a kernel: its parameters' sizes, and a call of it by the running thread.
struct Kernel {
  void (*call)(void** params);
  const unsigned long* param_bytes;
  unsigned params;
};

}  // namespace emulator
