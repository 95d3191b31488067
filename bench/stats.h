// Statistics of repeated measurements.
#pragma once

#include <span>
#include <vector>

namespace deep_gemm::bench {

/// What is said of a set of samples. Percentiles interpolate between neighbours; `mad` is the median of the distances to
/// the median. All 0 where there is no sample.
struct Stats {
  int count = 0;
  double median = 0, min = 0, max = 0, p10 = 0, p90 = 0, mad = 0, mean = 0;
};
Stats summarize(std::vector<double> samples);

/// The value below which the share `q` (0…1) of `sorted`, an ascending and non-empty row, lies.
double percentile(std::span<const double> sorted, double q);

/// exp of the mean logarithm of positive values; 0 for none.
double geometric_mean(std::span<const double> values);

}  // namespace deep_gemm::bench
