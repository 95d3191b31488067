// Kernel configurations, plans and problems as JSON, by the names of fields().
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <deep_gemm/gemm.h>

namespace deep_gemm {

nlohmann::ordered_json to_json(const GemmConfig& config);

/// Fields that are left out keep the default of GemmConfig. Throws Error{invalid_argument} for names it does not have
/// and values that are not of the field's type.
GemmConfig config_from_json(const nlohmann::json& json);
/// The same from text; also an array of configurations.
std::vector<GemmConfig> configs_from_text(const std::string& text);

/// A JSON object with m, n and k, and any other field of Problem by its name. Throws Error{invalid_argument}.
Problem problem_from_text(const std::string& text);

/// {config, launch: {grid, block_threads, cluster, smem_bytes, raster_tiles, stream_b, b_fetch_bytes}, estimate_us, reason,
/// runners_up}
nlohmann::ordered_json to_json(const GemmPlan& plan);

}  // namespace deep_gemm
