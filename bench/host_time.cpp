// deep_gemm_host_time: what a warm call costs the host, beside the driver's launch of the same kernel with the same
// arguments. Batches of 100 calls, the GPU drained between them; call and launch take turns.
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include <deep_gemm/gemm.h>

#include "bench/report.h"
#include "context_impl.h"
#include "cuda/driver.h"
#include "gemm/bound_calls.h"

namespace {

using namespace deep_gemm;

constexpr int64_t kM = 64, kN = 512, kK = 512;
constexpr int kBatches = 10, kCalls = 100;

/// Operands on the GPU with scales as TMA reads them, and more places for D than the context remembers calls.
struct Operands {
  static constexpr Device kGpu{DeviceType::cuda, 0};
  static constexpr int64_t kPlaces = 16 * BoundCalls::kSets * BoundCalls::kWays, kPlaceBytes = 16;

  Context context{kGpu};
  cuda::DeviceContext::Scope current{*context.impl().cuda};
  cuda::DeviceBuffer memory_a{kM * kK}, memory_b{kN * kK}, memory_scale_a{kM * kK / 128 * 4};
  cuda::DeviceBuffer memory_scale_b{kN / 128 * kK / 128 * 4}, memory_d{kM * kN * 2 + kPlaces * kPlaceBytes};
  Fp8Tensor a{TensorView::contiguous(memory_a.data(), DType::e4m3, {kM, kK}, kGpu),
              TensorView::contiguous(memory_scale_a.data(), DType::f32, {kK / 128, kM}, kGpu).transposed()};
  Fp8Tensor b{TensorView::contiguous(memory_b.data(), DType::e4m3, {kN, kK}, kGpu),
              TensorView::contiguous(memory_scale_b.data(), DType::f32, {kN / 128, kK / 128}, kGpu)};
  std::vector<TensorView> d;

  Operands() {
    for (const cuda::DeviceBuffer* memory : {&memory_a, &memory_b, &memory_scale_a, &memory_scale_b})
      cuda::fill(memory->data(), 0x3F, memory->bytes());
    for (int64_t place = 0; place < kPlaces; ++place)
      d.push_back(TensorView::contiguous(static_cast<char*>(memory_d.data()) + place * kPlaceBytes, DType::bf16,
                                         {kM, kN}, kGpu));
  }
};

/// Seconds of one of kCalls calls.
template <class Call>
double seconds(Call&& call) {
  cuda::synchronize({});
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i) call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kCalls;
}

/// The time is that of a call; in microseconds beside it, that of the launch and what the call adds to it.
template <class Call>
void time_beside_launch(benchmark::State& state, Operands& on, Call&& call) {
  fp8_gemm_nt(on.context, on.a, on.b, on.d[0]);
  const auto bound = on.context.impl().bound_calls->find({Layout::dense, on.a, on.b, on.d[0], GemmOptions{}});
  GemmArgs args = bound->args;
  void* params[] = {&args};
  const auto launch = [&] { cuda::launch(*bound->kernel, bound->spec, {}, params); };
  seconds(call), seconds(launch);
  for (auto _ : state) {
    const double call_s = seconds(call), launch_s = seconds(launch);
    state.SetIterationTime(call_s);
    state.counters["launch_us"] = launch_s * 1e6;
    state.counters["above_launch_us"] = (call_s - launch_s) * 1e6;
  }
  cuda::synchronize({});
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  try {
    Operands on;
    const cuda::DeviceProperties& gpu = on.context.impl().cuda->properties();
    benchmark::AddCustomContext("gpu", gpu.info.name);
    benchmark::AddCustomContext("driver", std::to_string(cuda::driver_version()));
    benchmark::AddCustomContext("digest", bench::tree_digest());
    benchmark::AddCustomContext("product", "64 x 512 x 512, aligned scales");
    const auto add = [&](const char* name, auto call) {
      benchmark::RegisterBenchmark(name, [&on, call](benchmark::State& state) { time_beside_launch(state, on, call); })
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond)
          ->Iterations(1)
          ->Repetitions(kBatches);
    };
    add("same_arguments", [&] { fp8_gemm_nt(on.context, on.a, on.b, on.d[0]); });
    std::size_t place = 0;
    add("another_d_each_time", [&] { fp8_gemm_nt(on.context, on.a, on.b, on.d[place++ % on.d.size()]); });
    benchmark::RunSpecifiedBenchmarks();
  } catch (const Error& error) {
    std::fprintf(stderr, "deep_gemm_host_time: %s\n", error.what());
    return 1;
  }
  return 0;
}
