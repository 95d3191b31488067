// Everything that follows from a GemmConfig alone: thread counts, the shared-memory map, and what is legal. Host and
// device; no number here is written a second time anywhere.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm {

inline constexpr uint32_t kTileK = 128;                                         // one scale for 128 of k
inline constexpr uint32_t kScaleRows = 128;                                     // one scale of B for 128 of n
inline constexpr uint32_t kSmemBytesOfSm = 233472;                              // sm_90: 228 KiB
inline constexpr uint32_t kSmemBytesReserved = 1024;                            // of them, for each CTA by the driver
inline constexpr uint32_t kMaxSmemBytes = kSmemBytesOfSm - kSmemBytesReserved;  // for one CTA
inline constexpr uint32_t kWarpgroup = 128;                                     // threads
inline constexpr uint32_t kLoadThreads = kWarpgroup;  // a whole warpgroup, since setmaxnreg speaks to warpgroups

DG_HD constexpr uint32_t gcd(uint32_t a, uint32_t b) { return b == 0 ? a : gcd(b, a % b); }

/// Math warpgroups; each computes its rows of the tile in `row_waves` times 64 rows, and these, where the accumulators of all
/// columns would not fit in registers beside their sums, in `col_waves` times wave_cols columns: a wgmma's part of the tile.
DG_HD constexpr uint32_t math_warpgroups(const GemmConfig& c) { return c.tile_m == 64 ? 1 : 2; }
DG_HD constexpr uint32_t math_threads(const GemmConfig& c) { return math_warpgroups(c) * kWarpgroup; }
DG_HD constexpr uint32_t num_threads(const GemmConfig& c) { return math_threads(c) + kLoadThreads; }
DG_HD constexpr uint32_t row_waves(const GemmConfig& c) { return c.tile_m / (64 * math_warpgroups(c)); }
DG_HD constexpr uint32_t col_waves(const GemmConfig& c) { return c.tile_n > 192 ? 2 : 1; }
DG_HD constexpr uint32_t wave_cols(const GemmConfig& c) { return c.tile_n / col_waves(c); }
DG_HD constexpr uint32_t cluster_m(const GemmConfig& c) { return c.multicast == Multicast::b ? c.cluster : 1; }
DG_HD constexpr uint32_t cluster_n(const GemmConfig& c) { return c.multicast == Multicast::a ? c.cluster : 1; }

/// CTAs that compute the same tile, each a part of k.
DG_HD constexpr uint32_t splits(const GemmConfig& c) { return c.split_k ? c.cluster : 1; }
/// CTAs that multicast to each other.
DG_HD constexpr uint32_t sharers(const GemmConfig& c) { return cluster_m(c) * cluster_n(c); }
/// Columns of a tile that a CTA stores.
DG_HD constexpr uint32_t stored_cols(const GemmConfig& c) { return c.tile_n / splits(c); }

/// Registers a math thread has; the load warpgroup gives some of its own away. (Without setmaxnreg ptxas would also not see
/// that a warp's threads agree on descriptors, and would move each of them to uniform registers for each wgmma.)
DG_HD constexpr uint32_t math_registers(const GemmConfig& c) {
  if (c.ctas_per_sm > 1) return math_warpgroups(c) > 1 ? 104 : 208;
  return math_warpgroups(c) > 1 ? 232 : 248;
}
DG_HD constexpr uint32_t load_registers(const GemmConfig& c) {
  return c.ctas_per_sm > 1 && math_warpgroups(c) > 1 ? 32 : 40;
}

/// Units, which are what a cluster computes at a time, along m.
DG_HD constexpr uint32_t units_m(const GemmConfig& c, uint32_t m) { return ceil_div(m, c.tile_m * cluster_m(c)); }

/// Whether what lies below a tile's last row may belong to another group, and so must not be stored with it.
DG_HD constexpr bool cuts_tiles(const GemmConfig& c) {
  return c.layout == Layout::offsets || c.layout == Layout::masked || c.layout == Layout::k_grouped ||
         (c.layout == Layout::contiguous && c.tile_m > 128);
}

/// A tile starts at a multiple of this within the 128 columns that share a scale of B.
DG_HD constexpr uint32_t scale_offset_step(const GemmConfig& c) { return gcd(c.tile_n, kScaleRows); }
/// Blocks of 128 rows of B that a tile can touch at most.
DG_HD constexpr uint32_t scale_blocks_b(const GemmConfig& c) {
  return ceil_div(kScaleRows - scale_offset_step(c) + c.tile_n, kScaleRows);
}

