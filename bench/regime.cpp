#include "bench/regime.h"

#include <algorithm>

#include <deep_gemm/bench/stream.cuh>

#include "bench/timer.h"
#include "context_impl.h"

namespace deep_gemm::bench {

const char* name_of(Regime regime) {
  switch (regime) {
    case Regime::cool:
      return "cool";
    case Regime::dirty:
      return "dirty";
    case Regime::clean:
      return "clean";
    case Regime::warm:
      return "warm";
    case Regime::sustained:
      return "sustained";
  }
  return "unknown";
}

std::optional<Regime> regime_of(std::string_view name) {
  for (Regime regime : kRegimes)
    if (name == name_of(regime)) return regime;
  return std::nullopt;
}

StreamKernels::StreamKernels(Context& context, Stream stream)
    : num_sms_(static_cast<unsigned>(context.impl().cuda->properties().info.num_sms)), stream_(stream), sink_(16) {
  const std::string text = "#include <deep_gemm/bench/stream.cuh>\n";
  kernels_ = {&context.impl().kernel("deep_gemm_bench_read_bulk", text, kSlots * kChunkBytes),
              &context.impl().kernel("deep_gemm_bench_read_vectors", text), &context.impl().kernel(kFlushKernel, text)};
}

void StreamKernels::read(Way way, const void* data, int64_t bytes) {
  uint64_t count = static_cast<uint64_t>(bytes);
  void* sink = sink_.data();
  void* params[] = {&data, &count, &sink};
  const bool bulk = way == Way::bulk;
  cuda::launch(*kernels_[static_cast<std::size_t>(way)],
               {.grid = {num_sms_, 1, 1},
                .block_threads = bulk ? 32 : kVectorThreads,
                .smem_bytes = bulk ? kSlots * kChunkBytes : 0},
               stream_, params);
}

L2State::L2State(Regime regime, int64_t l2_bytes, StreamKernels& kernels, Stream stream)
    : regime_(regime), kernels_(kernels), stream_(stream) {
  constexpr int64_t kGigabyte = 1'000'000'000;
  if (regime == Regime::cool) buffer_ = cuda::DeviceBuffer(8 * kGigabyte);
  if (regime == Regime::dirty || regime == Regime::clean)
    buffer_ = cuda::DeviceBuffer(static_cast<std::size_t>(std::max(kGigabyte, 2 * l2_bytes) / 16 * 16));
  if (regime == Regime::clean) cuda::fill(buffer_.data(), 0x5a, buffer_.bytes(), stream_);
}

void L2State::prepare() {
  if (regime_ == Regime::cool || regime_ == Regime::dirty) cuda::fill(buffer_.data(), 0x5a, buffer_.bytes(), stream_);
  if (regime_ == Regime::clean)
    kernels_.read(StreamKernels::Way::flush, buffer_.data(), static_cast<int64_t>(buffer_.bytes()));
}

}  // namespace deep_gemm::bench
