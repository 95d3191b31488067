#include "bench/report.h"

#include <algorithm>
#include <set>
#include <type_traits>

#include "text.h"

namespace deep_gemm::bench {
namespace {

using Json = nlohmann::ordered_json;

bool ran(const Outcome& outcome) { return outcome.error.empty() && outcome.time_us.count > 0; }
bool right(const Outcome& outcome) { return !outcome.check || outcome.check->mismatches == 0; }

/// Figures are measured to three or four digits; more would only make files that differ.
double rounded(double value) { return std::stod(fmt::format("{:.5g}", value)); }

template <class Value>
std::vector<Mean> means(const std::vector<ShapeResult>& shapes, Value&& value) {
  struct Part {
    const char* name;
    bool (*holds)(const Shape& shape);
  };
  constexpr Part kParts[] = {{"all", [](const Shape&) { return true; }},
                             {"m = 4096", [](const Shape& s) { return s.layout == Layout::dense && s.m == 4096; }},
                             {"m <= 128", [](const Shape& s) { return s.layout == Layout::dense && s.m <= 128; }},
                             {"contiguous", [](const Shape& s) { return s.layout == Layout::contiguous; }},
                             {"offsets", [](const Shape& s) { return s.layout == Layout::offsets; }},
                             {"masked", [](const Shape& s) { return s.layout == Layout::masked; }},
                             {"k-grouped", [](const Shape& s) { return s.layout == Layout::k_grouped; }}};
  std::vector<Mean> found;
  for (const Part& part : kParts) {
    std::vector<double> values;
    for (const ShapeResult& shape : shapes)
      if (const double x = part.holds(shape.shape) ? value(shape) : 0; x > 0) values.push_back(x);
    if (!values.empty()) found.push_back({part.name, values.size(), geometric_mean(values)});
  }
  return found;
}

Json config_json(const GemmConfig& config) {
  Json json = Json::object();
  fields(config, [&](const char* name, const auto& field) {
    if constexpr (std::is_enum_v<std::remove_cvref_t<decltype(field)>>)
      json[name] = name_of(field);
    else
      json[name] = field;
  });
  return json;
}

Json stats_json(const Stats& s) {
  return {{"count", s.count},      {"median", rounded(s.median)}, {"min", rounded(s.min)}, {"max", rounded(s.max)},
          {"p10", rounded(s.p10)}, {"p90", rounded(s.p90)},       {"mad", rounded(s.mad)}, {"mean", rounded(s.mean)}};
}

Json check_json(const std::optional<verify::Report>& check) {
  if (!check) return nullptr;
  Json json{{"elements", check->elements},
            {"mismatches", check->mismatches},
            {"worst_ratio", rounded(check->worst_ratio)},
            {"global_score", rounded(check->global_score)}};
  if (check->mismatches > 0) {
    Json& first = json["first"] = Json::array();
    for (const verify::Mismatch& x : check->first)
      first.push_back({{"row", x.row}, {"col", x.col}, {"got", x.got}, {"expected", x.expected}, {"bound", x.bound}});
  }
  return json;
}

Json outcome_json(const Outcome& outcome) {
  if (!outcome.error.empty()) return {{"error", outcome.error}, {"check", check_json(outcome.check)}};
  return {{"time_us", stats_json(outcome.time_us)},
          {"tflops", rounded(outcome.tflops)},
          {"gbytes_per_s", rounded(outcome.gbytes_per_s)},
          {"over_floor", rounded(outcome.over_floor)},
          {"kernels", outcome.kernels},
          {"kernel_names", outcome.kernel_names},
          {"check", check_json(outcome.check)}};
}

Json sample_json(const ClockSample& sample) {
  return {{"sm_mhz", sample.sm_mhz}, {"power_w", rounded(sample.power_w)}, {"temperature_c", sample.temperature_c}};
}

Json clocks_json(const std::optional<ClockReport>& clocks) {
  if (!clocks) return nullptr;
  return {{"before", sample_json(clocks->before)},
          {"after", sample_json(clocks->after)},
          {"sm_mhz_min", clocks->sm_mhz_min},
          {"sm_mhz_max", clocks->sm_mhz_max},
          {"power_w_max", rounded(clocks->power_w_max)},
          {"temperature_c_max", clocks->temperature_c_max}};
}

double ratio_to_rival(const ShapeResult& shape) {
  if (!shape.rival || !ran(shape.ours) || !ran(shape.rival->outcome)) return 0;
  if (!right(shape.ours) || !right(shape.rival->outcome)) return 0;
  return shape.rival->outcome.time_us.median / shape.ours.time_us.median;
}

/// Chosen over best; 0 where nothing was timed beside the chosen config.
double chosen_over_best(const ShapeResult& shape) {
  if (!ran(shape.ours)) return 0;
  double best = shape.ours.time_us.median;
  bool others = false;
  for (const ConfigOutcome& config : shape.configs) {
    if (!ran(config.outcome) || !right(config.outcome)) continue;
    best = std::min(best, config.outcome.time_us.median);
    others = true;
  }
  return others ? shape.ours.time_us.median / best : 0;
}

Json shape_json(const ShapeResult& s, DType d_type) {
  Json json{{"m", rows_of(s.shape)},
            {"n", s.shape.n},
            {"k", depth_of(s.shape)},
            {"layout", layout_text(s.shape.layout)},
            {"groups", s.shape.groups},
            {"loads", s.shape.loads},
            {"bytes", bytes_of(s.shape, d_type)},
            {"timer", s.timer},
            {"kernel", s.kernel},
            {"config", config_json(s.plan.config)},
            {"plan", {{"estimate_us", rounded(s.plan.estimate_us)}, {"grid", s.plan.grid}, {"reason", s.plan.reason}}},
            {"floor", {{"us", rounded(s.floor_us)}, {"way", s.floor_way}}},
            {"ours", outcome_json(s.ours)}};
  if (s.rival) {
    Json& rival = json["rival"] = outcome_json(s.rival->outcome);
    rival["proposals"] = s.rival->proposals;
    rival["chosen_proposal"] = s.rival->chosen;
    Json& times = rival["proposals_warm_us"] = Json::array();
    for (double us : s.rival->proposals_us) times.push_back(rounded(us));
    if (const double ratio = ratio_to_rival(s); ratio > 0) json["speedup"] = rounded(ratio);
  }
  if (!s.configs.empty()) {
    Json& configs = json["other_configs"] = Json::array();
    for (const ConfigOutcome& other : s.configs) {
      Json entry{
          {"kernel", other.name}, {"config", config_json(other.config)}, {"estimate_us", rounded(other.estimate_us)}};
      entry.update(outcome_json(other.outcome));
      configs.push_back(std::move(entry));
    }
    if (const double ratio = chosen_over_best(s); ratio > 0) json["chosen_over_best"] = rounded(ratio);
  }
  json["clocks"] = clocks_json(s.clocks);
  json["seconds"] = rounded(s.seconds);
  return json;
}

Json means_json(const std::vector<Mean>& found) {
  Json json = Json::object();
  for (const Mean& mean : found) json[mean.over] = {{"shapes", mean.shapes}, {"geomean", rounded(mean.value)}};
  return json;
}

Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

std::string check_mark(const Outcome& outcome) {
  if (!outcome.check) return "";
  return outcome.check->mismatches == 0 ? "" : fmt::format(" {} WRONG", outcome.check->mismatches);
}

std::string us_text(double us) { return us < 100 ? fmt::format("{:.2f}", us) : fmt::format("{:.1f}", us); }

std::vector<std::string> outcome_cells(const Outcome& outcome) {
  if (!ran(outcome)) return {"-", "-"};
  return {us_text(outcome.time_us.median) + check_mark(outcome), fmt::format("{:.0f}", outcome.tflops)};
}

}  // namespace

std::vector<Mean> speedups(const std::vector<ShapeResult>& shapes) { return means(shapes, ratio_to_rival); }

std::vector<Mean> over_floor(const std::vector<ShapeResult>& shapes) {
  return means(shapes, [](const ShapeResult& shape) { return ran(shape.ours) ? shape.ours.over_floor : 0; });
}

Choices choices(const std::vector<ShapeResult>& shapes) {
  Choices found;
  for (const ShapeResult& shape : shapes) {
    const double ratio = chosen_over_best(shape);
    if (ratio == 0) continue;
    ++found.shapes;
    found.within_5_percent += ratio <= 1.05;
    found.worst = std::max(found.worst, ratio);
    found.chosen_over_best.push_back(ratio);
  }
  return found;
}

int64_t mismatches(const std::vector<ShapeResult>& shapes) {
  int64_t wrong = 0;
  auto add = [&](const Outcome& outcome) { wrong += outcome.check ? outcome.check->mismatches : 0; };
  for (const ShapeResult& shape : shapes) {
    add(shape.ours);
    if (shape.rival) add(shape.rival->outcome);
    for (const ConfigOutcome& other : shape.configs) add(other.outcome);
  }
  return wrong;
}

nlohmann::ordered_json to_json(const Report& report) {
  const Machine& machine = report.machine;
  const HarnessOptions& options = report.options;
  Json json{{"format", 1},
            {"date", report.date},
            {"version", DG_VERSION},
            {"revision", text_or_null(report.revision)},
            {"digest", tree_digest()},
            {"command", text_or_null(report.command)},
            {"device",
             {{"name", machine.device},
              {"uuid", machine.uuid},
              {"sms", machine.num_sms},
              {"l2_bytes", machine.l2_bytes},
              {"memory_bytes", machine.memory_bytes},
              {"power_limit_w", machine.power_limit_w > 0 ? Json(rounded(machine.power_limit_w)) : Json(nullptr)}}},
            {"driver", text_or_null(machine.driver)},
            {"cuda", machine.cuda},
            {"compiler", text_or_null(machine.compiler)},
            {"timer", machine.timer},
            {"timer_note", machine.timer_note},
            {"nvml_note", text_or_null(machine.nvml_note)},
            {"regime", name_of(options.regime)},
            {"a_type", name_of(options.form.a_type)},
            {"b_type", name_of(options.form.b_type)},
            {"d_type", name_of(options.form.d_type)},
            {"recipe", recipe_text(options.form)},
            {"seed", options.seed},
            {"repeats", options.repeats},
            {"checked", options.check}};
  if (options.rival) {
    json["rival"] = {
        {"name", text_or_null(machine.rival)},
        {"note", machine.rival_note},
        {"algo_choice", options.rival_best ? "fastest of its first 8 proposals, timed warm" : "its first proposal"}};
  }
  Json& shapes = json["shapes"] = Json::array();
  for (const ShapeResult& shape : report.shapes) shapes.push_back(shape_json(shape, options.form.d_type));
  Json& sums = json["summary"] = {{"mismatches", mismatches(report.shapes)},
                                  {"over_floor", means_json(over_floor(report.shapes))}};
  if (options.rival) sums["speedup"] = means_json(speedups(report.shapes));
  if (const Choices found = choices(report.shapes); found.shapes > 0) {
    sums["choices"] = {
        {"shapes", found.shapes},
        {"within_5_percent", found.within_5_percent},
        {"worst", rounded(found.worst)},
        {"chosen_over_best", means_json({{"all", found.shapes, geometric_mean(found.chosen_over_best)}})}};
  }
  json["left_out"] = report.left_out;
  json["error"] = text_or_null(report.error);
  return json;
}

std::vector<std::vector<std::string>> table(const Report& report) {
  const bool rival = report.options.rival;
  const bool grouped = std::any_of(report.shapes.begin(), report.shapes.end(),
                                   [](const ShapeResult& s) { return s.shape.layout != Layout::dense; });
  std::vector<std::vector<std::string>> rows{{"m", "n", "k", "us", "TFLOPS", "GB/s"}};
  if (grouped) rows.front().insert(rows.front().begin(), {"layout", "groups"});
  auto append = [&](std::vector<std::string> cells) {
    rows.back().insert(rows.back().end(), cells.begin(), cells.end());
  };
  if (rival) append({"rival us", "TFLOPS", "ratio"});
  append({"floor us", "share", "kernel"});
  for (const ShapeResult& s : report.shapes) {
    rows.emplace_back();
    if (grouped) append({layout_text(s.shape.layout), fmt::format("{}", s.shape.groups)});
    append({fmt::format("{}", rows_of(s.shape)), fmt::format("{}", s.shape.n), fmt::format("{}", depth_of(s.shape))});
    append(outcome_cells(s.ours));
    append({ran(s.ours) ? fmt::format("{:.0f}", s.ours.gbytes_per_s) : "-"});
    if (rival) {
      append(s.rival ? outcome_cells(s.rival->outcome) : std::vector<std::string>{"-", "-"});
      const double ratio = ratio_to_rival(s);
      append({ratio > 0 ? fmt::format("{:.3f}", ratio) : "-"});
    }
    append({s.floor_us > 0 ? us_text(s.floor_us) : "-",
            ran(s.ours) ? fmt::format("{:.0f} %", 100 / s.ours.over_floor) : "-",
            s.ours.error.empty() ? s.kernel : s.ours.error});
  }
  return rows;
}

std::vector<std::vector<std::string>> config_table(const Report& report) {
  std::vector<std::vector<std::string>> rows{{"m", "n", "k", "chosen us", "best us", "ratio", "chosen", "best"}};
  for (const ShapeResult& s : report.shapes) {
    const double ratio = chosen_over_best(s);
    if (ratio == 0) continue;
    const ConfigOutcome* best = nullptr;
    for (const ConfigOutcome& other : s.configs)
      if (ran(other.outcome) && right(other.outcome) &&
          (!best || other.outcome.time_us.median < best->outcome.time_us.median))
        best = &other;
    const bool chosen_is_best = ratio <= 1;
    rows.push_back({fmt::format("{}", rows_of(s.shape)), fmt::format("{}", s.shape.n),
                    fmt::format("{}", depth_of(s.shape)), us_text(s.ours.time_us.median),
                    us_text(s.ours.time_us.median / ratio), fmt::format("{:.3f}", ratio), s.kernel,
                    chosen_is_best ? "the same" : best->name});
  }
  return rows;
}

std::vector<std::string> summary(const Report& report) {
  const Machine& machine = report.machine;
  std::vector<std::string> lines{fmt::format(
      "{}, {} SMs, driver {}, regime {}, {}, {} repeats, seed {}, digest {}", machine.device, machine.num_sms,
      machine.driver.empty() ? "CUDA " + machine.cuda : machine.driver, name_of(report.options.regime),
      form_text(report.options.form), report.options.repeats, report.options.seed, tree_digest())};
  lines.push_back(fmt::format("times by {}: {}", machine.timer, machine.timer_note));
  auto line = [&](const char* what, const std::vector<Mean>& found) {
    std::string text;
    for (const Mean& mean : found)
      text += fmt::format("{}{:.3f} ({}, {} shapes)", text.empty() ? "" : ", ", mean.value, mean.over, mean.shapes);
    if (!text.empty()) lines.push_back(fmt::format("{}: {}", what, text));
  };
  if (report.options.rival) {
    if (machine.rival.empty()) {
      lines.push_back("no rival: " + machine.rival_note);
    } else {
      lines.push_back(fmt::format("rival: {}, {}", machine.rival,
                                  report.options.rival_best ? "fastest of its first 8 proposals" : "first proposal"));
      line("speedup over it, geometric mean", speedups(report.shapes));
      std::set<std::string> reasons;
      for (const ShapeResult& s : report.shapes)
        if (s.rival && !s.rival->outcome.error.empty()) reasons.insert(s.rival->outcome.error);
      for (const std::string& reason : reasons) lines.push_back("rival did not run: " + reason);
    }
  }
  line("time over the streaming floor, geometric mean", over_floor(report.shapes));
  if (const Choices found = choices(report.shapes); found.shapes > 0)
    lines.push_back(fmt::format("chosen within 5 % of the best on {} of {} shapes, worst {:.3f}, geometric mean {:.3f}",
                                found.within_5_percent, found.shapes, found.worst,
                                geometric_mean(found.chosen_over_best)));
  unsigned low = 0, high = 0;
  double power = 0;
  for (const ShapeResult& s : report.shapes) {
    if (!s.clocks) continue;
    low = low == 0 ? s.clocks->sm_mhz_min : std::min(low, s.clocks->sm_mhz_min);
    high = std::max(high, s.clocks->sm_mhz_max);
    power = std::max(power, s.clocks->power_w_max);
  }
  if (high > 0) lines.push_back(fmt::format("SM clock {} to {} MHz, power up to {:.0f} W", low, high, power));
  if (!report.options.check) {
    lines.push_back("results were not checked");
  } else if (const int64_t wrong = mismatches(report.shapes); wrong > 0) {
    lines.push_back(fmt::format("{} elements differ from the reference", wrong));
  } else {
    lines.push_back("every element of each result agrees with the reference");
  }
  if (report.left_out > 0) lines.push_back(fmt::format("{} shapes were left out", report.left_out));
  return lines;
}

}  // namespace deep_gemm::bench
