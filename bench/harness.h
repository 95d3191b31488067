// Times shapes: our kernels and the rival launch by launch, on the same operands, beside the streaming floor.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <deep_gemm/gemm.h>

#include "bench/nvml.h"
#include "bench/regime.h"
#include "bench/stats.h"
#include "verify/workload.h"

namespace deep_gemm::bench {

/// Bytes a product must move at the least: each operand read once, D written once, and read where it is added to; without
/// scales and padding.
int64_t bytes_of(const Shape& shape, DType d_type);
/// 2·m·n·k, m (k-grouped: k) being that of all groups
double flop_of(const Shape& shape);

struct HarnessOptions {
  Regime regime = Regime::cool;
  Problem form{};            ///< types and scales of all products; their shapes are left out
  bool rival = false;        ///< cuBLASLt beside ours
  bool rival_best = true;    ///< the rival runs the fastest of its first 8 proposals, timed warm; else its first
  bool all_configs = false;  ///< times the configs with the best estimates, up to `max_configs`
  int max_configs = 24;
  std::vector<GemmConfig> configs{};  ///< times these too, where legal
  int repeats = 10;
  bool check = true;  ///< compares every element with the reference: ours and the rival's result for each
                      ///< shape, other configs' for the first shape they run
  uint64_t seed = 1;
};

/// How one contender did on one shape. `error` not empty: it did not run, and why.
struct Outcome {
  std::string error;
  Stats time_us;
  double tflops = 0, gbytes_per_s = 0;
  double over_floor = 0;  ///< median over the floor's
  int kernels = 0;        ///< launched by one call, as far as CUPTI tells; 0 with events
  std::vector<std::string> kernel_names;
  std::optional<verify::Report> check;
};

struct ConfigOutcome {
  GemmConfig config;
  std::string name;
  double estimate_us = 0;
  Outcome outcome;
};

struct RivalOutcome {
  Outcome outcome;
  int proposals = 0;                 ///< that its heuristic made
  int chosen = 0;                    ///< the one that was timed
  std::vector<double> proposals_us;  ///< their warm times, where they were compared
};

struct ShapeResult {
  Shape shape;
  GemmPlan plan;
  std::string kernel;  ///< entry of the chosen kernel
  std::string timer;   ///< "cupti" or "events"
  Outcome ours;
  std::optional<RivalOutcome> rival;
  std::vector<ConfigOutcome> configs;  ///< besides the chosen one
  double floor_us = 0;
  std::string floor_way;  ///< "bulk" or "vectors": the better one
  std::optional<ClockReport> clocks;
  double seconds = 0;  ///< that this shape took on the host
};

/// What a report says of the machine.
struct Machine {
  std::string device, uuid;
  int num_sms = 0;
  int64_t l2_bytes = 0, memory_bytes = 0;
  std::string driver;  ///< "580.159.04"; empty without NVML
  std::string cuda;    ///< what the driver supports: "13.0"
  double power_limit_w = 0;
  std::string compiler;  ///< of the kernels: "NVRTC 13.0"
  std::string timer, timer_note, rival, rival_note, nvml_note;
};

class Harness {
 public:
  using Say = std::function<void(const std::string&)>;
  /// Opens CUPTI, NVML and the rival as far as they are there; `say` receives a line for each that is not.
  Harness(Context& context, const HarnessOptions& options, Say say);
  ~Harness();
  Harness(const Harness&) = delete;
  Harness& operator=(const Harness&) = delete;

  /// Compiles all that `shapes` need on all cores, so that nothing is compiled between measurements.
  void compile(const std::vector<Shape>& shapes);
  /// Times one shape. Throws Error{cuda} where the device failed; what merely cannot run a shape becomes an outcome's error.
  ShapeResult run(const Shape& shape);
  Machine machine() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace deep_gemm::bench
