// Random operands, the same on both backends.
#include <cmath>

#include <deep_gemm/verify/random.cuh>

#include "context_impl.h"
#include "cpu/parallel.h"
#include "text.h"
#include "verify/kernels.h"
#include "verify/verify.h"

namespace deep_gemm::verify {
namespace {

void fill(Context::Impl& impl, const TensorView& t, const RandomOptions& options, bool scales, Stream stream) {
  if (t.device != impl.device)
    fail(ErrorCode::invalid_argument, "fill_random: the tensor lies on {}, expected {}, the context's device",
         name_of(t.device), name_of(impl.device));
  if (t.dtype == DType::i32)
    fail(ErrorCode::invalid_argument, "fill_random: the tensor is i32, expected e4m3, e5m2, bf16, f16 or f32");
  if (!(options.scale_spread >= 0 && options.scale_spread <= 200))
    fail(ErrorCode::invalid_argument, "fill_random: scale_spread is {}, expected 0 to 200 powers of two",
         options.scale_spread);
  FillRandomArgs args{.data = t.data,
                      .shape = {1, 1, 1},
                      .strides = {},
                      .key = mix_bits(2 * options.seed + scales),
                      .spread = std::llround(options.scale_spread * 65536),
                      .dtype = t.dtype,
                      .scales = scales};
  int64_t count = 1;
  for (int i = 0; i < t.rank; ++i) {
    args.shape[3 - t.rank + i] = t.shape[static_cast<std::size_t>(i)];
    args.strides[3 - t.rank + i] = t.strides[static_cast<std::size_t>(i)];
    count *= t.shape[static_cast<std::size_t>(i)];
  }
  if (t.rank == 0 || count == 0) return;

  if (!impl.cuda) {
    constexpr int64_t kChunk = 1 << 14;
    const int64_t chunks = (count + kChunk - 1) / kChunk;
    cpu::parallel_for(chunks, 16.0 * static_cast<double>(count), [&](int64_t chunk) {
      for (int64_t i = chunk * kChunk; i < std::min(count, (chunk + 1) * kChunk); ++i) fill_random_element(args, i);
    });
    return;
  }
  const cuda::DeviceContext::Scope scope(*impl.cuda);
  const jit::KernelSource source = fill_random_kernel();
  const cuda::Kernel& kernel = impl.kernel(source.entry, source.text);
  constexpr int64_t kMaxBlocks = 4096;
  const int64_t blocks = std::min(kMaxBlocks, (count + kFillThreads - 1) / kFillThreads);
  void* params[] = {&args};
  cuda::launch(kernel, {.grid = {static_cast<unsigned>(blocks), 1, 1}, .block_threads = kFillThreads}, stream, params);
}

}  // namespace

jit::KernelSource fill_random_kernel() {
  return {"fill_random",
          "#include <deep_gemm/verify/random.cuh>\n"
          "extern \"C\" __global__ void __launch_bounds__(deep_gemm::kFillThreads) "
          "fill_random(const __grid_constant__ deep_gemm::FillRandomArgs args) { "
          "deep_gemm::fill_random(args); }\n"};
}

void fill_random(Context& context, const Fp8Tensor& t, const RandomOptions& options, Stream stream) {
  fill(context.impl(), t.data, options, false, stream);
  if (t.scale) fill(context.impl(), t.scale, options, true, stream);
}

void fill_random(Context& context, const TensorView& t, const RandomOptions& options, Stream stream) {
  fill(context.impl(), t, options, false, stream);
}

}  // namespace deep_gemm::verify
