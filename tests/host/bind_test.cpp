// Tensor maps as plain numbers, before any driver sees them.
#include "gemm/bind.h"

#include <gtest/gtest.h>

#include <deep_gemm/gemm/layout.cuh>

#include "gemm/plan.h"
#include "gemm/scratch.h"

namespace deep_gemm {
namespace {

using Spec = cuda::TensorMapSpec;

void* address(std::uintptr_t value) { return reinterpret_cast<void*>(value); }

TensorView view(std::uintptr_t at, DType dtype, std::array<int64_t, 2> shape, std::array<int64_t, 2> strides) {
  return {address(at), dtype, 2, {shape[0], shape[1]}, {strides[0], strides[1]}, {DeviceType::cuda, 0}};
}

/// 300 × 700 · (520 × 700)ᵀ with pitches of their own.
struct Call {
  Problem problem{.m = 300, .n = 520, .k = 700};
  Fp8Tensor a{view(0x10000, DType::e4m3, {300, 700}, {720, 1}), view(0x20000, DType::f32, {300, 6}, {1, 304})};
  Fp8Tensor b{view(0x30000, DType::e4m3, {520, 700}, {704, 1}), view(0x40000, DType::f32, {5, 6}, {6, 1})};
  TensorView d = view(0x50000, DType::bf16, {300, 520}, {528, 1});

