// What a run of deep_gemm_learn found, as JSON and as the Markdown table of docs/learn/README.md.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace deep_gemm::learn {

struct Timing {
  std::string name, what_is_new, kernel, sha256;  ///< of the text that was compiled; empty for the shipped kernel
  int registers = 0, smem_bytes = 0;
  double median_us = 0, min_us = 0, max_us = 0, tflops = 0;
  double worst_ratio = 0;  ///< of error to bound, over all elements
  int64_t mismatches = 0;
};

struct Report {
  std::string date, version, revision, digest, command, device, driver, cuda, compiler, timer, regime;
  int64_t m = 0, n = 0, k = 0;
  int repeats = 0;
  std::vector<std::pair<int, Timing>> steps;  ///< with their numbers, from 1
  Timing shipped;
};

nlohmann::ordered_json to_json(const Report& report);

/// The table of a report's JSON, and a line that says how it was measured.
std::string markdown(const nlohmann::ordered_json& report);

}  // namespace deep_gemm::learn
