// Step 2 of the walk, taken apart: candidates → why_illegal → estimate → best. All pure.
#pragma once

#include <vector>

#include <deep_gemm/gemm.h>

namespace deep_gemm {

/// Every config worth considering for the problem's types, legal on the device.
std::vector<GemmConfig> candidates(const Problem& problem, const DeviceInfo& device);
/// Why `config` cannot run `problem` on `device`, or null.
const char* why_illegal(const GemmConfig& config, const Problem& problem, const DeviceInfo& device);
/// Expected kernel time in µs.
double estimate_us(const GemmConfig& config, const Problem& problem, const DeviceInfo& device);

/// `plan` without what is for people, its reason and runners-up, where kernels_for has been asked before.
GemmPlan plan_among(const std::vector<GemmConfig>& kernels, const Problem& problem, const DeviceInfo& device);

/// `found` with the rates of the preset that has the same name and SM count, if there is one, so that a plan made on
/// the GPU is the plan made ahead of time for it.
DeviceInfo known_device(const DeviceInfo& found);

}  // namespace deep_gemm