  MapSpecs specs(const GemmConfig& config) const {
    return map_specs(plan(problem, DeviceInfo::h100(), config), problem, a, b, d);
  }
};

TEST(Bind, MapsOfOneCta) {
  const MapSpecs specs = Call().specs({.tile_m = 128, .tile_n = 112});
  EXPECT_EQ(specs.a, (Spec{.dtype = DType::e4m3,
                           .base = address(0x10000),
                           .dims = {700, 300},
                           .stride_bytes = {720},
                           .box = {128, 128},
                           .swizzle = Spec::Swizzle::b128}));
  EXPECT_EQ(specs.b, (Spec{.dtype = DType::e4m3,
                           .base = address(0x30000),
                           .dims = {700, 520},
                           .stride_bytes = {704},
                           .box = {128, 112},
                           .swizzle = Spec::Swizzle::b128,
                           .l2_fetch_bytes = 128}));  // 15 tiles: B is streamed
  EXPECT_EQ(specs.scale_a, (Spec{.dtype = DType::f32,
                                 .base = address(0x20000),
                                 .dims = {300, 6},
                                 .stride_bytes = {304 * 4},
                                 .box = {128, 1},
                                 .swizzle = Spec::Swizzle::none}));
  EXPECT_EQ(specs.d, (Spec{.dtype = DType::bf16,
                           .base = address(0x50000),
                           .dims = {520, 300},
                           .stride_bytes = {528 * 2},
                           .box = {16, 64},
                           .swizzle = Spec::Swizzle::b32}));
}

TEST(Bind, CtasThatShareAnOperandLoadHalfOfIt) {
  const Call call;
  const GemmConfig share_a{.tile_m = 128, .tile_n = 96, .cluster = 2, .multicast = Multicast::a};
  EXPECT_EQ(call.specs(share_a).a.box[1], 64u);
  EXPECT_EQ(call.specs(share_a).b.box[1], 96u);
  EXPECT_EQ(call.specs(share_a).scale_a.box[0], 128u);
  const GemmConfig share_b{.tile_m = 256, .tile_n = 96, .stages = 3, .cluster = 2, .multicast = Multicast::b};
  EXPECT_EQ(call.specs(share_b).a.box[1], 256u);
  EXPECT_EQ(call.specs(share_b).b.box[1], 48u);
  EXPECT_EQ(call.specs(share_b).scale_a.box[0], 256u);
}

TEST(Bind, BoxesHaveNoMoreRowsThanA) {
  Call call;
  for (const int64_t m : {int64_t{1}, int64_t{5}, int64_t{63}, int64_t{64}, int64_t{65}}) {
    call.problem.m = call.a.data.shape[0] = call.a.scale.shape[0] = call.d.shape[0] = m;
    const GemmConfig alone{.tile_m = 64}, share_a{.tile_m = 64, .cluster = 2, .multicast = Multicast::a};
    const auto rows = static_cast<uint32_t>(std::min<int64_t>(m, 64));
    const MapSpecs specs = call.specs(alone);
    EXPECT_EQ(specs.a.box[1], rows);
    EXPECT_EQ(specs.scale_a.box[0], (rows + 3) / 4 * 4) << "TMA writes whole 16 bytes";
    EXPECT_EQ(loaded_stage_bytes(alone, static_cast<uint32_t>(m)),
              (rows + 128) * 128 + static_cast<uint32_t>(specs.scale_a.box[0]) * 4);
    EXPECT_EQ(call.specs(share_a).a.box[1], 32u) << "each CTA brings half of the tile, rows or not";
  }
}

TEST(Bind, ScalesOfRowsOfB) {
  Call call;
  call.problem.scale_rows_b = 1;
  call.b.scale = view(0x40000, DType::f32, {520, 6}, {1, 520});
  const GemmConfig config{.scale_rows_b = 1, .tile_n = 112};
  EXPECT_EQ(call.specs(config).scale_b, (Spec{.dtype = DType::f32,
                                              .base = address(0x40000),
                                              .dims = {520, 6},
                                              .stride_bytes = {520 * 4},
                                              .box = {112, 1},
                                              .swizzle = Spec::Swizzle::none}));
  EXPECT_EQ(Call().specs({}).scale_b, Spec{}) << "those of blocks are not read by TMA";
}

TEST(Bind, StoreBoxesHaveTheWidthOfTheirSwizzle) {
  Call call;
  const auto expect_box = [&](int tile_n, uint32_t cols, Spec::Swizzle swizzle) {
    const Spec d = call.specs({.d_type = call.problem.d_type, .tile_n = tile_n}).d;
    EXPECT_EQ(d.box, (std::array<uint32_t, 4>{cols, 64, 0, 0})) << tile_n;
    EXPECT_EQ(d.swizzle, swizzle) << tile_n;
  };
  expect_box(128, 64, Spec::Swizzle::b128);
  expect_box(96, 32, Spec::Swizzle::b64);
  expect_box(80, 16, Spec::Swizzle::b32);
  call.problem.d_type = call.d.dtype = DType::f32;
  expect_box(128, 32, Spec::Swizzle::b128);
  expect_box(96, 32, Spec::Swizzle::b128);
  expect_box(80, 16, Spec::Swizzle::b64);
}

TEST(Bind, CtasThatSplitKStoreAPartOfTheTileEach) {
  const Spec d = Call().specs({.tile_m = 64, .tile_n = 128, .cluster = 4, .split_k = true}).d;
  EXPECT_EQ(d.box, (std::array<uint32_t, 4>{32, 64, 0, 0}));
  EXPECT_EQ(d.swizzle, Spec::Swizzle::b64);
}

TEST(Bind, BoxesCoverTheStagesOfEveryCandidate) {
  const Call call;
  for (const GemmConfig& c : candidates(call.problem, DeviceInfo::h100())) {
    const MapSpecs specs = call.specs(c);
    EXPECT_EQ(specs.a.box[0] * specs.a.box[1] * cluster_n(c), a_stage_bytes(c));
    EXPECT_EQ(specs.b.box[0] * specs.b.box[1] * cluster_m(c), b_stage_bytes(c));
    EXPECT_EQ(specs.scale_a.box[0] * specs.scale_a.box[1] * 4, scale_a_stage_bytes(c));
    EXPECT_EQ(loaded_a_bytes(c, 300), a_stage_bytes(c) + scale_a_bytes(c));
    EXPECT_EQ(loaded_stage_bytes(c, 300), (c.kept_blocks > 0 ? 0 : loaded_a_bytes(c, 300)) + b_stage_bytes(c));
    EXPECT_EQ(specs.d.box[0] * specs.d.box[1] * d_bytes(c), panel_pitch(c) * store_rows(c));
    for (const Spec& spec : {specs.a, specs.b, specs.scale_a, specs.d}) {
      EXPECT_LE(std::max(spec.box[0], spec.box[1]), 256u);
      EXPECT_EQ(spec.stride_bytes[0] % 16, 0u);
    }
  }
}

TEST(Bind, LeavesOutWhatIsNotThere) {
  Call call;
  call.problem.scaled_a = false, call.a.scale = {};
  call.d.strides[0] = 521;
  MapSpecs specs = call.specs({.scaled_a = false});
  EXPECT_EQ(specs.scale_a, Spec{});
  EXPECT_EQ(specs.d, Spec{}) << "D's pitch is no multiple of 16 bytes";
  EXPECT_NE(specs.a.base, nullptr);

  call.problem.k = call.a.data.shape[1] = call.b.data.shape[1] = 0;
  specs = call.specs({.scaled_a = false});
  EXPECT_EQ(specs.a.dims, (std::array<uint64_t, 4>{16, 1, 1, 1})) << "TMA knows no empty tensors";
  EXPECT_EQ(specs.b.dims, specs.a.dims);
  EXPECT_EQ(specs.b.base, specs.a.base);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(specs.a.base) / 16, reinterpret_cast<std::uintptr_t>(call.d.data) / 16)
      << "an address that is valid though nothing is read from it";
}

TEST(Bind, StridesOfSingleRowsAreMultiplesOf16) {
  Call call;
  call.problem.m = call.a.data.shape[0] = call.a.scale.shape[0] = call.d.shape[0] = 1;
  for (const int64_t garbage : {int64_t{-3}, int64_t{0}, int64_t{1} << 60}) {
    call.a.data.strides[0] = call.a.scale.strides[0] = call.d.strides[0] = garbage;
    const MapSpecs specs = call.specs({});
    for (const Spec& spec : {specs.a, specs.scale_a, specs.d}) {
      ASSERT_NE(spec.base, nullptr);
      EXPECT_EQ(spec.stride_bytes[0] % 16, 0u);
      EXPECT_GT(spec.stride_bytes[0], 0u);
      EXPECT_LT(spec.stride_bytes[0], uint64_t{1} << 40) << "the most that a tensor map takes";
    }
  }
}

TEST(Bind, ScalesThatTmaReadsAsTheyLie) {
  const auto aligned = [](std::uintptr_t at, std::array<int64_t, 2> shape, std::array<int64_t, 2> strides) {
    return is_mn_major_aligned(view(at, DType::f32, shape, strides));
  };
  EXPECT_TRUE(aligned(0x1000, {300, 6}, {1, 300}));
  EXPECT_TRUE(aligned(0x1000, {299, 6}, {1, 300}));
  EXPECT_TRUE(aligned(0x1010, {300, 6}, {1, 1000}));
  EXPECT_FALSE(aligned(0x1000, {300, 6}, {6, 1})) << "K-major";
  EXPECT_FALSE(aligned(0x1000, {299, 6}, {1, 299})) << "pitch";
  EXPECT_FALSE(aligned(0x1004, {300, 6}, {1, 300})) << "base";
  EXPECT_FALSE(aligned(0x1000, {300, 6}, {2, 600})) << "spread";
  EXPECT_FALSE(aligned(0x1000, {300, 6}, {1, 0})) << "broadcast";
  EXPECT_FALSE(aligned(0x1000, {300, 6}, {1, -300})) << "backwards";
  EXPECT_FALSE(aligned(0x1000, {300, 6}, {1, 4})) << "columns overlap";
  // Where there is one index, its stride says nothing.
  EXPECT_TRUE(aligned(0x1000, {300, 1}, {1, 7}));
  EXPECT_TRUE(aligned(0x1000, {1, 6}, {-9, 4}));
  EXPECT_TRUE(aligned(0x1000, {1, 1}, {-9, -9}));
  EXPECT_FALSE(aligned(0x1000, {1, 6}, {6, 1}));
}

TEST(Bind, WorkspaceIsForScalesThatTmaCannotRead) {
  Call call;
  EXPECT_EQ(workspace_bytes(call.a, call.b), 0);
  call.a.scale.strides = {6, 1};  // K-major
  EXPECT_EQ(workspace_bytes(call.a, call.b), 300 * 6 * 4);
  call.b.scale = view(0x40000, DType::f32, {519, 6}, {6, 1});
  EXPECT_EQ(workspace_bytes(call.a, call.b), 300 * 6 * 4) << "scales of blocks of B are not read by TMA";
  EXPECT_EQ(workspace_bytes(call.a, call.b, {1, 1, 128}), (300 + 520) * 6 * 4);
  call.a.scale.rank = 1;
  EXPECT_EQ(workspace_bytes(call.a, call.b), 0);
  call.a.data.device = {};
  EXPECT_EQ(workspace_bytes(call.a, call.b, {1, 1, 128}), 0) << "the CPU reads any strides";
}

TEST(Bind, ResultsThatTmaCanWrite) {
  const auto storable = [](std::uintptr_t at, DType dtype, std::array<int64_t, 2> shape, int64_t pitch) {
    return can_be_stored_by_tma(view(at, dtype, shape, {pitch, 1}));
  };
  EXPECT_TRUE(storable(0x1000, DType::bf16, {300, 520}, 520));
  EXPECT_TRUE(storable(0x1010, DType::bf16, {300, 519}, 520));
  EXPECT_FALSE(storable(0x1000, DType::bf16, {300, 520}, 524));
  EXPECT_TRUE(storable(0x1000, DType::f32, {300, 520}, 524));
  EXPECT_FALSE(storable(0x1000, DType::f32, {300, 520}, 522));
  EXPECT_FALSE(storable(0x1002, DType::bf16, {300, 520}, 520));
  EXPECT_FALSE(storable(0x1008, DType::f32, {300, 520}, 520));
  EXPECT_TRUE(storable(0x1000, DType::bf16, {1, 520}, 3));
}

}  // namespace
}  // namespace deep_gemm
