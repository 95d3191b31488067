// FP8 matrix multiplication with fine-grained scales, and the quantisation that feeds it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include <deep_gemm/config.h>
#include <deep_gemm/context.h>
#include <deep_gemm/error.h>
#include <deep_gemm/tensor.h>

namespace deep_gemm {

/// How many rows of A and of B, and how many columns of both, share a scale: (1, 128, 128), or (1, 1, 128) where B has 1×128
/// scales like A's ("1D1D", for weight gradients). There are no others.
struct Recipe {
  int rows_a = 1, rows_b = 128, cols = 128;
  bool operator==(const Recipe&) const = default;
};

struct GemmOptions {
  /// The call is enqueued here and never synchronises.
  Stream stream{};
  /// D = C + A·Bᵀ, rounded once; D's dtype and shape, may be D itself.
  std::optional<TensorView> c{};
  /// What the scales stand for.
  Recipe recipe{};
  /// CTAs run on at most this many SMs; 0: all.
  int num_sms = 0;
  /// A row's bits depend on that row, n, k and B alone: neither on m and the other rows nor on the number of SMs.
  bool batch_invariant = false;
  /// Programmatic dependent launch: the kernel may start before the stream's previous one ends, and waits for it itself.
  bool programmatic_launch = false;
  /// With programmatic_launch: nothing that may still run on the stream writes B or its scales, so B is fetched into L2
  /// before the wait.
  bool weights_are_constant = false;
  /// Scratch memory for scales that TMA cannot read as they lie: any dtype, rank 1, contiguous, on the context's device,
  /// 16-byte aligned, at least workspace_bytes() long, not used by other calls until this one has run. Left out:
  /// stream-ordered allocation.
  TensorView workspace{};
  /// Run this kernel instead of the one the plan chooses; must be legal for the call.
  std::optional<GemmConfig> config{};
};

/// D = A · Bᵀ (+ C), with A[i, j] = a[i, j] · scale_a[i, j / 128] and B[i, j] = b[i, j] · scale_b[i / 128, j / 128].
///
/// - `a.data` [m, k], `b.data` [n, k]: e4m3 or e5m2 each, K-major (stride 1 along k); base address and row pitch multiples of 16 bytes on
///   CUDA. The memory between a row's end and the pitch is never read as a value.
/// - `a.scale` [m, ceil(k/128)] FP32, any strides; MN-major with a column pitch that is a multiple of 16 bytes is used as it
///   is, any other layout is first transposed into scratch memory. `b.scale` [ceil(n/128), ceil(k/128)] FP32, any strides; with
///   recipe (1, 1, 128) [n, ceil(k/128)], with A's rule for strides. Either may be left out: unit scales.
/// - `d` [m, n]: bf16 or f32, stride 1 along n, any row pitch ≥ n. Must not overlap A, B or the scales, nor C but where it
///   is C, element for element.
///
/// Any m, n, k ≥ 0. m or n = 0: nothing happens. k = 0: D = C, or 0. The stride of a dimension of size 1 is ignored.
/// All tensors lie on the context's device; CPU tensors are computed at once on all cores, CUDA calls are enqueued on
/// `options.stream` and are safe under graph capture once their kernel is compiled (a warm call before the capture).
/// Products are summed over 128 of k in the tensor core's precision and across those blocks in FP32 (DeepSeek-V3 report,
/// arXiv 2412.19437, section 3.3.2). The same inputs give the same bits on every run.
/// Throws Error{invalid_argument} before anything is launched or written.
void fp8_gemm_nt(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                 const GemmOptions& options = {});

struct GroupedOptions {
  /// The call is enqueued here and never synchronises.
  Stream stream{};
  /// CTAs run on at most this many SMs; 0: all.
  int num_sms = 0;
  /// Programmatic dependent launch: the kernel may start before the stream's previous one ends, and waits for it itself.
  bool programmatic_launch = false;
  /// As in GemmOptions.
  bool batch_invariant = false, weights_are_constant = false;
  TensorView workspace{};
  /// Offsets: a group starts at the previous one's end rounded up to a multiple of this, 1 to 2^20.
  int alignment = 1;
  /// Offsets: rows of D between a group's end and that multiple become zeros; otherwise they are not written.
  bool zero_padding = false;
  /// Run this kernel instead of the one the plan chooses; must be legal for the call.
  std::optional<GemmConfig> config{};
};

/// Where a group of the contiguous layout may start: at multiples of this many rows.
constexpr int64_t get_m_alignment_for_contiguous_layout() { return 128; }

/// A product for each group of a mixture of experts, in one launch: the rows of A that belong to group g are multiplied
/// with B[g].
///
/// What holds for fp8_gemm_nt holds here too: types, strides, alignment, streams, errors, repeatability, without C.
/// - `b.data` [groups, n, k], a group's pitch a multiple of 16 bytes on CUDA; `b.scale` [groups, ceil(n/128), ceil(k/128)].
/// - The last argument before the options is an int32 tensor with stride 1 on the context's device. The host never reads
///   it where that is a GPU: it may change between the replays of a graph. Numbers out of range are clamped: nothing
///   outside of the tensors is touched, but that group's rows are unspecified.
/// Groups may be empty, anywhere.
///
/// Contiguous: `a.data` [m, k], `d` [m, n], `m_indices` [m]: the group of each row, -1 for padding. Rows of a group lie
/// together and start at a multiple of get_m_alignment_for_contiguous_layout(). Padding rows of D are written: the product
/// of what A holds there, or zeros.
void m_grouped_fp8_gemm_nt_contiguous(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                                      const TensorView& m_indices, const GroupedOptions& options = {});

/// Offsets: `a.data` [m, k], `d` [m, n], `ends` [groups]: the row after the last one of each group, not decreasing. A group
/// starts at the previous group's end (the first one at 0) rounded up to a multiple of `options.alignment`; with 1 there
/// is no padding at all. Only the groups' rows of D are written. What lies in the rows of A between groups, even NaN,
/// never reaches a result.
void m_grouped_fp8_gemm_nt_offsets(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                                   const TensorView& ends, const GroupedOptions& options = {});

/// Masked: `a.data` [groups, m_max, k], `a.scale` [groups, m_max, ceil(k/128)], `d` [groups, m_max, n], `masked_m`
/// [groups]: how many rows of each group are valid. Only those of D are written. `expected_m` ≥ 0, rows of a group, is a
/// hint for the choice of a kernel: the result is right whatever it says.
void m_grouped_fp8_gemm_nt_masked(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                                  const TensorView& masked_m, int64_t expected_m, const GroupedOptions& options = {});

/// Weight gradients of a mixture of experts: D[g] = C[g] + A_g · B_gᵀ for each group g, where k differs: `ks[g]` ≥ 0. D, C
/// [groups, m, n] f32. `options.c` left out: C is D, so the products are added to it. Recipe (1, 1, 128) and no other,
/// whatever `options.recipe` says.
///
/// - Flat: `a.data` [m · Σ ks], `b.data` [n · Σ ks]: A_g is a contiguous [m, ks[g]] after those of the earlier groups; each ks[g]
///   a multiple of 128.
/// - Strided: `a.data` [m, Σ ks], `b.data` [n, Σ ks], K-major like fp8_gemm_nt's; on CUDA each ks[g] but the last a multiple
///   of 16. What lies beyond a group's k, even NaN, never reaches another's result.
/// - `a.scale` [m, Σ ceil(ks[g]/128)], `b.scale` [n, Σ ceil(ks[g]/128)], a group's columns after those of the earlier
///   groups; A's rule for strides. Left out: unit scales, for both or for none.
/// The rest is as for fp8_gemm_nt. Groups may be empty, anywhere: their D is C.
void k_grouped_fp8_gemm_nt(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                           std::span<const int> ks, const GemmOptions& options = {});

/// Bytes of scratch memory that a call with these operands needs, alignment included: 0 where scales lie as TMA reads them,
/// and on the CPU. `recipe` as in GemmOptions.
int64_t workspace_bytes(const Fp8Tensor& a, const Fp8Tensor& b, const Recipe& recipe = {});

struct QuantizeOptions {
  Stream stream{};
  bool power_of_two_scales = false;  ///< round scales up to powers of two
};

/// Quantises `x` [rows, cols] (bf16, f16 or f32; stride 1 along cols) to FP8 with one scale for 128 columns of one row:
/// scale = max(|block|, 1e-4) / max (rounded up to a power of two on request), out = round-to-nearest-even(x / scale),
/// saturated at ±max, where max is 448 for e4m3 and 57344 for e5m2; NaN stays NaN, an infinity makes its block's scale
/// infinite. `out.data` [rows, cols] e4m3 or e5m2 with stride 1 along cols; `out.scale` [rows, ceil(cols/128)] FP32, any
/// strides. Enqueued on the stream on CUDA.
void quantize_1x128(Context& context, const TensorView& x, const Fp8Tensor& out, const QuantizeOptions& options = {});

/// The same with one scale for each block of 128 rows and 128 columns: `out.scale` [ceil(rows/128), ceil(cols/128)].
void quantize_128x128(Context& context, const TensorView& x, const Fp8Tensor& out, const QuantizeOptions& options = {});

/// The same with one scale for 128 rows of one column, as 1D1D products along the rows want it: `out.scale`
/// [ceil(rows/128), cols]; its transpose is the MN-major scale of the transposed `out.data`.
void quantize_128x1(Context& context, const TensorView& x, const Fp8Tensor& out, const QuantizeOptions& options = {});

/// Columns between two k-blocks of an MN-major scale tensor of `mn` rows so that TMA can read it: mn rounded up to 4.
constexpr int64_t tma_aligned_rows(int64_t mn) { return (mn + 3) / 4 * 4; }

/// Copies FP32 scales [mn, blocks] of any strides into `out`, [mn, blocks] with strides [1, pitch],
/// pitch ≥ tma_aligned_rows(mn) and a multiple of 4: the layout that fp8_gemm_nt takes for A without transposing.
/// Each column's memory from mn up to tma_aligned_rows(mn) is written with zeros. Both may have a first dimension more for
/// groups, [groups, mn, blocks], whose stride in `out` is a multiple of 4 and keeps them apart.
void to_mn_major_aligned(Context& context, const TensorView& scale, const TensorView& out, Stream stream = {});

/// What the plan knows of a GPU.
struct DeviceInfo {
  std::string name;
  int num_sms = 0;
  int smem_bytes = 0;  ///< shared memory a block may use (opt-in)
  int64_t l2_bytes = 0;
  double clock_ghz = 0;         ///< SM clock under load
  double hbm_gbytes_per_s = 0;  ///< read bandwidth, measured or from the data sheet
  int max_clusters_of_2 = 0;    ///< clusters of two CTAs that fit at once, one CTA an SM; of four, of eight
  int max_clusters_of_4 = 0, max_clusters_of_8 = 0;

