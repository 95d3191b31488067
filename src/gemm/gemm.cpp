// THE WALK of one call: check → plan → kernel → bind → launch. Read this first.
#include <deep_gemm/gemm.h>

#include <deep_gemm/gemm/layout.cuh>

#include "context_impl.h"
#include "cpu/cpu.h"
#include "gemm/bind.h"
#include "gemm/check.h"
#include "gemm/kernel_source.h"

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
  out.data = scratch.data();
  out.strides = {1, tma_aligned_rows(scale.shape[0])};
  return out;
}

}  // namespace

void fp8_gemm_nt(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                 const GemmOptions& options) {
  Context::Impl& impl = context.impl();
  const Problem problem = check("fp8_gemm_nt", impl.device, a, b, d, options);
  if (problem.m == 0 || problem.n == 0) return;
  if (!impl.cuda) return cpu::fp8_gemm_nt(a, b, d, options);

  const cuda::DeviceContext::Scope scope(*impl.cuda);
  const DeviceInfo& device = impl.plan_device;
  const GemmPlan explicit_plan = options.config ? plan(problem, device, options.config) : GemmPlan{};
  const GemmPlan& chosen =
      options.config ? explicit_plan : impl.plans.get(problem, [&] { return plan(problem, device); });
  const cuda::Kernel& kernel = impl.gemm_kernels.get(chosen.config, [&] { return load_kernel(impl, chosen.config); });

  Fp8Tensor operand_a = a;
  std::optional<cuda::ScratchBuffer> scratch;
  if (a.scale && problem.k > 0 && !is_mn_major_aligned(a.scale)) {
    const int64_t bytes = tma_aligned_rows(problem.m) * a.scale.shape[1] * 4;
    scratch.emplace(static_cast<std::size_t>(bytes), options.stream);
    operand_a.scale = aligned_scales(a.scale, *scratch);
    to_mn_major_aligned(context, a.scale, operand_a.scale, options.stream);
  }
  GemmArgs args = deep_gemm::bind(chosen, problem, operand_a, b, d, options.c);

  void* params[] = {&args};
  cuda::launch(kernel,
               {.grid = {static_cast<unsigned>(chosen.grid), 1, 1},
                .block_threads = static_cast<unsigned>(chosen.block_threads),
                .cluster = static_cast<unsigned>(chosen.config.cluster),
                .smem_bytes = static_cast<unsigned>(chosen.smem_bytes),
                .programmatic = options.programmatic_launch},
               options.stream, params);
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
