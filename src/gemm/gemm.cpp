// THE WALK of one call: check → plan → kernel → bind → launch. Read this first.
#include <deep_gemm/gemm.h>

#include <deep_gemm/gemm/layout.cuh>

#include "context_impl.h"
#include "cpu/cpu.h"
#include "gemm/bind.h"
#include "gemm/check.h"
#include "gemm/kernel_source.h"
#include "text.h"

namespace deep_gemm {

namespace {

cuda::Kernel load_kernel(Context::Impl& context, const GemmConfig& config) {
  const jit::KernelSource source = kernel_source(config);
  const jit::Binary binary = context.store.get(source, cuda::driver_version());
  return cuda::Kernel(binary.cubin, source.entry, static_cast<int>(smem_layout(config).bytes));
}

/// A's scales in the layout that TMA reads, if they have another one: a column for each block of k.
TensorView aligned_scales(const TensorView& scale, const cuda::ScratchBuffer& scratch) {
  TensorView out = scale;
  const auto last = static_cast<std::size_t>(scale.rank) - 1;
  out.data = scratch.data();
  out.strides[last - 1] = 1;
  out.strides[last] = tma_aligned_rows(scale.shape[last - 1]);
  if (scale.rank == 3) out.strides[0] = out.strides[last] * scale.shape[last];
  return out;
}

int64_t aligned_scale_bytes(const TensorView& scale) {
  const auto last = static_cast<std::size_t>(scale.rank) - 1;
  return tma_aligned_rows(scale.shape[last - 1]) * scale.shape[last] * (scale.rank == 3 ? scale.shape[0] : 1) * 4;
}

/// How a call is to run, whatever its layout.
struct LaunchOptions {
  Stream stream;
  bool programmatic;
  const std::optional<GemmConfig>& config;
};

/// Steps 2 to 5, on a GPU.
void run(Context& context, const Problem& problem, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
         const GroupRows& group_rows, const std::optional<TensorView>& c, const LaunchOptions& options) {
  Context::Impl& impl = context.impl();
  const cuda::DeviceContext::Scope scope(*impl.cuda);
  const DeviceInfo& device = impl.plan_device;
  const GemmPlan explicit_plan = options.config ? plan(problem, device, options.config) : GemmPlan{};
  const GemmPlan& chosen =
      options.config ? explicit_plan : impl.plans.get(problem, [&] { return plan(problem, device); });
  const cuda::Kernel& kernel = impl.gemm_kernels.get(chosen.config, [&] { return load_kernel(impl, chosen.config); });

  Fp8Tensor operand_a = a;
  std::optional<cuda::ScratchBuffer> scratch;
  if (a.scale && problem.k > 0 && !is_mn_major_aligned(a.scale)) {
    scratch.emplace(static_cast<std::size_t>(aligned_scale_bytes(a.scale)), options.stream);
    operand_a.scale = aligned_scales(a.scale, *scratch);
    to_mn_major_aligned(context, a.scale, operand_a.scale, options.stream);
  }
  GemmArgs args = deep_gemm::bind(chosen, problem, operand_a, b, d, group_rows, c);

  void* params[] = {&args};
  cuda::launch(kernel,
               {.grid = {static_cast<unsigned>(chosen.grid), 1, 1},
                .block_threads = static_cast<unsigned>(chosen.block_threads),
                .cluster = static_cast<unsigned>(chosen.config.cluster),
                .smem_bytes = static_cast<unsigned>(chosen.smem_bytes),
                .programmatic = options.programmatic},
               options.stream, params);
}

void run_grouped(const char* function, Layout layout, Context& context, const Fp8Tensor& a, const Fp8Tensor& b,
                 const TensorView& d, const TensorView& groups_of, int64_t expected_m, const GroupedOptions& options) {
  Problem problem = check_grouped(function, layout, context.device(), a, b, d, groups_of, options);
  problem.expected_m = expected_m;
  if (problem.m == 0 || problem.n == 0 || problem.groups == 0) return;
  const GroupRows group_rows{groups_of, options.alignment, options.zero_padding};
  if (!context.impl().cuda) return cpu::m_grouped_fp8_gemm_nt(layout, a, b, d, group_rows);
  run(context, problem, a, b, d, group_rows, std::nullopt,
      {options.stream, options.programmatic_launch, options.config});
}

}  // namespace

void fp8_gemm_nt(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                 const GemmOptions& options) {
  const Problem problem = check("fp8_gemm_nt", context.device(), a, b, d, options);
  if (problem.m == 0 || problem.n == 0) return;
  if (!context.impl().cuda) return cpu::fp8_gemm_nt(a, b, d, options);
  run(context, problem, a, b, d, {}, options.c, {options.stream, options.programmatic_launch, options.config});
}

void m_grouped_fp8_gemm_nt_contiguous(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                                      const TensorView& m_indices, const GroupedOptions& options) {
  run_grouped("m_grouped_fp8_gemm_nt_contiguous", Layout::contiguous, context, a, b, d, m_indices, 0, options);
}

void m_grouped_fp8_gemm_nt_offsets(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                                   const TensorView& ends, const GroupedOptions& options) {
  run_grouped("m_grouped_fp8_gemm_nt_offsets", Layout::offsets, context, a, b, d, ends, 0, options);
}

void m_grouped_fp8_gemm_nt_masked(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                                  const TensorView& masked_m, int64_t expected_m, const GroupedOptions& options) {
  if (expected_m < 0)
    fail(ErrorCode::invalid_argument, "m_grouped_fp8_gemm_nt_masked: expected_m is {}, expected 0 or more", expected_m);
  run_grouped("m_grouped_fp8_gemm_nt_masked", Layout::masked, context, a, b, d, masked_m, expected_m, options);
}

CompileReport compile(Context& context, const GemmConfig& config) {
  const jit::KernelSource source = kernel_source(config);
  const jit::Binary binary = context.impl().store.get(source);
  return {.name = source.entry,
          .compiler = binary.compiler,
          .cached = binary.cached,
          .seconds = binary.seconds,
          .registers = binary.registers,
          .spill_bytes = binary.spill_bytes};
}

}  // namespace deep_gemm
