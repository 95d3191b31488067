// Clocks, power and temperature through NVML, opened at run time.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace deep_gemm::bench {

struct ClockSample {
  unsigned sm_mhz = 0;
  double power_w = 0;
  unsigned temperature_c = 0;
};

/// The samples around and during a piece of work.
struct ClockReport {
  ClockSample before, after;
  unsigned sm_mhz_min = 0, sm_mhz_max = 0;
  double power_w_max = 0;
  unsigned temperature_c_max = 0;
};

class Nvml {
 public:
  /// Opens NVML for the device with this CUDA `uuid`, or, where NVML does not know it, ordinal `index`. Throws
  /// Error{unavailable}.
  Nvml(const std::string& uuid, int index);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  /// Nothing where the device gives no such figure.
  std::optional<ClockSample> sample() const;
  /// "580.159.04"; empty where NVML does not say.
  std::string driver_version() const;
  /// The limit in force, W; 0 where NVML does not say.
  double power_limit_w() const;

 private:
  struct Functions;
  std::unique_ptr<Functions> functions_;
  void* device_ = nullptr;
};

/// Samples every 20 ms on a thread of its own, from construction to finish().
class ClockWatch {
 public:
  explicit ClockWatch(const Nvml* nvml);  ///< null: finish() returns nothing
  ~ClockWatch();
  ClockWatch(const ClockWatch&) = delete;
  ClockWatch& operator=(const ClockWatch&) = delete;
  std::optional<ClockReport> finish();

 private:
  void take(const ClockSample& sample);
  const Nvml* nvml_;
  std::optional<ClockReport> report_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace deep_gemm::bench
