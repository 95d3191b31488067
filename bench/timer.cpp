#include "bench/timer.h"

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <set>
#include <utility>

#include "bench/abi.h"
#include "bench/dynamic_library.h"
#include "context_impl.h"
#include "text.h"

namespace deep_gemm::bench {
namespace {

using namespace cupti_abi;

/// What CUPTI's callbacks share with the rest. Never destroyed: CUPTI may call back while the process exits.
struct Collected {
  std::mutex mutex;
  GetNextRecord* next = nullptr;
  std::set<std::string, std::less<>> names;
  std::vector<KernelRecord> records;
};
Collected& collected() {
  static auto* instance = new Collected;
  return *instance;
}

void request_buffer(uint8_t** buffer, std::size_t* size, std::size_t* max_records) {
  constexpr std::size_t kBytes = 4 << 20;
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(kBufferAlignment, kBytes));
  *size = *buffer ? kBytes : 0;
  *max_records = 0;
}

void complete_buffer(void*, uint32_t, uint8_t* buffer, std::size_t, std::size_t valid) {
  Collected& all = collected();
  std::scoped_lock lock(all.mutex);
  for (void* record = nullptr; valid > 0 && all.next(buffer, valid, &record) == kSuccess;) {
    const auto* kernel = static_cast<const cupti_abi::Kernel*>(record);
    if (kernel->kind != kConcurrentKernel) continue;
    const std::string_view name = kernel->name ? kernel->name : "";
    auto known = all.names.find(name);
    if (known == all.names.end()) known = all.names.emplace(name).first;
    all.records.push_back({kernel->start, kernel->end, *known});
  }
  std::free(buffer);
}

/// CUPTI let us down, not the work that was timed.
struct CuptiError : Error {
  explicit CuptiError(const std::string& what) : Error(ErrorCode::unavailable, what) {}
};

}  // namespace

std::vector<CallTime> split_at_markers(std::vector<KernelRecord> records) {
  // On one stream kernels start in the order in which they were launched.
  std::stable_sort(records.begin(), records.end(),
                   [](const KernelRecord& x, const KernelRecord& y) { return x.start_ns < y.start_ns; });
  std::vector<CallTime> calls;
  uint64_t first_start = 0, last_end = 0;
  for (const KernelRecord& record : records) {
    if (record.name == kMarkerKernel) {
      calls.emplace_back();
      continue;
    }
    if (calls.empty() || record.name == kFlushKernel) continue;
    CallTime& call = calls.back();
    if (call.kernels++ == 0) first_start = record.start_ns, last_end = record.end_ns;
    last_end = std::max(last_end, record.end_ns);
    call.kernel_us += static_cast<double>(record.end_ns - record.start_ns) * 1e-3;
    call.span_us = static_cast<double>(last_end - first_start) * 1e-3;
    if (std::find(call.names.begin(), call.names.end(), record.name) == call.names.end())
      call.names.emplace_back(record.name);
  }
  return calls;
}

class Timer::Cupti {
 public:
  Cupti() : library_(kNames) {
    collected().next = library_.symbol<GetNextRecord>("cuptiActivityGetNextRecord");
    flush_ = library_.symbol<FlushAll>("cuptiActivityFlushAll");
    dropped_ = library_.symbol<GetNumDroppedRecords>("cuptiActivityGetNumDroppedRecords");
    disable_ = library_.symbol<Enable>("cuptiActivityDisable");
    text_ = library_.symbol<GetResultString>("cuptiGetResultString");
    check("cuptiGetVersion", library_.symbol<GetVersion>("cuptiGetVersion")(&version_));
    static bool registered = false;  // CUPTI keeps one set of callbacks for the life of the process
    if (!std::exchange(registered, true)) {
      check("cuptiActivityRegisterCallbacks",
            library_.symbol<RegisterCallbacks>("cuptiActivityRegisterCallbacks")(request_buffer, complete_buffer));
    }
    check("cuptiActivityEnable", library_.symbol<Enable>("cuptiActivityEnable")(kConcurrentKernel));
  }
  ~Cupti() {
    disable_(kConcurrentKernel);
    flush_(kFlushForced);
  }
  Cupti(const Cupti&) = delete;
  Cupti& operator=(const Cupti&) = delete;

  /// Forgets what ran so far. The stream must be idle.
  void clear() { (void)take(); }

