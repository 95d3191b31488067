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

uint64_t extent(const TensorView& t, std::size_t dim) { return static_cast<uint64_t>(t.shape[dim]); }

/// [rows, k], or [groups, rows, k].
Spec operand_map(const TensorView& t, uint32_t rows) {
  const auto last = static_cast<std::size_t>(t.rank) - 1;
  Spec spec{.dtype = t.dtype,
            .rank = t.rank,
            .base = t.data,
            .dims = {extent(t, last), extent(t, last - 1)},
            .stride_bytes = {pitch_bytes(t, last - 1)},
            .box = {kTileK, rows},
            .swizzle = Spec::Swizzle::b128};
  if (t.rank == 3) spec.dims[2] = extent(t, 0), spec.stride_bytes[1] = pitch_bytes(t, 0), spec.box[2] = 1;
  return spec;
}

/// MN-major scales [rows, blocks], or [groups, rows, blocks].
Spec scale_map(const TensorView& t, uint32_t rows) {
  const auto last = static_cast<std::size_t>(t.rank) - 1;
  Spec spec{.dtype = DType::f32,
            .rank = t.rank,
            .base = t.data,
            .dims = {extent(t, last - 1), extent(t, last)},
            .stride_bytes = {pitch_bytes(t, last)},
            .box = {rows, 1},
            .swizzle = Spec::Swizzle::none};
  if (t.rank == 3) spec.dims[2] = extent(t, 0), spec.stride_bytes[1] = pitch_bytes(t, 0), spec.box[2] = 1;
  return spec;
}

Spec scale_a_map(const GemmConfig& c, const TensorView& t, uint32_t rows) {
  Spec spec = scale_map(t, rows);
  if (c.layout == Layout::offsets) {  // tiles begin at any row: [rows / 4, 4, blocks]
    spec.rank = 3;
    spec.dims = {4, (extent(t, 0) + 3) / 4, extent(t, 1)};
    spec.stride_bytes = {16, pitch_bytes(t, 1)};
    spec.box = {4, rows / 4, 1};
  }
  return spec;
}

Spec::Swizzle swizzle_of(uint32_t bytes) {
  return bytes == 128 ? Spec::Swizzle::b128 : bytes == 64 ? Spec::Swizzle::b64 : Spec::Swizzle::b32;
}

/// `spec`, of something without columns, such that a load from Steps::kNowhere is valid: near an address that is.
Spec nowhere(Spec spec, const void* address) {
  spec.base = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(address) / 16 * 16);
  spec.dims = {16 / static_cast<uint64_t>(size_of(spec.dtype)), 1, 1, 1};
  spec.stride_bytes = {16, 16, 16};
  return spec;
}

TensorMap encoded(const Spec& spec) { return std::bit_cast<TensorMap>(cuda::encode(spec)); }

/// D's map where tiles never reach into another group: [rows, n]. Otherwise as store_panel wants it.
Spec output_map(const GemmConfig& c, const TensorView& d, int64_t m, int64_t n) {
  Spec spec{.dtype = d.dtype,
            .base = d.data,
            .dims = {static_cast<uint64_t>(n), static_cast<uint64_t>(m)},
            .stride_bytes = {pitch_bytes(d, static_cast<std::size_t>(d.rank) - 2)},
            .box = {panel_cols(c), store_rows(c)},
            .swizzle = swizzle_of(panel_pitch(c))};
  if (!cuts_tiles(c)) return spec;
  const uint64_t pitch = spec.stride_bytes[0], rows = store_rows(c);
  spec.rank = 4;
  spec.base = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(d.data) - rows * pitch);
  spec.dims = {spec.dims[0], rows, spec.dims[1] + rows, d.rank == 3 ? extent(d, 0) : 1};
  spec.stride_bytes = {pitch, pitch, d.rank == 3 ? pitch_bytes(d, 0) : pitch};
  spec.box = {spec.box[0], spec.box[1], 1, 1};
  return spec;
}

}  // namespace

bool can_be_stored_by_tma(const TensorView& d) {
  const auto dim = static_cast<std::size_t>(d.rank) - 2;
  return is_multiple_of_16(d.data, stride_or(d, dim, 16) * size_of(d.dtype)) &&
         (d.rank == 2 || stride_or(d, 0, 16) * size_of(d.dtype) % 16 == 0);
}

MapSpecs map_specs(const GemmPlan& plan, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b,
                   const TensorView& d) {
  const GemmConfig& c = plan.config;
  const auto m = static_cast<uint32_t>(problem.m);
  const auto used = [&](const Spec& spec) { return problem.k > 0 ? spec : nowhere(spec, d.data); };
  MapSpecs specs;
  if (c.layout != Layout::k_grouped) {  // there each group has its own
    specs.a = used(operand_map(a.data, a_box_rows(c, m)));
    Spec of_b = operand_map(b.data, b_box_rows(c));
    of_b.l2_fetch_bytes = plan.b_fetch_bytes;
    specs.b = used(of_b);
  }
  if (problem.scaled_a) specs.scale_a = used(scale_a_map(c, a.scale, scale_a_box_rows(c, m)));
  if (c.scale_rows_b == 1) specs.scale_b = used(scale_map(b.scale, static_cast<uint32_t>(c.tile_n)));
  if (can_be_stored_by_tma(d)) specs.d = output_map(c, d, problem.m, problem.n);
  return specs;
}

