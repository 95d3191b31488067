#include "gemm/scratch.h"

#include <cstdint>

#include "gemm/check.h"

namespace deep_gemm {

namespace {

/// `scale` in the memory at `data`, with the smallest strides that TMA can read.
TensorView aligned_view(const TensorView& scale, void* data) {
  TensorView out = scale;
  const auto last = static_cast<std::size_t>(scale.rank) - 1;
  out.data = data;
  out.strides[last - 1] = 1;
  out.strides[last] = tma_aligned_rows(scale.shape[last - 1]);
  if (scale.rank == 3) out.strides[0] = out.strides[last] * scale.shape[last];
  return out;
}

/// A multiple of 16. Scales without columns are an error of the call, not of this question.
int64_t scratch_bytes(const TensorView& scale) {
  if (scale.rank < 2 || is_mn_major_aligned(scale)) return 0;
  const auto last = static_cast<std::size_t>(scale.rank) - 1;
  return tma_aligned_rows(scale.shape[last - 1]) * scale.shape[last] * (scale.rank == 3 ? scale.shape[0] : 1) * 4;
}

const TensorView kNone{};

}  // namespace

bool is_mn_major_aligned(const TensorView& scale) {
  const auto last = static_cast<std::size_t>(scale.rank) - 1;
  const int64_t rows = scale.shape[last - 1], pitch = stride_or(scale, last, rows);
  return stride_or(scale, last - 1, 1) == 1 && reinterpret_cast<std::uintptr_t>(scale.data) % 16 == 0 &&
         stride_or(scale, last, 4) % 4 == 0 && pitch >= rows && (scale.rank == 2 || stride_or(scale, 0, 4) % 4 == 0);
}

int64_t workspace_bytes(const Fp8Tensor& a, const Fp8Tensor& b, const Recipe& recipe) {
  if (a.data.device.type == DeviceType::cpu) return 0;
  return scratch_bytes(a.scale) + scratch_bytes(recipe.rows_b == 1 ? b.scale : kNone);
}

AlignedScales::AlignedScales(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const Recipe& recipe,
                             const TensorView& workspace, Stream stream)
    : a_(a.scale), b_(b.scale) {
  const int64_t bytes_a = scratch_bytes(a.scale), bytes_b = scratch_bytes(recipe.rows_b == 1 ? b.scale : kNone);
  if (bytes_a + bytes_b == 0) return;
  if (!workspace) memory_.emplace(static_cast<std::size_t>(bytes_a + bytes_b), stream);
  auto* const memory = static_cast<char*>(workspace ? workspace.data : memory_->data());
  if (bytes_a > 0) {
    a_ = aligned_view(a.scale, memory);
    to_mn_major_aligned(context, a.scale, a_, stream);
  }
  if (bytes_b > 0) {
    b_ = aligned_view(b.scale, memory + bytes_a);
    to_mn_major_aligned(context, b.scale, b_, stream);
  }
}

}  // namespace deep_gemm
