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

/// Which rows of A are multiplied with which B: see the grouped calls in gemm.h.
enum class Layout : int { dense, contiguous, offsets, masked, k_grouped };

/// A kernel of the GEMM family. m, n, k, the number of groups, strides, the SM count and the tile order are run-time values.
struct GemmConfig {
  Layout layout = Layout::dense;
  DType a_type = DType::e4m3;             ///< e4m3 or e5m2
  DType b_type = DType::e4m3;             ///< e4m3 or e5m2
  DType d_type = DType::bf16;             ///< bf16 or f32
  bool scaled_a = true;                   ///< A has 1×128 scales; otherwise they are 1
  int scale_rows_b = 128;                 ///< rows of B that share a scale: 128, or 1 ("1D1D")
  bool accumulate = false;                ///< D = C + A·Bᵀ instead of D = A·Bᵀ
  int tile_m = 128;                       ///< rows of D a CTA computes at a time: 64, 128 or 256
  int tile_n = 128;                       ///< columns of D a CTA computes at a time: a multiple of 16
  int stages = 4;                         ///< slots of the shared-memory pipeline, each 128 wide in k
  int cluster = 1;                        ///< CTAs a cluster: 1; 2 with multicast; 2, 4 or 8 with split_k
  Multicast multicast = Multicast::none;  ///< none where cluster is 1 and with split_k
  bool split_k = false;                   ///< the CTAs of a cluster compute the same tile, each a part of k
  int ctas_per_sm = 1;                    ///< CTAs that share an SM: 1 or 2
  int unroll = 1;                         ///< how often the loop over k is unrolled
  int kept_blocks = 0;  ///< blocks of 128 of k, at most, of a tile's rows of A that stay in shared memory
                        ///< while a CTA goes along these rows; 0: none stays, and k may be any
  bool operator==(const GemmConfig&) const = default;
};

/// Calls `f(name, field)` for every field, in order. Names are the ones of the JSON and of the generated source.
template <class Config, class F>
DG_HD constexpr void fields(Config& config, F&& f) {
  f("layout", config.layout);
  f("a_type", config.a_type);
  f("b_type", config.b_type);
  f("d_type", config.d_type);
  f("scaled_a", config.scaled_a);
  f("scale_rows_b", config.scale_rows_b);
  f("accumulate", config.accumulate);
  f("tile_m", config.tile_m);
  f("tile_n", config.tile_n);
  f("stages", config.stages);
  f("cluster", config.cluster);
  f("multicast", config.multicast);
  f("split_k", config.split_k);
  f("ctas_per_sm", config.ctas_per_sm);
  f("unroll", config.unroll);
  f("kept_blocks", config.kept_blocks);
}
static_assert(sizeof(GemmConfig) == 64, "a field was added or removed: update fields() and this size");

}  // namespace deep_gemm
