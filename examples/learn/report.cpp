#include "learn/report.h"

#include <fmt/format.h>

namespace deep_gemm::learn {

namespace {

nlohmann::ordered_json to_json(const Timing& t, double shipped_us) {
  nlohmann::ordered_json json = {{"name", t.name},
                                 {"new", t.what_is_new},
                                 {"kernel", t.kernel},
                                 {"registers", t.registers},
                                 {"smem_bytes", t.smem_bytes},
                                 {"time_us", {{"median", t.median_us}, {"min", t.min_us}, {"max", t.max_us}}},
                                 {"tflops", t.tflops},
                                 {"share_of_shipped", shipped_us / t.median_us},
                                 {"check", {{"worst_ratio", t.worst_ratio}, {"mismatches", t.mismatches}}}};
  if (!t.sha256.empty()) json["sha256"] = t.sha256;
  return json;
}

std::string number(double value) { return fmt::format("{:.{}f}", value, value < 100 ? 1 : 0); }

std::string row(const std::string& step, const nlohmann::ordered_json& timing) {
  const double share = timing.at("share_of_shipped");
  return fmt::format("| {} | {} | {} | {} | {} |\n", step, timing.at("new").get<std::string>(),
                     number(timing.at("time_us").at("median")), number(timing.at("tflops")),
                     fmt::format("{:.{}f} %", share * 100, share < 0.1 ? 1 : 0));
}

}  // namespace

nlohmann::ordered_json to_json(const Report& r) {
  nlohmann::ordered_json steps = nlohmann::ordered_json::array();
  for (const auto& [number, timing] : r.steps) {
    nlohmann::ordered_json step = {{"step", number}};
    step.update(to_json(timing, r.shipped.median_us));
    steps.push_back(step);
  }
  return {{"format", 1},
          {"date", r.date},
          {"version", r.version},
          {"revision", r.revision},
          {"digest", r.digest},
          {"command", r.command},
          {"device", r.device},
          {"driver", r.driver},
          {"cuda", r.cuda},
          {"compiler", r.compiler},
          {"timer", r.timer},
          {"regime", r.regime},
          {"repeats", r.repeats},
          {"m", r.m},
          {"n", r.n},
          {"k", r.k},
          {"steps", steps},
          {"shipped", to_json(r.shipped, r.shipped.median_us)}};
}

std::string markdown(const nlohmann::ordered_json& r) {
  std::string text =
      "| step | what is new | µs | TFLOPS | of the shipped kernel |\n| --- | --- | ---: | ---: | ---: |\n";
  for (const auto& step : r.at("steps"))
    text += row(fmt::format("{} {}", step.at("step").get<int>(), step.at("name").get<std::string>()), step);
  text += row("shipped", r.at("shipped"));
  const auto word = [&](const char* key) { return r.at(key).get<std::string>(); };
  return text + fmt::format("\n{}×{}×{}, {}, driver {}, CUDA {}, {}, regime {}, median of {} launches by {}.\n",
                            r.at("m").get<int64_t>(), r.at("n").get<int64_t>(), r.at("k").get<int64_t>(),
                            word("device"), word("driver"), word("cuda"), word("date").substr(0, 10), word("regime"),
                            r.at("repeats").get<int>(), word("timer"));
}

}  // namespace deep_gemm::learn
