// What the load role starts for a step, by one thread: TMA loads of A, B and the scales of single rows. `slot`: where to, of the
// ring that `full` belongs to, on which TMA counts the bytes. `block`: from where on, in units of 128 of k.
#pragma once

#include <deep_gemm/gemm/args.cuh>
#include <deep_gemm/ptx/control.cuh>
#include <deep_gemm/ptx/tma.cuh>

namespace deep_gemm {

template <GemmConfig C>
struct Load {
  static constexpr SmemLayout kSmem = smem_layout(C);
  static constexpr bool kGroupsOfA = C.layout == Layout::masked;
  static constexpr bool kGroupsOfB = C.layout != Layout::dense && C.layout != Layout::k_grouped;
  using Args = KernelArgs<C>;

  /// One operand's part of a stage. `kShare`: this many CTAs of the cluster load a part each and multicast it. `kStream`, B
  /// only: its lines leave L2 before all others.
  template <uint32_t kRows, uint32_t kShare, bool kGroups, bool kStream = false>
  DG_DEVICE static void operand(uint8_t* slot, const TensorMap& map, uint64_t* full, uint32_t k, uint32_t row,
                                uint32_t group) {
    constexpr uint32_t kPart = kRows / kShare, kAll = (1 << kShare) - 1;
    const uint32_t first = kShare == 1 ? 0 : ptx::cluster_rank() * kPart;
    slot += first * kTileK;
    if constexpr (kStream) {
      const uint64_t policy = ptx::evict_first_policy();
      if constexpr (kGroups) ptx::tma_load_3d_hint(slot, map, full, policy, k, row, group);
      if constexpr (kShare == 1 && !kGroups) ptx::tma_load_2d_hint(slot, map, full, policy, k, row);
      if constexpr (kShare > 1 && !kGroups)
        ptx::tma_load_2d_multicast_hint(slot, map, full, policy, k, row + first, kAll);
    } else {
      if constexpr (kShare == 1 && kGroups) ptx::tma_load_3d(slot, map, full, k, row, group);
      if constexpr (kShare == 1 && !kGroups) ptx::tma_load_2d(slot, map, full, k, row);
      if constexpr (kShare > 1 && kGroups) ptx::tma_load_3d_multicast(slot, map, full, k, row + first, group, kAll);
      if constexpr (kShare > 1 && !kGroups) ptx::tma_load_2d_multicast(slot, map, full, k, row + first, kAll);
    }
  }

  DG_DEVICE static const TensorMap& map_a(const Args& args, const Tile& tile) {
    if constexpr (C.layout == Layout::k_grouped) {
      return args.maps[tile.group].a;
    } else {
      return args.a;
    }
  }
  DG_DEVICE static const TensorMap& map_b(const Args& args, const Tile& tile) {
    if constexpr (C.layout == Layout::k_grouped) {
      return args.maps[tile.group].b;
    } else {
      return args.b;
    }
  }

  DG_DEVICE static void a(uint8_t* smem, uint32_t slot, uint64_t* full, const Args& args, const Tile& tile,
                          uint32_t block) {
    operand<C.tile_m, cluster_n(C), kGroupsOfA>(smem + kSmem.a + slot * a_stage_bytes(C), map_a(args, tile), full,
                                                block * kTileK, tile.row, tile.group);
  }
  DG_DEVICE static void b(uint8_t* smem, uint32_t slot, uint64_t* full, const Args& args, const Tile& tile,
                          uint32_t block) {
    uint8_t* slot_of_b = smem + kSmem.b + slot * b_stage_bytes(C);
    if (C.layout != Layout::k_grouped && args.stream_b) {
      operand<C.tile_n, cluster_m(C), kGroupsOfB, true>(slot_of_b, map_b(args, tile), full, block * kTileK, tile.col,
                                                        tile.group);
    } else {
      operand<C.tile_n, cluster_m(C), kGroupsOfB>(slot_of_b, map_b(args, tile), full, block * kTileK, tile.col,
                                                  tile.group);
    }
  }
  DG_DEVICE static void scales_of_a(uint8_t* smem, uint32_t slot, uint64_t* full, const Args& args, const Tile& tile,
                                    uint32_t block) {
    uint8_t* scale_a = smem + kSmem.scale_a + slot * scale_a_stage_bytes(C);
    if constexpr (C.layout == Layout::k_grouped) block += args.first_block[tile.group];
    if constexpr (C.scaled_a && C.layout == Layout::masked) {
      ptx::tma_load_3d(scale_a, args.scale_a, full, tile.row, block, tile.group);
    } else if constexpr (C.scaled_a && C.layout == Layout::offsets) {
      ptx::tma_load_3d(scale_a, args.scale_a, full, 0, tile.row / 4, block);
    } else if constexpr (C.scaled_a) {
      ptx::tma_load_2d(scale_a, args.scale_a, full, tile.row, block);
    }
  }
  /// Those of its rows; scales of 128 rows are loaded by the math warps: see BlockScales.
  DG_DEVICE static void scales_of_b(uint8_t* smem, uint32_t slot, uint64_t* full, const Args& args, const Tile& tile,
                                    uint32_t block) {
    if constexpr (C.layout == Layout::k_grouped) block += args.first_block[tile.group];
    if constexpr (C.scale_rows_b == 1)
      ptx::tma_load_2d(smem + kSmem.scale_b + slot * scale_b_stage_bytes(C), args.scale_b, full, tile.col, block);
  }
};

}  // namespace deep_gemm