  /// The kernels since the last clear() or take(). The stream must be idle.
  std::vector<KernelRecord> take() {
    check("cuptiActivityFlushAll", flush_(kFlushForced));
    std::size_t lost = 0;
    if (dropped_(nullptr, 0, &lost) == kSuccess && lost > 0)
      throw CuptiError(fmt::format("CUPTI dropped {} records", lost));
    Collected& all = collected();
    std::scoped_lock lock(all.mutex);
    return std::exchange(all.records, {});
  }

  std::string description() const {
    // From CUDA 13 on the version reads 130001 = 13.0, patch 1; before it was a plain counter.
    return version_ < 100000 ? fmt::format("CUPTI API {} ({})", version_, library_.file_name())
                             : fmt::format("CUPTI {}.{}.{} ({})", version_ / 10000, version_ / 100 % 100,
                                           version_ % 100, library_.file_name());
  }

 private:
  static constexpr const char* kNames[] = {"libcupti.so.13", "libcupti.so.12", "libcupti.so"};

  void check(const char* function, Result result) const {
    if (result == kSuccess) return;
    const char* text = nullptr;
    text_(result, &text);
    throw CuptiError(
        fmt::format("{} of {} failed: {} ({})", function, library_.path(), text ? text : "no text", result));
  }

  DynamicLibrary library_;
  FlushAll* flush_ = nullptr;
  GetNumDroppedRecords* dropped_ = nullptr;
  Enable* disable_ = nullptr;
  GetResultString* text_ = nullptr;
  uint32_t version_ = 0;
};

Timer::Timer(Context& context, Stream stream) : context_(context), stream_(stream) {
  mark();  // compiled and loaded here, not inside a measurement
  cuda::synchronize(stream_);
  try {
    cupti_ = std::make_unique<Cupti>();
    cupti_->clear();
    mark();
    cuda::synchronize(stream_);
    const std::vector<KernelRecord> records = cupti_->take();
    if (records.size() != 1 || records[0].name != kMarkerKernel || records[0].end_ns <= records[0].start_ns)
      throw CuptiError(fmt::format("{} gave {} records for one kernel", cupti_->description(), records.size()));
    note_ = cupti_->description();
  } catch (const Error& error) {
    cupti_.reset();
    note_ = error.what();
  }
}

Timer::~Timer() = default;

const char* Timer::name() const { return cupti_ ? "cupti" : "events"; }

void Timer::mark() {
  const cuda::Kernel& kernel =
      context_.impl().kernel(kMarkerKernel, fmt::format("extern \"C\" __global__ void {}() {{}}\n", kMarkerKernel));
  cuda::launch(kernel, {.block_threads = 32}, stream_, nullptr);
}

std::vector<CallTime> Timer::time(std::span<const std::function<void()>> calls, const std::function<void()>& before) {
  if (cupti_) {
    try {
      return time_by_cupti(calls, before);
    } catch (const CuptiError& error) {
      note_ = error.what();
      cupti_.reset();
    }
  }
  return time_by_events(calls, before);
}

std::vector<CallTime> Timer::time_by_cupti(std::span<const std::function<void()>> calls,
                                           const std::function<void()>& before) {
  cuda::synchronize(stream_);
  cupti_->clear();
  for (const auto& call : calls) {
    mark();
    before();
    call();
  }
  cuda::synchronize(stream_);
  std::vector<CallTime> times = split_at_markers(cupti_->take());
  if (times.size() != calls.size())
    throw CuptiError(fmt::format("CUPTI gave records of {} of {} calls", times.size(), calls.size()));
  for (const CallTime& time : times)
    if (time.kernels == 0) throw CuptiError("CUPTI gave no record of a call's kernels");
  return times;
}

std::vector<CallTime> Timer::time_by_events(std::span<const std::function<void()>> calls,
                                            const std::function<void()>& before) {
  std::deque<cuda::Event> starts(calls.size()), ends(calls.size());
  for (std::size_t i = 0; i < calls.size(); ++i) {
    before();
    starts[i].record(stream_);
    calls[i]();
    ends[i].record(stream_);
  }
  cuda::synchronize(stream_);
  std::vector<CallTime> times(calls.size());
  for (std::size_t i = 0; i < calls.size(); ++i)
    times[i].kernel_us = times[i].span_us = cuda::Event::elapsed_ms(starts[i], ends[i]) * 1e3;
  return times;
}

}  // namespace deep_gemm::bench
