#include "bench/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace deep_gemm::bench {

double percentile(std::span<const double> sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], at - static_cast<double>(below));
}

Stats summarize(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  Stats stats{.count = static_cast<int>(samples.size()),
              .median = percentile(samples, 0.5),
              .min = samples.front(),
              .max = samples.back(),
              .p10 = percentile(samples, 0.1),
              .p90 = percentile(samples, 0.9),
              .mean = std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size())};
  for (double& x : samples) x = std::abs(x - stats.median);
  std::sort(samples.begin(), samples.end());
  stats.mad = percentile(samples, 0.5);
  return stats;
}

double geometric_mean(std::span<const double> values) {
  if (values.empty()) return 0;
  double sum = 0;
  for (double x : values) sum += std::log(x);
  return std::exp(sum / static_cast<double>(values.size()));
}

}  // namespace deep_gemm::bench