/// A panel: all rows of a tile and the columns of D that one TMA store takes, the widest swizzle atom (128, 64 or 32
/// bytes) that divides the columns a CTA stores.
DG_HD constexpr uint32_t d_bytes(const GemmConfig& c) { return c.d_type == DType::f32 ? 4 : 2; }
DG_HD constexpr uint32_t panel_cols(const GemmConfig& c) { return gcd(stored_cols(c), 128 / d_bytes(c)); }
DG_HD constexpr uint32_t panel_pitch(const GemmConfig& c) { return panel_cols(c) * d_bytes(c); }
/// Rows of a panel that TMA stores at a time: loads wait behind a store in the SM's way to L2, so stores come in small
/// pieces (256×128 tiles of 4096×24576×1536 took 3 % longer with whole panels: H100, 2026-11-23).
DG_HD constexpr uint32_t store_rows(const GemmConfig& c) { return min(c.tile_m, 64); }
DG_HD constexpr uint32_t panel_bytes(const GemmConfig& c) { return c.tile_m * panel_pitch(c); }
DG_HD constexpr uint32_t panels(const GemmConfig& c) { return stored_cols(c) / panel_cols(c); }

/// Byte offsets into the dynamic shared memory of a CTA, which is 1024-aligned.
struct SmemLayout {
  uint32_t a, b, d, parts, scale_a, scale_b, full, empty, d_full, d_empty, parts_full, parts_empty, kept_full,
      kept_empty, bytes;
};
/// Blocks of A, and of its scales, that are in shared memory at a time: one a stage, or all of a tile's rows.
DG_HD constexpr uint32_t a_slots(const GemmConfig& c) { return c.kept_blocks > 0 ? c.kept_blocks : c.stages; }
DG_HD constexpr uint32_t a_stage_bytes(const GemmConfig& c) { return c.tile_m * kTileK; }
DG_HD constexpr uint32_t b_stage_bytes(const GemmConfig& c) { return c.tile_n * kTileK; }
/// A's scales for a stage. TMA reads from multiples of 16 bytes on, so up to 3 more where a tile may begin at any row.
DG_HD constexpr uint32_t scale_a_rows(const GemmConfig& c) { return c.tile_m + (c.layout == Layout::offsets ? 4 : 0); }
DG_HD constexpr uint32_t scale_a_bytes(const GemmConfig& c) { return c.scaled_a ? scale_a_rows(c) * 4 : 0; }
DG_HD constexpr uint32_t scale_a_stage_bytes(const GemmConfig& c) { return align_up(scale_a_bytes(c), 128); }
/// Rows of the boxes of TMA, where A has m rows: no more than there are. (Rows outside of a tensor take TMA time to fill
/// with zeros: 64×64 tiles of 1×2112×7168 took 3 µs longer with them, H100, 2026-11-23.) What lies below them in a slot is
/// old, and becomes rows of D that are not stored.
DG_HD constexpr uint32_t a_box_rows(const GemmConfig& c, uint32_t m) {
  return cluster_n(c) > 1 ? c.tile_m / cluster_n(c) : min(c.tile_m, m);
}
DG_HD constexpr uint32_t b_box_rows(const GemmConfig& c) { return c.tile_n / cluster_m(c); }
DG_HD constexpr uint32_t scale_a_box_rows(const GemmConfig& c, uint32_t m) {
  return min(scale_a_rows(c), align_up(m, 4));
}
/// B's scales for a stage, where each row has its own; otherwise they are not staged.
DG_HD constexpr uint32_t scale_b_bytes(const GemmConfig& c) { return c.scale_rows_b == 1 ? c.tile_n * 4 : 0; }
DG_HD constexpr uint32_t scale_b_stage_bytes(const GemmConfig& c) { return align_up(scale_b_bytes(c), 128); }
/// What the CTAs that share a tile send to one of them: its columns' FP32 sums from each of the others.
DG_HD constexpr uint32_t parts_bytes(const GemmConfig& c) { return c.tile_m * (c.tile_n - stored_cols(c)) * 4; }
DG_HD constexpr SmemLayout smem_layout(const GemmConfig& c, uint32_t slots) {
  SmemLayout s{};
  uint32_t at = 0;
  s.a = at, at += a_slots(c) * a_stage_bytes(c);
  s.b = at, at += c.stages * b_stage_bytes(c);
  s.d = at, at += slots * panel_bytes(c);
  s.parts = at, at += parts_bytes(c);
  s.scale_a = at, at += a_slots(c) * scale_a_stage_bytes(c);
  s.scale_b = at, at += c.stages * scale_b_stage_bytes(c);
  s.full = at, at += c.stages * 8;
  s.empty = at, at += c.stages * 8;
  s.d_full = at, at += slots * 8;
  s.d_empty = at, at += slots * 8;
  s.parts_full = at, at += 8;
  s.parts_empty = at, at += 8;
  s.kept_full = at, at += c.kept_blocks * 8;
  s.kept_empty = at, at += c.kept_blocks * 8;
  s.bytes = at;
  return s;
}
/// What TMA writes of A and its scales for a step.
DG_HD constexpr uint32_t loaded_a_bytes(const GemmConfig& c, uint32_t m) {
  return a_box_rows(c, m) * cluster_n(c) * kTileK + (c.scaled_a ? scale_a_box_rows(c, m) * 4 : 0);
}
/// What TMA writes into a stage.
DG_HD constexpr uint32_t loaded_stage_bytes(const GemmConfig& c, uint32_t m) {
  return (c.kept_blocks > 0 ? 0 : loaded_a_bytes(c, m)) + b_stage_bytes(c) + scale_b_bytes(c);
}
/// Shared memory that a CTA may have.
DG_HD constexpr uint32_t max_smem_bytes(const GemmConfig& c) {
  return kSmemBytesOfSm / c.ctas_per_sm - kSmemBytesReserved;
}
/// Panels that are staged at a time: what the stages leave room for. With all of a tile's panels the math warps leave it
/// to TMA and go on to the next tile at once.
DG_HD constexpr uint32_t panel_slots(const GemmConfig& c) {
  uint32_t slots = panels(c);
  while (slots > 1 && smem_layout(c, slots).bytes > max_smem_bytes(c)) --slots;
  return slots;
}
DG_HD constexpr SmemLayout smem_layout(const GemmConfig& c) { return smem_layout(c, panel_slots(c)); }

