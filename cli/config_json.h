// Kernel configurations, plans and problems as JSON, by the names of fields().
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <deep_gemm/gemm.h>

namespace deep_gemm::cli {

nlohmann::ordered_json to_json(const GemmConfig& config);

/// Fields that are left out keep the default of GemmConfig. Throws Error{invalid_argument} for names it does not have
/// and values that are not of the field's type.
GemmConfig config_from_json(const nlohmann::json& json);
/// The same from text; also an array of configurations.
std::vector<GemmConfig> configs_from_text(const std::string& text);

}  // namespace deep_gemm::cli
