// THE WALK of one call: check → plan → kernel → bind → launch. Read this first.
#include <deep_gemm/gemm.h>

#include <algorithm>

#include <deep_gemm/gemm/layout.cuh>

#include "context_impl.h"
#include "cpu/cpu.h"
#include "gemm/bind.h"
#include "gemm/bound_calls.h"
#include "gemm/check.h"
#include "gemm/kernel_source.h"
#include "gemm/plan.h"
#include "gemm/scratch.h"
#include "text.h"

namespace deep_gemm {

namespace {

cuda::Kernel load_kernel(Context::Impl& context, const GemmConfig& config) {
  const jit::KernelSource source = kernel_source(config);
  const auto smem_bytes = static_cast<int>(smem_layout(config).bytes);
  return context.store.load(source, cuda::driver_version(), [&](const jit::Binary& binary) {
    return cuda::Kernel(binary.cubin, source.entry, smem_bytes);
  });
}

/// Step 2. What is chosen for a problem stays chosen. A context keeps this for each m.
GemmPlan make_plan(Context::Impl& context, const Problem& problem) {
  Problem any = problem;
  any.num_sms = 0;
  if (any.layout == Layout::k_grouped) {
    any.k = 0;
  } else {
    any.m = any.expected_m = 0;
  }
  const std::vector<GemmConfig>& kernels =
      context.kernels.get(any, [&] { return kernels_for(any, context.plan_device); });
  return plan_among(kernels, problem, context.plan_device);
}

cuda::LaunchSpec launch_spec(const GemmPlan& plan, const Call& call) {
  return {.grid = {static_cast<unsigned>(plan.grid), 1, 1},
          .block_threads = static_cast<unsigned>(plan.block_threads),
          .cluster = static_cast<unsigned>(plan.config.cluster),
          .smem_bytes = static_cast<unsigned>(plan.smem_bytes),
          .programmatic = call.programmatic};
}

/// Step 5.
void launch(BoundCall& bound, Stream stream) {
  void* params = &bound.args;
  cuda::launch(*bound.kernel, bound.spec, stream, &params);
}

/// A launch for each KGroupedArgs::kMaxGroups groups, the largest first.
void run_k_grouped(const cuda::Kernel& kernel, const GemmPlan& all, const Problem& problem, const Call& call,
                   const Fp8Tensor& a, const Fp8Tensor& b, std::span<const int> ks, const DeviceInfo& device,
                   Stream stream) {
  std::vector<int> order;
  for (int group = 0; group < static_cast<int>(ks.size()); ++group)
    if (ks[static_cast<std::size_t>(group)] > 0 || call.c->data != call.d.data) order.push_back(group);
  std::stable_sort(order.begin(), order.end(),
                   [&](int x, int y) { return ks[static_cast<std::size_t>(x)] > ks[static_cast<std::size_t>(y)]; });
  for (std::size_t first = 0; first < order.size(); first += KGroupedArgs::kMaxGroups) {
    const std::span<const int> groups =
        std::span(order).subspan(first, std::min<std::size_t>(KGroupedArgs::kMaxGroups, order.size() - first));
    Problem part = problem;
    part.groups = static_cast<int64_t>(groups.size());
    const GemmPlan chosen = plan(part, device, all.config);
    KGroupedArgs args = bind_k_grouped(chosen, part, a, b, call.d, ks, groups, *call.c);
    void* params = &args;
    cuda::launch(kernel, launch_spec(chosen, call), stream, &params);
  }
}

/// Steps 2 to 5, on a GPU. `ks`: of a k-grouped call.
void run(Context& context, const Call& call, const Problem& problem, Stream stream, std::span<const int> ks = {}) {
  Context::Impl& impl = context.impl();
  const cuda::DeviceContext::Scope scope(*impl.cuda);
  const DeviceInfo& device = impl.plan_device;
  const GemmPlan explicit_plan = call.config ? plan(problem, device, call.config) : GemmPlan{};
  const GemmPlan& chosen =
      call.config ? explicit_plan : impl.plans.get(problem, [&] { return make_plan(impl, problem); });
  const cuda::Kernel& kernel = impl.gemm_kernels.get(chosen.config, [&] { return load_kernel(impl, chosen.config); });

  const Recipe recipe{1, chosen.config.scale_rows_b, 128};
  const AlignedScales scales(context, call.a, call.b, recipe, call.workspace, stream);
  const Fp8Tensor a{call.a.data, scales.a()}, b{call.b.data, scales.b()};
  if (problem.layout == Layout::k_grouped)
    return run_k_grouped(kernel, chosen, problem, call, a, b, ks, device, stream);
  BoundCall bound{&kernel, launch_spec(chosen, call), bind(chosen, problem, a, b, call.d, call.group_rows, call.c)};
  bound.args.prefetch_b = call.programmatic && call.weights_are_constant && problem.k > 0;
  launch(bound, stream);
  // Transposed scales lie in memory that is another one the next time.
  if (a == call.a && b == call.b) impl.bound_calls->keep(call, bound);
}

/// Whether the call was made before and is on its way again. Steps 1 to 4 depend on nothing but a `Call`: they would end
/// in the same kernel with the same arguments, and without an error, since what failed is not kept.
bool launch_again(Context& context, const Call& call, Stream stream) {
  std::optional<BoundCall> bound = context.impl().bound_calls->find(call);
  if (!bound) return false;
  const cuda::DeviceContext::Scope scope(*context.impl().cuda);
  launch(*bound, stream);
  return true;
}

void run_grouped(const char* function, Layout layout, Context& context, const Fp8Tensor& a, const Fp8Tensor& b,
                 const TensorView& d, const TensorView& groups_of, int64_t expected_m, const GroupedOptions& options) {
  const Call call(layout, a, b, d, groups_of, expected_m, options);
  if (launch_again(context, call, options.stream)) return;
  Problem problem = check_grouped(function, layout, context.device(), a, b, d, groups_of, options);
  problem.expected_m = expected_m;
  if (problem.m == 0 || problem.n == 0 || problem.groups == 0) return;
  if (!context.impl().cuda) return cpu::m_grouped_fp8_gemm_nt(layout, a, b, d, call.group_rows);
  run(context, call, problem, options.stream);
}

}  // namespace

void fp8_gemm_nt(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                 const GemmOptions& options) {
  const Call call(Layout::dense, a, b, d, options);
  if (launch_again(context, call, options.stream)) return;
  const Problem problem = check("fp8_gemm_nt", context.device(), a, b, d, options);
  if (problem.m == 0 || problem.n == 0) return;
  if (!context.impl().cuda) return cpu::fp8_gemm_nt(a, b, d, options);
  run(context, call, problem, options.stream);
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

void k_grouped_fp8_gemm_nt(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
                           std::span<const int> ks, const GemmOptions& options) {
  const Problem problem = check_k_grouped("k_grouped_fp8_gemm_nt", context.device(), a, b, d, ks, options);
  if (problem.m == 0 || problem.n == 0 || problem.groups == 0) return;
  Call call(Layout::k_grouped, a, b, d, options);
  if (!call.c) call.c = d;
  if (!context.impl().cuda) return cpu::k_grouped_fp8_gemm_nt(a, b, d, ks, *call.c);
  run(context, call, problem, options.stream, ks);
}

CompileReport compile(Context& context, const GemmConfig& config) {
  if (const char* why = why_illegal(config))
    fail(ErrorCode::invalid_argument, "compile: config {} cannot run: {}", kernel_name(config), why);
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
