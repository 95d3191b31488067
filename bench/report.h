// What a benchmark run says: JSON for programs and for the record, a short table for people.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/harness.h"

namespace deep_gemm::bench {

/// Digest of the device and launch sources this program was built from (bench/digest.cmake).
const char* tree_digest();

struct Report {
  Machine machine;
  HarnessOptions options;
  std::string date;      ///< UTC, ISO 8601
  std::string revision;  ///< of the source tree, where the caller knows it
  std::string command;   ///< that made the report
  std::vector<ShapeResult> shapes;
  std::size_t left_out = 0;  ///< shapes that were asked for and not run
  std::string error;         ///< why the run ended early; empty if it did not
};

/// One geometric mean over part of the shapes.
struct Mean {
  std::string over;  ///< "all", "m = 4096", "m <= 128"
  std::size_t shapes = 0;
  double value = 0;
};
/// The rival's median over ours, where both ran and neither had a mismatch.
std::vector<Mean> speedups(const std::vector<ShapeResult>& shapes);
/// Our median over the floor's.
std::vector<Mean> over_floor(const std::vector<ShapeResult>& shapes);

/// How good the plan's choices were among the configs that were timed beside them.
struct Choices {
  std::size_t shapes = 0;
  std::size_t within_5_percent = 0;
  double worst = 1;                      ///< largest chosen / best
  std::vector<double> chosen_over_best;  ///< of each shape that timed others
};
Choices choices(const std::vector<ShapeResult>& shapes);

/// Elements that differ from the reference, over all contenders; a contender that was not checked counts none.
int64_t mismatches(const std::vector<ShapeResult>& shapes);

nlohmann::ordered_json to_json(const Report& report);
/// The first row is the head.
std::vector<std::vector<std::string>> table(const Report& report);
/// Chosen against best of each shape, best first among the runners; the first row is the head. Only with other configs.
std::vector<std::vector<std::string>> config_table(const Report& report);
/// Device, conditions, means: what stands under the table.
std::vector<std::string> summary(const Report& report);

}  // namespace deep_gemm::bench
