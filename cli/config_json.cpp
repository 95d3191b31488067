#include "config_json.h"

#include <array>

#include "text.h"

namespace deep_gemm::cli {
namespace {

using nlohmann::json;

constexpr std::array kDTypes = {DType::e4m3, DType::e5m2, DType::bf16, DType::f16, DType::f32, DType::i32};
constexpr std::array kMulticasts = {Multicast::none, Multicast::a, Multicast::b};

[[noreturn]] void wrong(const char* name, const json& value, const char* expected) {
  fail(ErrorCode::invalid_argument, "config: {} is {}, expected {}", name, value.dump(), expected);
}

void read(const char* name, const json& value, int& field) {
  if (!value.is_number_integer() || value < 0 || value > 1'000'000) wrong(name, value, "a whole number up to 1000000");
  field = value.get<int>();
}

void read(const char* name, const json& value, bool& field) {
  if (!value.is_boolean()) wrong(name, value, "true or false");
  field = value.get<bool>();
}

template <class Enum, std::size_t count>
void read_enum(const char* name, const json& value, Enum& field, const std::array<Enum, count>& all) {
  for (Enum one : all) {
    if (value == name_of(one)) {
      field = one;
      return;
    }
  }
  std::string names;
  for (Enum one : all) names += fmt::format("{}{}", names.empty() ? "" : ", ", name_of(one));
  wrong(name, value, fmt::format("one of {}", names).c_str());
}

void read(const char* name, const json& value, DType& field) { read_enum(name, value, field, kDTypes); }
void read(const char* name, const json& value, Multicast& field) { read_enum(name, value, field, kMulticasts); }

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
  if (!given.is_object())
    fail(ErrorCode::invalid_argument, "config: expected a JSON object, given {:.80}", given.dump());
  GemmConfig config;
  std::size_t known = 0;
  std::string names;
  fields(config, [&](const char* name, auto& field) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
    if (const auto it = given.find(name); it != given.end()) {
      read(name, *it, field);
      ++known;
    }
  });
  if (known != given.size())
    fail(ErrorCode::invalid_argument, "config: {:.200} has a field that is not one of {}", given.dump(), names);
  return config;
}

std::vector<GemmConfig> configs_from_text(const std::string& text) {
  json given;
  try {
    given = json::parse(text);
  } catch (const json::exception& e) {
    fail(ErrorCode::invalid_argument, "config: not JSON: {:.200}", e.what());
  }
  std::vector<GemmConfig> configs;
  for (const json& one : given.is_array() ? given : json::array({given})) configs.push_back(config_from_json(one));
  if (configs.empty()) fail(ErrorCode::invalid_argument, "config: an empty array");
  return configs;
}

}  // namespace deep_gemm::cli
