// The quantize_ calls and to_mn_major_aligned: check, then the CPU's loop or a kernel of device/deep_gemm/layout.
#include <cstdint>
#include <limits>

#include <deep_gemm/layout/scales.cuh>

#include "context_impl.h"
#include "cpu/cpu.h"
#include "gemm/check.h"
#include "layout/layout.h"
#include "text.h"

namespace deep_gemm {
namespace {

constexpr int64_t kMaxGroups = 65535;  // CTAs along y

constexpr int64_t ceil_div_by(int64_t x, int64_t y) { return (x + y - 1) / y; }

void check_matrix(const char* function, const char* name, const TensorView& t, const Device& device) {
  if (t.rank != 2) fail(ErrorCode::invalid_argument, "{}: {} has {} dimensions, expected 2", function, name, t.rank);
  if (t.device != device)
    fail(ErrorCode::invalid_argument, "{}: {} lies on {}, expected {}, the context's device", function, name,
         name_of(t.device), name_of(device));
  for (const int64_t extent : {t.shape[0], t.shape[1]}) {
    if (extent < 0 || extent > std::numeric_limits<int32_t>::max())
      fail(ErrorCode::invalid_argument, "{}: {} is {}, expected dimensions from 0 to 2^31 - 1", function, name,
           shape_text(t));
  }
  if (t.shape[0] > 0 && t.shape[1] > 0 && t.data == nullptr)
    fail(ErrorCode::invalid_argument, "{}: {} is a null pointer, expected {} elements", function, name, shape_text(t));
  if (reinterpret_cast<std::uintptr_t>(t.data) % static_cast<std::uintptr_t>(size_of(t.dtype)) != 0)
    fail(ErrorCode::invalid_argument, "{}: {} is not aligned to its elements of {} bytes", function, name,
         size_of(t.dtype));
}

void check_rows(const char* function, const char* name, const TensorView& t) {
  if (stride_or(t, 1, 1) != 1)
    fail(ErrorCode::invalid_argument, "{}: {} has stride {} along cols, expected 1", function, name, t.strides[1]);
  if (stride_or(t, 0, t.shape[1]) < t.shape[1])
    fail(ErrorCode::invalid_argument, "{}: {} has rows {} elements apart, expected at least {}", function, name,
         t.strides[0], t.shape[1]);
}

void check_quantize(const char* function, const Device& device, const TensorView& x, const Fp8Tensor& out,
                    ScaleBlock shares) {
  check_matrix(function, "x", x, device);
  if (x.dtype != DType::bf16 && x.dtype != DType::f16 && x.dtype != DType::f32)
    fail(ErrorCode::invalid_argument, "{}: x is {}, expected bf16, f16 or f32", function, name_of(x.dtype));
  check_rows(function, "x", x);

  check_matrix(function, "out.data", out.data, device);
  if (out.data.dtype != DType::e4m3 && out.data.dtype != DType::e5m2)
    fail(ErrorCode::invalid_argument, "{}: out.data is {}, expected e4m3 or e5m2", function, name_of(out.data.dtype));
  const int64_t rows = x.shape[0], cols = x.shape[1];
  if (out.data.shape[0] != rows || out.data.shape[1] != cols)
    fail(ErrorCode::invalid_argument, "{}: out.data is {}, expected {}, the shape of x", function, shape_text(out.data),
         shape_text(x));
  check_rows(function, "out.data", out.data);

  check_matrix(function, "out.scale", out.scale, device);
  if (out.scale.dtype != DType::f32)
    fail(ErrorCode::invalid_argument, "{}: out.scale is {}, expected f32", function, name_of(out.scale.dtype));
  const int64_t scale_rows = ceil_div_by(rows, shares.rows), scale_cols = ceil_div_by(cols, shares.cols);
  if (out.scale.shape[0] != scale_rows || out.scale.shape[1] != scale_cols)
    fail(ErrorCode::invalid_argument, "{}: out.scale is {}, expected [{}, {}] = [{}, {}] for x of {}", function,
         shape_text(out.scale), scale_rows, scale_cols, shares.rows == 1 ? "rows" : "ceil(rows / 128)",
         shares.cols == 1 ? "cols" : "ceil(cols / 128)", shape_text(x));
}

bool has_aligned_rows(const TensorView& t, int64_t bytes) {
  const int64_t pitch_bytes = stride_or(t, 0, 0) * size_of(t.dtype);
  return reinterpret_cast<std::uintptr_t>(t.data) % static_cast<std::uintptr_t>(bytes) == 0 && pitch_bytes % bytes == 0;
}

void quantize(const char* function, Context& context, const TensorView& x, const Fp8Tensor& out, ScaleBlock shares,
              const QuantizeOptions& options) {
  Context::Impl& impl = context.impl();
  check_quantize(function, impl.device, x, out, shares);
  const int64_t rows = x.shape[0], cols = x.shape[1];
  if (rows == 0 || cols == 0) return;
  if (!impl.cuda) return cpu::quantize(x, out, shares, options.power_of_two_scales);

  const int64_t ctas = ceil_div_by(rows, quantize_rows_per_cta(shares)) * ceil_div_by(cols, 128);
  if (ctas > std::numeric_limits<int32_t>::max())
    fail(ErrorCode::invalid_argument, "{}: x is {}, expected at most 2^31 - 1 thread blocks of work", function,
         shape_text(x));
  const cuda::DeviceContext::Scope scope(*impl.cuda);
  const jit::KernelSource source = quantize_kernel(x.dtype, out.data.dtype, shares);
  const cuda::Kernel& kernel = impl.kernel(source.entry, source.text);
  QuantizeArgs args{.x = x.data,
                    .out = static_cast<uint8_t*>(out.data.data),
                    .scale = static_cast<float*>(out.scale.data),
                    .x_pitch = x.strides[0],
                    .out_pitch = out.data.strides[0],
                    .scale_row_stride = out.scale.strides[0],
                    .scale_col_stride = out.scale.strides[1],
                    .rows = rows,
                    .cols = cols,
                    .power_of_two = options.power_of_two_scales,
                    .vectors = has_aligned_rows(x, 16) && has_aligned_rows(out.data, 8)};
  void* params[] = {&args};
  cuda::launch(kernel, {.grid = {static_cast<unsigned>(ctas), 1, 1}, .block_threads = kQuantizeThreads}, options.stream,
               params);
}

}  // namespace

jit::KernelSource quantize_kernel(DType type, DType out, ScaleBlock shares) {
  const std::string entry = fmt::format("quantize_{}x{}_{}_{}", shares.rows, shares.cols, name_of(type), name_of(out));
  return {entry, fmt::format("#include <deep_gemm/layout/quantize.cuh>\n"
                             "extern \"C\" __global__ void __launch_bounds__(deep_gemm::kQuantizeThreads) "
                             "{}(const __grid_constant__ deep_gemm::QuantizeArgs args) {{ deep_gemm::quantize<"
                             "deep_gemm::DType::{}, deep_gemm::DType::{}, deep_gemm::ScaleBlock{{{}, {}}}>(args); }}\n",
                             entry, name_of(type), name_of(out), shares.rows, shares.cols)};
}

jit::KernelSource transpose_kernel() {
  return {"transpose_scales",
          "#include <deep_gemm/layout/scales.cuh>\n"
          "extern \"C\" __global__ void __launch_bounds__(deep_gemm::kTransposeThreads) "
          "transpose_scales(const __grid_constant__ deep_gemm::TransposeScalesArgs args) { "
          "deep_gemm::transpose_scales(args); }\n"};
}

void quantize_1x128(Context& context, const TensorView& x, const Fp8Tensor& out, const QuantizeOptions& options) {
  quantize("quantize_1x128", context, x, out, {1, 128}, options);
}

void quantize_128x128(Context& context, const TensorView& x, const Fp8Tensor& out, const QuantizeOptions& options) {
  quantize("quantize_128x128", context, x, out, {128, 128}, options);
}

void quantize_128x1(Context& context, const TensorView& x, const Fp8Tensor& out, const QuantizeOptions& options) {
  quantize("quantize_128x1", context, x, out, {128, 1}, options);
}

void to_mn_major_aligned(Context& context, const TensorView& all_scale, const TensorView& all_out, Stream stream) {
  constexpr const char* kFunction = "to_mn_major_aligned";
  Context::Impl& impl = context.impl();
  const bool grouped = all_scale.rank == 3;
  if (grouped && all_out.rank != 3)
    fail(ErrorCode::invalid_argument, "{}: out has {} dimensions, expected 3 as scale has", kFunction, all_out.rank);
  const int64_t groups = grouped ? all_scale.shape[0] : 1;
  if (grouped && (all_out.shape[0] != groups || groups < 0 || groups > kMaxGroups))
    fail(ErrorCode::invalid_argument, "{}: out is {} and scale is {}, expected as many groups, at most {}", kFunction,
         shape_text(all_out), shape_text(all_scale), kMaxGroups);
  if (groups == 0) return;
  const int64_t in_group_stride = grouped ? stride_or(all_scale, 0, 0) : 0;
  const int64_t out_group_stride = grouped ? stride_or(all_out, 0, 0) : 0;
  if (out_group_stride % 4 != 0)
    fail(ErrorCode::invalid_argument, "{}: out has groups {} elements apart, expected a multiple of 4", kFunction,
         out_group_stride);
  const TensorView scale = grouped ? all_scale.at(0) : all_scale, out = grouped ? all_out.at(0) : all_out;
  check_matrix(kFunction, "scale", scale, impl.device);
  check_matrix(kFunction, "out", out, impl.device);
  for (const TensorView* t : {&scale, &out}) {
    if (t->dtype != DType::f32)
      fail(ErrorCode::invalid_argument, "{}: {} is {}, expected f32", kFunction, t == &scale ? "scale" : "out",
           name_of(t->dtype));
  }
  const int64_t mn = scale.shape[0], blocks = scale.shape[1];
  if (out.shape[0] != mn || out.shape[1] != blocks)
    fail(ErrorCode::invalid_argument, "{}: out is {}, expected {}, the shape of scale", kFunction, shape_text(out),
         shape_text(scale));
  const int64_t pitch = stride_or(out, 1, tma_aligned_rows(mn));
  if (stride_or(out, 0, 1) != 1 || pitch < tma_aligned_rows(mn) || pitch % 4 != 0)
    fail(ErrorCode::invalid_argument,
         "{}: out has strides [{}, {}], expected [1, pitch] with a pitch of at least {} and a multiple of 4", kFunction,
         out.strides[0], out.strides[1], tma_aligned_rows(mn));
  if (mn == 0 || blocks == 0) return;
  // `count` columns of which each begins a `stride` after the one before it fit into `room`.
  const auto fit = [column = tma_aligned_rows(mn)](int64_t count, int64_t stride, int64_t room) {
    return stride >= column && room >= column && (room - column) / stride >= count - 1;
  };
  const bool apart = fit(blocks, pitch, out_group_stride), interleaved = fit(groups, out_group_stride, pitch);
  if (groups > 1 && !apart && !interleaved)
    fail(ErrorCode::invalid_argument,
         "{}: out has groups {} elements apart, expected them side by side: each has {} columns {} apart", kFunction,
         out_group_stride, blocks, pitch);
  if (!impl.cuda) {
    for (int64_t g = 0; g < groups; ++g)
      cpu::copy_scales(grouped ? all_scale.at(g) : scale, grouped ? all_out.at(g) : out);
    return;
  }

  const cuda::DeviceContext::Scope scope(*impl.cuda);
  const jit::KernelSource source = transpose_kernel();
  const cuda::Kernel& kernel = impl.kernel(source.entry, source.text);
  TransposeScalesArgs args{.in = static_cast<const float*>(scale.data),
                           .out = static_cast<float*>(out.data),
                           .in_row_stride = stride_or(scale, 0, 0),
                           .in_block_stride = stride_or(scale, 1, 0),
                           .out_pitch = pitch,
                           .in_group_stride = in_group_stride,
                           .out_group_stride = out_group_stride,
                           .mn = mn,
                           .padded_mn = tma_aligned_rows(mn),
                           .blocks = blocks};
  const int64_t ctas = ceil_div_by(args.padded_mn, kTransposeTile) * ceil_div_by(blocks, kTransposeTile);
  void* params[] = {&args};
  cuda::launch(
      kernel,
      {.grid = {static_cast<unsigned>(ctas), static_cast<unsigned>(groups), 1}, .block_threads = kTransposeThreads},
      stream, params);
}

}  // namespace deep_gemm
