#include "gemm/bind.h"

#include <bit>

#include <deep_gemm/gemm/layout.cuh>

#include "gemm/check.h"

namespace deep_gemm {

namespace {

using Spec = cuda::TensorMapSpec;

bool is_multiple_of_16(const void* data, int64_t pitch_bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && pitch_bytes % 16 == 0;
}

/// Bytes between rows; a multiple of 16 that nothing reads where there is only one row.
uint64_t pitch_bytes(const TensorView& t, std::size_t dim) {
  return static_cast<uint64_t>(stride_or(t, dim, 16) * size_of(t.dtype));
}

Spec operand_map(const TensorView& t, uint32_t rows) {
  return {.dtype = t.dtype,
          .base = t.data,
          .dims = {static_cast<uint64_t>(t.shape[1]), static_cast<uint64_t>(t.shape[0])},
          .stride_bytes = {pitch_bytes(t, 0)},
          .box = {kTileK, rows},
          .swizzle = Spec::Swizzle::b128};
}

Spec::Swizzle swizzle_of(uint32_t bytes) {
  return bytes == 128 ? Spec::Swizzle::b128 : bytes == 64 ? Spec::Swizzle::b64 : Spec::Swizzle::b32;
}

TensorMap encoded(const Spec& spec) { return std::bit_cast<TensorMap>(cuda::encode(spec)); }

}  // namespace

bool is_mn_major_aligned(const TensorView& scale) {
  return stride_or(scale, 0, 1) == 1 && is_multiple_of_16(scale.data, stride_or(scale, 1, 4) * 4) &&
         stride_or(scale, 1, scale.shape[0]) >= scale.shape[0];
}

bool can_be_stored_by_tma(const TensorView& d) {
  return is_multiple_of_16(d.data, stride_or(d, 0, 16) * size_of(d.dtype));
}

MapSpecs map_specs(const GemmPlan& plan, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b,
                   const TensorView& d) {
  const GemmConfig& c = plan.config;
  MapSpecs specs;
  if (problem.k > 0) {
    specs.a = operand_map(a.data, static_cast<uint32_t>(c.tile_m) / cluster_n(c));
    specs.b = operand_map(b.data, static_cast<uint32_t>(c.tile_n) / cluster_m(c));
    if (problem.scaled_a)
      specs.scale_a = {.dtype = DType::f32,
                       .base = a.scale.data,
                       .dims = {static_cast<uint64_t>(a.scale.shape[0]), static_cast<uint64_t>(a.scale.shape[1])},
                       .stride_bytes = {pitch_bytes(a.scale, 1)},
                       .box = {static_cast<uint32_t>(c.tile_m), 1},
                       .swizzle = Spec::Swizzle::none};
  }
  if (can_be_stored_by_tma(d))
    specs.d = {.dtype = d.dtype,
               .base = d.data,
               .dims = {static_cast<uint64_t>(problem.n), static_cast<uint64_t>(problem.m)},
               .stride_bytes = {pitch_bytes(d, 0)},
               .box = {panel_cols(c), static_cast<uint32_t>(c.tile_m)},
               .swizzle = swizzle_of(panel_pitch(c))};
  return specs;
}

GemmArgs bind(const GemmPlan& plan, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
              const std::optional<TensorView>& c) {
  const MapSpecs specs = map_specs(plan, problem, a, b, d);
  GemmArgs args{};
  if (specs.a.base) args.a = encoded(specs.a);
  if (specs.b.base) args.b = encoded(specs.b);
  if (specs.scale_a.base) args.scale_a = encoded(specs.scale_a);
  if (specs.d.base) args.d = encoded(specs.d);
  if (b.scale) {
    args.scale_b = static_cast<const float*>(b.scale.data);
    args.scale_b_stride_n = stride_or(b.scale, 0, 0);
    args.scale_b_stride_k = stride_or(b.scale, 1, 0);
  }
  if (c) {
    args.c = c->data;
    args.c_pitch = stride_or(*c, 0, problem.n);
  }
  args.d_data = d.data;
  args.d_pitch = stride_or(d, 0, problem.n);
  args.m = static_cast<uint32_t>(problem.m);
  args.n = static_cast<uint32_t>(problem.n);
  args.k = static_cast<uint32_t>(problem.k);
  args.order = TileOrder::make(plan.config, args.m, args.n, static_cast<uint32_t>(plan.raster_tiles),
                               static_cast<uint32_t>(plan.grid));
  if (specs.d.base) args.tma_cols = problem.n * size_of(d.dtype) % 16 == 0 ? UINT32_MAX : args.n;
  return args;
}

}  // namespace deep_gemm
