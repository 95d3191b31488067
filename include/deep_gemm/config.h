// What changes a kernel's code, in one plain struct: the plan's result, the kernel's template value, the cache key, the
// log line and the JSON. Host and device compile this file; it includes nothing.
#pragma once

#ifdef __CUDACC__
#define DG_HD __host__ __device__ __forceinline__
#else
#define DG_HD inline
#endif

namespace deep_gemm {

/// Element types. e4m3 and e5m2 are OCP FP8 (E4M3 has NaN but no infinity).
enum class DType : int { e4m3, e5m2, bf16, f16, f32, i32 };

/// Which operand the CTAs of a cluster share: each of them loads a part of it and multicasts that part to all.
/// `a`: the CTAs stand side by side along n and share rows of A. `b`: they stand along m and share rows of B.
enum class Multicast : int { none, a, b };

/// Which rows of A are multiplied with which B: see the m_grouped calls in gemm.h.
enum class Layout : int { dense, contiguous, offsets, masked };

/// A kernel of the GEMM family. m, n, k, the number of groups, strides, the SM count and the tile order are run-time values.
struct GemmConfig {
  Layout layout = Layout::dense;
  DType d_type = DType::bf16;             ///< bf16 or f32
  bool scaled_a = true;                   ///< A has 1×128 scales; otherwise they are 1
  bool accumulate = false;                ///< D = C + A·Bᵀ instead of D = A·Bᵀ
  int tile_m = 128;                       ///< rows of D a CTA computes at a time: 64, 128 or 256
  int tile_n = 128;                       ///< columns of D a CTA computes at a time: a multiple of 16
  int stages = 4;                         ///< slots of the shared-memory pipeline, each 128 wide in k
  int cluster = 1;                        ///< CTAs a cluster: 1 or 2
  Multicast multicast = Multicast::none;  ///< none exactly when cluster is 1
  int unroll = 1;                         ///< how often the loop over k is unrolled
  bool operator==(const GemmConfig&) const = default;
};

/// Calls `f(name, field)` for every field, in order. Names are the ones of the JSON and of the generated source.
template <class Config, class F>
DG_HD constexpr void fields(Config& config, F&& f) {
  f("layout", config.layout);
  f("d_type", config.d_type);
  f("scaled_a", config.scaled_a);
  f("accumulate", config.accumulate);
  f("tile_m", config.tile_m);
  f("tile_n", config.tile_n);
  f("stages", config.stages);
  f("cluster", config.cluster);
  f("multicast", config.multicast);
  f("unroll", config.unroll);
}
static_assert(sizeof(GemmConfig) == 36, "a field was added or removed: update fields() and this size");

}  // namespace deep_gemm