  static DeviceInfo h100();
  static DeviceInfo h200();
  static DeviceInfo h800();
  bool operator==(const DeviceInfo&) const = default;
};

/// All that the choice of a kernel depends on.
struct Problem {
  int64_t m = 0;         ///< rows of A; in the masked layout, of a group of A
  int64_t n = 0, k = 0;  ///< k-grouped: of the largest group
  DType d_type = DType::bf16;
  bool scaled_a = true, scaled_b = true;
  bool accumulate = false;
  DType a_type = DType::e4m3, b_type = DType::e4m3;
  int scale_rows_b = 128;  ///< rows of B that share a scale: 128 or 1
  bool batch_invariant = false;
  int num_sms = 0;  ///< 0: all
  Layout layout = Layout::dense;
  int64_t groups = 1;
  int64_t expected_m = 0;  ///< masked: rows that a group is expected to have
  bool operator==(const Problem&) const = default;
};

struct PlanCandidate {
  GemmConfig config;
  double estimate_us = 0;
};

/// A kernel, how to launch it, and why it was chosen.
struct GemmPlan {
  GemmConfig config;
  int grid = 0;  ///< CTAs
  int block_threads = 0;
  int smem_bytes = 0;
  int raster_tiles = 0;     ///< clusters side by side along n that are walked down m together, for L2
  bool stream_b = false;    ///< B's lines leave L2 before all others, since few tiles need them again
  int b_fetch_bytes = 256;  ///< 128 or 256: what L2 asks memory for where it lacks a part of B
  double estimate_us = 0;
  std::string reason;                     ///< one line for people
  std::vector<PlanCandidate> runners_up;  ///< best first
};

/// Chooses a kernel. Pure: the same arguments give the same plan, no GPU is needed, nothing is timed.
/// Throws Error{invalid_argument} where no kernel is legal (also: `options.config` is not).
GemmPlan plan(const Problem& problem, const DeviceInfo& device, const std::optional<GemmConfig>& config = {});

/// The kernels that the plan uses for n, k and the rest of `problem` over all m: at most 8.
std::vector<GemmConfig> kernels_for(const Problem& problem, const DeviceInfo& device);

/// Compiles `config` into the context's disk cache without needing a GPU or loading anything.
struct CompileReport {
  std::string name;      ///< the kernel's entry, as profilers show it
  std::string compiler;  ///< for example "NVRTC 13.0"
  bool cached = false;   ///< it was in the cache already; the figures below are then those of its compilation
  double seconds = 0;
  int registers = 0;
  int spill_bytes = 0;
};
CompileReport compile(Context& context, const GemmConfig& config);

}  // namespace deep_gemm