GemmArgs bind(const GemmPlan& plan, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
              const GroupRows& group_rows, const std::optional<TensorView>& c) {
  const MapSpecs specs = map_specs(plan, problem, a, b, d);
  GemmArgs args{};
  if (specs.a.base) args.a = encoded(specs.a);
  if (specs.b.base) args.b = encoded(specs.b);
  if (specs.scale_a.base) args.scale_a = encoded(specs.scale_a);
  if (specs.scale_b.base) args.scale_b = encoded(specs.scale_b);
  if (can_be_stored_by_tma(d)) {
    args.d = encoded(specs.d);
    args.tma_cols = problem.n * size_of(d.dtype) % 16 == 0 ? UINT32_MAX : static_cast<uint32_t>(problem.n);
  }
  if (b.scale && plan.config.scale_rows_b == 128) {
    const auto last = static_cast<std::size_t>(b.scale.rank) - 1;
    args.block_scale_b = static_cast<const float*>(b.scale.data);
    args.scale_b_stride_n = stride_or(b.scale, last - 1, 0);
    args.scale_b_stride_k = stride_or(b.scale, last, 0);
    if (b.scale.rank == 3) args.scale_b_stride_group = stride_or(b.scale, 0, 0);
  }
  if (c) {
    args.c = c->data;
    args.in_place = d.dtype == DType::f32 && c->data == d.data && c->strides == d.strides;
    args.c_pitch = stride_or(*c, static_cast<std::size_t>(c->rank) - 2, problem.n);
    if (c->rank == 3) args.c_stride_group = stride_or(*c, 0, 0);
  }
  args.d_data = d.data;
  args.d_pitch = stride_or(d, static_cast<std::size_t>(d.rank) - 2, problem.n);
  if (d.rank == 3) args.d_stride_group = stride_or(d, 0, 0);
  args.n = static_cast<uint32_t>(problem.n);
  args.k = static_cast<uint32_t>(problem.k);
  const auto order = TileOrder::make(plan.config, args.n, static_cast<uint32_t>(plan.raster_tiles));
  const auto m = static_cast<uint32_t>(problem.m);
  const uint32_t rows = units_m(plan.config, m);
  args.stream_b = plan.stream_b;
  args.stage_bytes = loaded_stage_bytes(plan.config, m);
  args.work = {.m = m,
               .clusters = static_cast<uint32_t>(plan.grid / plan.config.cluster),
               .order = order,
               .by_band = Divisor::make(order.width() * rows),
               .last_row = plan.config.layout == Layout::dense
                               ? last_start(plan.config, m, static_cast<uint32_t>(plan.config.tile_m), kRowStep)
                               : ~0u,
               .last_col = last_start(plan.config, args.n, static_cast<uint32_t>(plan.config.tile_n),
                                      scale_offset_step(plan.config)),
               .by_group = Divisor::make(order.units_n * rows),
               .groups = static_cast<uint32_t>(problem.groups),
               .alignment = static_cast<uint32_t>(group_rows.alignment),
               .zero_padding = group_rows.zero_padding,
               .layout = static_cast<const int32_t*>(group_rows.tensor.data)};
  return args;
}

KGroupedArgs bind_k_grouped(const GemmPlan& plan, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b,
                            const TensorView& d, std::span<const int> ks, std::span<const int> groups,
                            const TensorView& c) {
  const GemmConfig& config = plan.config;
  KGroupedArgs args{};
  static_cast<GemmArgs&>(args) = bind(plan, problem, a, b, d, {}, c);
  args.work.groups = static_cast<uint32_t>(groups.size());
  const auto map_of = [&](const TensorView& all, int64_t rows, int64_t first, int64_t k, uint32_t box_rows) {
    TensorView group = all;
    group.rank = 2;
    group.shape = {rows, k};
    group.strides = {all.rank == 1 ? k : all.strides[0], 1};
    group.data = static_cast<char*>(all.data) + (all.rank == 1 ? rows : 1) * first;
    const Spec spec = operand_map(group, box_rows);
    return encoded(k > 0 ? spec : nowhere(spec, d.data));
  };
  for (std::size_t i = 0; i < groups.size(); ++i) {
    int64_t first = 0, block = 0;
    for (int before = 0; before < groups[i]; ++before) {
      first += ks[static_cast<std::size_t>(before)];
      block += (ks[static_cast<std::size_t>(before)] + 127) / 128;
    }
    const int k = ks[static_cast<std::size_t>(groups[i])];
    args.depth[i] = static_cast<uint32_t>(k);
    args.first_block[i] = static_cast<uint32_t>(block);
    args.of_d[i] = static_cast<uint32_t>(groups[i]);
    args.maps[i].a = map_of(a.data, problem.m, first, k, a_box_rows(config, static_cast<uint32_t>(problem.m)));
    args.maps[i].b = map_of(b.data, problem.n, first, k, b_box_rows(config));
  }
  return args;
}

}  // namespace deep_gemm