/// Why a config cannot run, or null. The single statement of the constraints: the kernel, the plan and the tests ask
/// it.
DG_HD constexpr const char* why_illegal(const GemmConfig& c, uint32_t smem_bytes_of_cta = kMaxSmemBytes) {
  if (c.a_type != DType::e4m3 && c.a_type != DType::e5m2) return "a_type must be e4m3 or e5m2";
  if (c.b_type != DType::e4m3 && c.b_type != DType::e5m2) return "b_type must be e4m3 or e5m2";
  if (c.d_type != DType::bf16 && c.d_type != DType::f32) return "d_type must be bf16 or f32";
  if (c.scale_rows_b != 1 && c.scale_rows_b != 128) return "scale_rows_b must be 1 or 128";
  if (c.tile_m != 64 && c.tile_m != 128 && c.tile_m != 256) return "tile_m must be 64, 128 or 256";
  if (c.tile_n < 16 || c.tile_n > 256 || c.tile_n % 16 != 0) return "tile_n must be a multiple of 16 from 16 to 256";
  if (c.stages < 2 || c.stages > 32) return "stages must be 2 to 32";
  if (c.unroll < 1 || c.unroll > 8) return "unroll must be 1 to 8";
  if (c.ctas_per_sm != 1 && (c.ctas_per_sm != 2 || c.tile_m == 256))
    return "ctas_per_sm must be 1, or 2 with tile_m 64 or 128";
  if (c.multicast != Multicast::none && (c.cluster != 2 || c.split_k))
    return "multicast is for a cluster of 2 without split_k";
  if (c.multicast == Multicast::none && (c.cluster > 1) != c.split_k)
    return "cluster must be 1 with neither multicast nor split_k, and more with one of them";
  if (c.cluster != 1 && c.cluster != 2 && c.cluster != 4 && c.cluster != 8) return "cluster must be 1, 2, 4 or 8";
  if (stored_cols(c) * splits(c) != uint32_t(c.tile_n) || stored_cols(c) % 16 != 0)
    return "split_k must leave a multiple of 16 columns of a tile to each CTA";
  const bool experts = c.layout != Layout::dense && c.layout != Layout::k_grouped;
  if (experts && (c.multicast == Multicast::b || c.accumulate || c.scale_rows_b == 1))
    return "experts share no B between tiles, have no C, and 128 rows of B share a scale";
  if (c.kept_blocks < 0 || c.kept_blocks > 32) return "kept_blocks must be 0 to 32";
  if (c.kept_blocks > 0 && (c.layout != Layout::dense || c.multicast == Multicast::a || c.split_k))
    return "A is kept by dense kernels that neither share A nor split k";
  if (c.layout == Layout::k_grouped && (!c.accumulate || c.d_type != DType::f32))
    return "k_grouped accumulates into f32";
  // Per thread: one wave's accumulators, the promoted sums of all waves, B's scales, and some 40 for addresses and A's.
  const uint32_t scales_b = c.scale_rows_b == 1 ? c.tile_n / 4 : 0;
  if (wave_cols(c) / 2 + row_waves(c) * c.tile_n / 2 + scales_b + 40 > math_registers(c))
    return "tile_m × tile_n needs more registers than a math thread has";
  if (smem_layout(c).bytes > min(smem_bytes_of_cta, max_smem_bytes(c)))
    return "stages × tile needs more shared memory than a block may use";
  return nullptr;
}

}  // namespace deep_gemm
