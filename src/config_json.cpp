#include "config_json.h"

#include <array>

#include "text.h"

namespace deep_gemm {
namespace {

using nlohmann::json;

constexpr std::array kDTypes = {DType::e4m3, DType::e5m2, DType::bf16, DType::f16, DType::f32, DType::i32};
constexpr std::array kLayouts = {Layout::dense, Layout::contiguous, Layout::offsets, Layout::masked, Layout::k_grouped};
constexpr std::array kMulticasts = {Multicast::none, Multicast::a, Multicast::b};

[[noreturn]] void wrong(const std::string& name, const json& value, const std::string& expected) {
  fail(ErrorCode::invalid_argument, "{} is {:.80}, expected {}", name, value.dump(), expected);
}

json parse(const char* what, const std::string& text) {
  // No config and no problem is deeper; error texts show values, and to write one takes a call a level.
  constexpr int kMaxDepth = 3;
  const auto is_flat = [&](int depth, json::parse_event_t, const json&) {
    if (depth > kMaxDepth) fail(ErrorCode::invalid_argument, "{}: nested more than {} deep", what, kMaxDepth);
    return true;
  };
  try {
    return json::parse(text, is_flat);
  } catch (const json::exception& e) {
    fail(ErrorCode::invalid_argument, "{}: not JSON: {:.200}", what, e.what());
  }
}

void read(const std::string& name, const json& value, int& field) {
  if (!value.is_number_integer() || value < 0 || value > 1'000'000) wrong(name, value, "a whole number up to 1000000");
  field = value.get<int>();
}

void read(const std::string& name, const json& value, int64_t& field) {
  if (!value.is_number_integer() || value < 0 || value > INT32_MAX) wrong(name, value, "a whole number below 2^31");
  field = value.get<int64_t>();
}

void read(const std::string& name, const json& value, bool& field) {
  if (!value.is_boolean()) wrong(name, value, "true or false");
  field = value.get<bool>();
}

template <class Enum, std::size_t count>
void read_enum(const std::string& name, const json& value, Enum& field, const std::array<Enum, count>& all) {
  for (Enum one : all) {
    if (value == name_of(one)) {
      field = one;
      return;
    }
  }
  std::string names;
  for (Enum one : all) names += fmt::format("{}{}", names.empty() ? "" : ", ", name_of(one));
  wrong(name, value, fmt::format("one of {}", names));
}

void read(const std::string& name, const json& value, DType& field) { read_enum(name, value, field, kDTypes); }
void read(const std::string& name, const json& value, Layout& field) { read_enum(name, value, field, kLayouts); }
void read(const std::string& name, const json& value, Multicast& field) { read_enum(name, value, field, kMulticasts); }

/// Sets what `given` names of the fields that `each(f)` calls f(name, field) for.
template <class Each>
void read_object(const std::string& what, const json& given, const Each& each) {
  if (!given.is_object())
    fail(ErrorCode::invalid_argument, "{}: expected a JSON object, given {:.80}", what, given.dump());
  std::size_t known = 0;
  std::string names;
  each([&](const char* name, auto& field) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
    if (const auto it = given.find(name); it != given.end()) {
      read(fmt::format("{}: {}", what, name), *it, field);
      ++known;
    }
  });
  if (known != given.size())
    fail(ErrorCode::invalid_argument, "{}: {:.200} has a field that is not one of {}", what, given.dump(), names);
}

json value_of(Layout field) { return name_of(field); }
json value_of(DType field) { return name_of(field); }
json value_of(Multicast field) { return name_of(field); }
json value_of(int field) { return field; }
json value_of(bool field) { return field; }

}  // namespace

nlohmann::ordered_json to_json(const GemmConfig& config) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  fields(config, [&](const char* name, const auto& field) { out[name] = value_of(field); });
  return out;
}

GemmConfig config_from_json(const json& given) {
  GemmConfig config;
  read_object("config", given, [&](auto&& f) { fields(config, f); });
  return config;
}

std::vector<GemmConfig> configs_from_text(const std::string& text) {
  const json given = parse("config", text);
  std::vector<GemmConfig> configs;
  for (const json& one : given.is_array() ? given : json::array({given})) configs.push_back(config_from_json(one));
  if (configs.empty()) fail(ErrorCode::invalid_argument, "config: an empty array");
  return configs;
}

Problem problem_from_text(const std::string& text) {
  const json given = parse("problem", text);
  Problem problem;
  read_object("problem", given, [&](auto&& f) {
    f("m", problem.m), f("n", problem.n), f("k", problem.k);
    f("d_type", problem.d_type);
    f("scaled_a", problem.scaled_a), f("scaled_b", problem.scaled_b);
    f("accumulate", problem.accumulate);
    f("a_type", problem.a_type), f("b_type", problem.b_type);
    f("scale_rows_b", problem.scale_rows_b), f("batch_invariant", problem.batch_invariant);
    f("num_sms", problem.num_sms);
    f("layout", problem.layout), f("groups", problem.groups), f("expected_m", problem.expected_m);
  });
  for (const char* name : {"m", "n", "k"})
    if (!given.contains(name)) fail(ErrorCode::invalid_argument, "problem: {} is missing", name);
  return problem;
}

nlohmann::ordered_json to_json(const GemmPlan& plan) {
  nlohmann::ordered_json runners_up = nlohmann::ordered_json::array();
  for (const PlanCandidate& one : plan.runners_up)
    runners_up.push_back({{"config", to_json(one.config)}, {"estimate_us", one.estimate_us}});
  return {{"config", to_json(plan.config)},
          {"launch",
           {{"grid", plan.grid},
            {"block_threads", plan.block_threads},
            {"cluster", plan.config.cluster},
            {"smem_bytes", plan.smem_bytes},
            {"raster_tiles", plan.raster_tiles},
            {"stream_b", plan.stream_b},
            {"b_fetch_bytes", plan.b_fetch_bytes}}},
          {"estimate_us", plan.estimate_us},
          {"reason", plan.reason},
          {"runners_up", runners_up}};
}

}  // namespace deep_gemm
