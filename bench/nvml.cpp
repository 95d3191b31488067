#include "bench/nvml.h"

#include <algorithm>
#include <chrono>

#include "bench/dynamic_library.h"
#include "text.h"

namespace deep_gemm::bench {
namespace {

using Result = int;                 // nvmlReturn_t; 0 is success
constexpr int kClockSm = 1;         // NVML_CLOCK_SM
constexpr int kTemperatureGpu = 0;  // NVML_TEMPERATURE_GPU
constexpr const char* kNames[] = {"libnvidia-ml.so.1", "libnvidia-ml.so"};

}  // namespace

struct Nvml::Functions {
  DynamicLibrary library{kNames};
  template <class F>
  F* get(const char* name) const {
    return library.symbol<F>(name);
  }
  Result (*shutdown)() = get<Result()>("nvmlShutdown");
  Result (*clock)(void*, int, unsigned*) = get<Result(void*, int, unsigned*)>("nvmlDeviceGetClockInfo");
  Result (*power)(void*, unsigned*) = get<Result(void*, unsigned*)>("nvmlDeviceGetPowerUsage");
  Result (*power_limit)(void*, unsigned*) = get<Result(void*, unsigned*)>("nvmlDeviceGetEnforcedPowerLimit");
  Result (*temperature)(void*, int, unsigned*) = get<Result(void*, int, unsigned*)>("nvmlDeviceGetTemperature");
  Result (*driver)(char*, unsigned) = get<Result(char*, unsigned)>("nvmlSystemGetDriverVersion");
};

Nvml::Nvml(const std::string& uuid, int index) : functions_(std::make_unique<Functions>()) {
  if (const Result r = functions_->get<Result()>("nvmlInit_v2")(); r != 0)
    fail(ErrorCode::unavailable, "nvmlInit_v2 failed with {}", r);
  const auto by_uuid = functions_->get<Result(const char*, void**)>("nvmlDeviceGetHandleByUUID");
  const auto by_index = functions_->get<Result(unsigned, void**)>("nvmlDeviceGetHandleByIndex_v2");
  const std::string name = uuid.starts_with("GPU-") ? uuid : "GPU-" + uuid;
  if (by_uuid(name.c_str(), &device_) == 0) return;
  if (const Result r = by_index(static_cast<unsigned>(index), &device_); r != 0) {
    functions_->shutdown();
    fail(ErrorCode::unavailable, "NVML knows neither device {} nor index {} ({})", name, index, r);
  }
}

Nvml::~Nvml() { functions_->shutdown(); }

std::optional<ClockSample> Nvml::sample() const {
  ClockSample sample;
  unsigned milliwatt = 0;
  if (functions_->clock(device_, kClockSm, &sample.sm_mhz) != 0 || functions_->power(device_, &milliwatt) != 0 ||
      functions_->temperature(device_, kTemperatureGpu, &sample.temperature_c) != 0)
    return std::nullopt;
  sample.power_w = milliwatt * 1e-3;
  return sample;
}

std::string Nvml::driver_version() const {
  char text[96] = {};
  return functions_->driver(text, sizeof text) == 0 ? text : "";
}

double Nvml::power_limit_w() const {
  unsigned milliwatt = 0;
  return functions_->power_limit(device_, &milliwatt) == 0 ? milliwatt * 1e-3 : 0;
}

ClockWatch::ClockWatch(const Nvml* nvml) : nvml_(nvml) {
  if (!nvml_) return;
  const auto first = nvml_->sample();
  if (!first) return;
  report_ = ClockReport{.before = *first, .after = *first, .sm_mhz_min = first->sm_mhz};
  take(*first);
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, std::chrono::milliseconds(20), [this] { return stop_; }))
      if (const auto sample = nvml_->sample()) take(*sample);
  });
}

ClockWatch::~ClockWatch() { finish(); }

void ClockWatch::take(const ClockSample& sample) {
  report_->after = sample;
  report_->sm_mhz_min = std::min(report_->sm_mhz_min, sample.sm_mhz);
  report_->sm_mhz_max = std::max(report_->sm_mhz_max, sample.sm_mhz);
  report_->power_w_max = std::max(report_->power_w_max, sample.power_w);
  report_->temperature_c_max = std::max(report_->temperature_c_max, sample.temperature_c);
}

std::optional<ClockReport> ClockWatch::finish() {
  if (!thread_.joinable()) return report_;
  {
    std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  if (const auto last = nvml_->sample()) take(*last);
  return report_;
}

}  // namespace deep_gemm::bench
