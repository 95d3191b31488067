#include "learn/steps.h"

#include <algorithm>

#include "context_impl.h"
#include "text.h"

namespace deep_gemm::learn {

namespace {

using Spec = cuda::TensorMapSpec;

constexpr unsigned kTileK = 128;

constexpr Step kSteps[] = {
    {"1_naive.cuh", "learn_1_naive", "naive", "one thread an element", 16, 16, 256, 0, 1, false, false},
    {"2_tma.cuh", "learn_2_tma", "TMA", "tiles in shared memory, brought by TMA", 128, 128, 256, 33792, 1, true, false},
    {"3_wgmma.cuh", "learn_3_wgmma", "WGMMA", "tensor cores", 128, 128, 128, 33792, 1, true, false},
    {"4_warp_specialised.cuh", "learn_4_warp_specialised", "warp specialisation", "a warp that loads ahead", 128, 128,
     160, 200704, 1, true, true},
    {"5_clusters.cuh", "learn_5_clusters", "clusters and promotion", "two math warpgroups; multicast to two blocks",
     256, 128, 384, 201728, 2, true, true},
};

/// [rows, k] e4m3, in boxes of 128 bytes and `box_rows`.
Spec operand_map(const TensorView& t, unsigned box_rows) {
  return {.dtype = t.dtype,
          .base = t.data,
          .dims = {static_cast<uint64_t>(t.shape[1]), static_cast<uint64_t>(t.shape[0])},
          .stride_bytes = {static_cast<uint64_t>(t.strides[0])},
          .box = {kTileK, box_rows},
          .swizzle = Spec::Swizzle::b128};
}

/// MN-major [m, k / 128] FP32, in boxes of one block of k and `box_rows`.
Spec scale_map(const TensorView& t, unsigned box_rows) {
  return {.dtype = t.dtype,
          .base = t.data,
          .dims = {static_cast<uint64_t>(t.shape[0]), static_cast<uint64_t>(t.shape[1])},
          .stride_bytes = {static_cast<uint64_t>(t.strides[1] * size_of(t.dtype))},
          .box = {box_rows, 1},
          .swizzle = Spec::Swizzle::none};
}

}  // namespace

std::span<const Step> steps() { return kSteps; }

jit::KernelSource source(const Step& step) {
  const auto texts = kernel_texts();
  const auto text = std::find_if(texts.begin(), texts.end(), [&](const KernelText& t) { return t.file == step.file; });
  return {step.entry, fmt::format("{}\nstatic_assert(kTileM == {} && kTileN == {} && kTileK == {} && kThreads == {} && "
                                  "kSmemBytes == {}, \"steps.cpp launches this kernel with other numbers\");\n",
                                  text->text, step.tile_m, step.tile_n, kTileK, step.threads, step.smem_bytes)};
}

void check_shape(int64_t m, int64_t n, int64_t k) {
  constexpr int64_t kMax = 65536;
  const auto check = [&](const char* name, int64_t extent, int64_t multiple) {
    if (extent <= 0 || extent > kMax || extent % multiple != 0)
      fail(ErrorCode::invalid_argument,
           "{} is {}, expected a multiple of {} from {} to {}: these kernels have no code for tails", name, extent,
           multiple, multiple, kMax);
  };
  check("m", m, 256);
  check("n", n, 256);
  check("k", k, kTileK);
}

jit::Binary compile(Context& context, const Step& step) {
  return context.impl().store.get(source(step), cuda::driver_version());
}

Kernel::Kernel(Context& context, const Step& step)
    : step_(step), kernel_(compile(context, step).cubin, step.entry, static_cast<int>(step.smem_bytes)) {}

void Kernel::operator()(const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, Stream stream) const {
  const int64_t m = a.data.shape[0], n = b.data.shape[0], k = a.data.shape[1];
  check_shape(m, n, k);
  void *a_data = a.data.data, *b_data = b.data.data, *scale_a = a.scale.data, *scale_b = b.scale.data, *d_data = d.data;
  cuda::EncodedTensorMap a_map, b_map, scale_a_map;
  if (step_.tma) {
    a_map = cuda::encode(operand_map(a.data, step_.tile_m / step_.cluster));
    b_map = cuda::encode(operand_map(b.data, step_.tile_n));
  }
  if (step_.tma_scales) scale_a_map = cuda::encode(scale_map(a.scale, step_.tile_m));
  auto columns = static_cast<uint32_t>(n), depth = static_cast<uint32_t>(k);
  auto scale_b_pitch = static_cast<uint32_t>(b.scale.strides[0]),
       scale_a_pitch = static_cast<uint32_t>(a.scale.strides[1]);
  // The last one is of no use to a kernel that has A's scales as a tensor map; the driver passes as many as the kernel has.
  void* params[] = {step_.tma ? static_cast<void*>(&a_map) : &a_data,
                    step_.tma ? static_cast<void*>(&b_map) : &b_data,
                    step_.tma_scales ? static_cast<void*>(&scale_a_map) : &scale_a,
                    &scale_b,
                    &d_data,
                    &columns,
                    &depth,
                    &scale_b_pitch,
                    &scale_a_pitch};
  cuda::launch(kernel_,
               {.grid = {columns / step_.tile_n, static_cast<uint32_t>(m) / step_.tile_m, 1},
                .block_threads = step_.threads,
                .cluster = step_.cluster,
                .smem_bytes = step_.smem_bytes},
               stream, params);
}

}  // namespace deep_gemm::learn
