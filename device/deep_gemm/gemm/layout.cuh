// Everything that follows from a GemmConfig alone: thread counts, the shared-memory map, and what is legal. Host and
// device; no number here is written a second time anywhere.
#pragma once

#include <deep_gemm/core/types.cuh>

namespace deep_gemm {

inline constexpr uint32_t kTileK = 128;               // one scale for 128 of k
inline constexpr uint32_t kScaleRows = 128;           // one scale of B for 128 of n
inline constexpr uint32_t kMaxSmemBytes = 232448;     // sm_90: 227 KiB for a block
inline constexpr uint32_t kWarpgroup = 128;           // threads
inline constexpr uint32_t kLoadThreads = kWarpgroup;  // a whole warpgroup, since setmaxnreg speaks to warpgroups

DG_HD constexpr uint32_t gcd(uint32_t a, uint32_t b) { return b == 0 ? a : gcd(b, a % b); }

/// Math warpgroups; each computes `waves` times 64 rows of the tile.
DG_HD constexpr uint32_t math_warpgroups(const GemmConfig& c) { return c.tile_m == 64 ? 1 : 2; }
DG_HD constexpr uint32_t math_threads(const GemmConfig& c) { return math_warpgroups(c) * kWarpgroup; }
DG_HD constexpr uint32_t num_threads(const GemmConfig& c) { return math_threads(c) + kLoadThreads; }
DG_HD constexpr uint32_t waves(const GemmConfig& c) { return c.tile_m / (64 * math_warpgroups(c)); }
DG_HD constexpr uint32_t cluster_m(const GemmConfig& c) { return c.multicast == Multicast::b ? c.cluster : 1; }
DG_HD constexpr uint32_t cluster_n(const GemmConfig& c) { return c.multicast == Multicast::a ? c.cluster : 1; }

/// Units, which are what a cluster computes at a time, along m.
DG_HD constexpr uint32_t units_m(const GemmConfig& c, uint32_t m) { return ceil_div(m, c.tile_m * cluster_m(c)); }

/// Whether a tile's last rows may belong to another group, and so must not be stored with it.
DG_HD constexpr bool cuts_tiles(const GemmConfig& c) {
  return c.layout == Layout::offsets || c.layout == Layout::masked ||
         (c.layout == Layout::contiguous && c.tile_m > 128);
}

/// A tile starts at a multiple of this within the 128 columns that share a scale of B.
DG_HD constexpr uint32_t scale_offset_step(const GemmConfig& c) { return gcd(c.tile_n, kScaleRows); }
/// Rows of B's scales that a tile can touch at most.
DG_HD constexpr uint32_t scale_b_rows(const GemmConfig& c) {
  return ceil_div(kScaleRows - scale_offset_step(c) + c.tile_n, kScaleRows);
}

/// A panel: all rows of a tile and the columns of D that one TMA store takes, the widest swizzle atom (128, 64 or 32
/// bytes) that divides the tile.
DG_HD constexpr uint32_t d_bytes(const GemmConfig& c) { return c.d_type == DType::f32 ? 4 : 2; }
DG_HD constexpr uint32_t panel_cols(const GemmConfig& c) { return gcd(c.tile_n, 128 / d_bytes(c)); }
DG_HD constexpr uint32_t panel_pitch(const GemmConfig& c) { return panel_cols(c) * d_bytes(c); }
DG_HD constexpr uint32_t panel_bytes(const GemmConfig& c) { return c.tile_m * panel_pitch(c); }
DG_HD constexpr uint32_t panels(const GemmConfig& c) { return c.tile_n / panel_cols(c); }

/// Byte offsets into the dynamic shared memory of a CTA, which is 1024-aligned.
struct SmemLayout {
  uint32_t a, b, d, scale_a, full, empty, d_full, d_empty, bytes;
};
DG_HD constexpr uint32_t a_stage_bytes(const GemmConfig& c) { return c.tile_m * kTileK; }
DG_HD constexpr uint32_t b_stage_bytes(const GemmConfig& c) { return c.tile_n * kTileK; }
/// A's scales for a stage. TMA reads from multiples of 16 bytes on, so up to 3 more where a tile may begin at any row.
DG_HD constexpr uint32_t scale_a_rows(const GemmConfig& c) { return c.tile_m + (c.layout == Layout::offsets ? 4 : 0); }
DG_HD constexpr uint32_t scale_a_bytes(const GemmConfig& c) { return c.scaled_a ? scale_a_rows(c) * 4 : 0; }
DG_HD constexpr uint32_t scale_a_stage_bytes(const GemmConfig& c) { return align_up(scale_a_bytes(c), 128); }
DG_HD constexpr SmemLayout smem_layout(const GemmConfig& c, uint32_t slots) {
  SmemLayout s{};
  uint32_t at = 0;
  s.a = at, at += c.stages * a_stage_bytes(c);
  s.b = at, at += c.stages * b_stage_bytes(c);
  s.d = at, at += slots * panel_bytes(c);
  s.scale_a = at, at += c.stages * scale_a_stage_bytes(c);
  s.full = at, at += c.stages * 8;
  s.empty = at, at += c.stages * 8;
  s.d_full = at, at += slots * 8;
  s.d_empty = at, at += slots * 8;
  s.bytes = at;
  return s;
}
/// Panels that are staged at a time: what the stages leave room for. With all of a tile's panels the math warps leave it
/// to TMA and go on to the next tile at once.
DG_HD constexpr uint32_t panel_slots(const GemmConfig& c) {
  uint32_t slots = panels(c);
  while (slots > 1 && smem_layout(c, slots).bytes > kMaxSmemBytes) --slots;
  return slots;
}
DG_HD constexpr SmemLayout smem_layout(const GemmConfig& c) { return smem_layout(c, panel_slots(c)); }

/// Why a config cannot run, or null. The single statement of the constraints: the kernel, the plan and the tests ask
/// it.
DG_HD constexpr const char* why_illegal(const GemmConfig& c, uint32_t max_smem_bytes = kMaxSmemBytes) {
  if (c.d_type != DType::bf16 && c.d_type != DType::f32) return "d_type must be bf16 or f32";
  if (c.tile_m != 64 && c.tile_m != 128 && c.tile_m != 256) return "tile_m must be 64, 128 or 256";
  if (c.tile_n < 16 || c.tile_n > 256 || c.tile_n % 16 != 0) return "tile_n must be a multiple of 16 from 16 to 256";
  if (c.layout != Layout::dense && (c.multicast == Multicast::b || c.accumulate))
    return "groups share no B between tiles and have no C";
  if (c.stages < 2 || c.stages > 32) return "stages must be 2 to 32";
  if (c.unroll < 1 || c.unroll > 8) return "unroll must be 1 to 8";
  if (c.cluster != 1 && c.cluster != 2) return "cluster must be 1 or 2";
  if ((c.cluster == 1) != (c.multicast == Multicast::none)) return "multicast must be none exactly when cluster is 1";
  // Per thread: one wave's accumulators, the promoted sums of all waves, and some 40 for addresses and scales.
  if (c.tile_n / 2 * (1 + waves(c)) + 40 > (math_warpgroups(c) == 1 ? 248 : 232))
    return "tile_m × tile_n needs more registers than a math thread has";
  if (smem_layout(c).bytes > max_smem_bytes) return "stages × tile needs more shared memory than a block may use";
  return nullptr;
}

}  // namespace deep_gemm
