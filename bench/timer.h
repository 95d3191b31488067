// Times of kernels on the GPU: by CUPTI's activity records where CUPTI works, else by CUDA events.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <deep_gemm/context.h>
#include <deep_gemm/tensor.h>

namespace deep_gemm::bench {

/// One kernel that ran. `name` lives as long as the process.
struct KernelRecord {
  uint64_t start_ns = 0, end_ns = 0;
  std::string_view name;
};

/// What one timed call took.
struct CallTime {
  double kernel_us = 0;            ///< sum over its kernels (events: from before the call to after it)
  double span_us = 0;              ///< first kernel's start to last kernel's end
  int kernels = 0;                 ///< 0 with events
  std::vector<std::string> names;  ///< of its kernels, each once, in order; empty with events
};

/// Empty kernel that is launched before each timed call, so that records can be told apart.
constexpr const char* kMarkerKernel = "deep_gemm_bench_marker";
/// Kernel that reads memory to put the L2 into a known state; never part of a call's time.
constexpr const char* kFlushKernel = "deep_gemm_bench_flush";

/// Splits the records of one stream at the markers: element i holds what ran between marker i and the next one, without
/// flush kernels. Records before the first marker are dropped. Any order of `records` will do.
std::vector<CallTime> split_at_markers(std::vector<KernelRecord> records);

/// Times sequences of calls on one stream. One at a time in a process: CUPTI has one set of callbacks.
class Timer {
 public:
  /// Tries CUPTI on a marker kernel first, so that a CUPTI that delivers nothing is noticed here.
  Timer(Context& context, Stream stream);
  ~Timer();

  /// "cupti" or "events".
  const char* name() const;
  /// "CUPTI 13.0.1 (libcupti.so.13)", or why events are used.
  const std::string& note() const { return note_; }

  /// Runs `calls` in order, each after `before`, which only its own flush kernel and memsets may run in, waits, and returns
  /// the time of each. A call only enqueues work on the stream. Should CUPTI lose records, everything is run again under
  /// events, which are then used from there on.
  std::vector<CallTime> time(std::span<const std::function<void()>> calls, const std::function<void()>& before);

 private:
  class Cupti;
  std::vector<CallTime> time_by_events(std::span<const std::function<void()>> calls,
                                       const std::function<void()>& before);
  std::vector<CallTime> time_by_cupti(std::span<const std::function<void()>> calls,
                                      const std::function<void()>& before);
  void mark();

  Context& context_;
  Stream stream_;
  std::unique_ptr<Cupti> cupti_;
  std::string note_;
};

}  // namespace deep_gemm::bench
