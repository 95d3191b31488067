// deep_gemm check: random operands, every element of the product against a reference.
#include <algorithm>

#include <fmt/format.h>

#include "backend.h"
#include "commands.h"
#include "config_json.h"
#include "gemm/kernel_source.h"
#include "options.h"
#include "output.h"
#include "text.h"

namespace deep_gemm::cli {
namespace {

struct CheckOptions {
  ShapeOptions shapes;
  ProblemOptions problem;
  std::string backend, config;
  uint64_t seed = 1;
  bool json = false;
};

/// One kernel on one shape.
struct Outcome {
  Shape shape;
  std::string kernel;
  Problem problem;
  std::optional<GemmConfig> config;  ///< none on the CPU
  verify::Report report;
};

Outcome check(Backend& backend, const Shape& shape, const Problem& problem, const std::optional<GemmConfig>& config,
              uint64_t seed) {
  Outcome outcome{shape, "cpu", problem, {}, {}};
  if (backend.on_gpu()) {
    outcome.config = config;
    if (!config && problem.m > 0 && problem.n > 0) outcome.config = plan(problem, backend.device_info()).config;
    outcome.kernel = outcome.config ? kernel_name(*outcome.config) : "none";
  }
  Workload workload(backend.context(), shape, problem, seed);
  workload.call({}, outcome.config);
  outcome.report = workload.verify();
  return outcome;
}

int64_t tile_m(const Outcome& outcome) { return outcome.config ? outcome.config->tile_m : 128; }
int64_t tile_n(const Outcome& outcome) { return outcome.config ? outcome.config->tile_n : 128; }

nlohmann::ordered_json json_of(const Outcome& outcome) {
  const verify::Report& report = outcome.report;
  nlohmann::ordered_json first = nlohmann::ordered_json::array();
  for (const verify::Mismatch& one : report.first) {
    first.push_back({{"tile", {one.row / tile_m(outcome), one.col / tile_n(outcome)}},
                     {"row", one.row},
                     {"col", one.col},
                     {"got", one.got},
                     {"expected", one.expected},
                     {"bound", one.bound}});
  }
  return {{"layout", layout_text(outcome.shape.layout)},
          {"groups", outcome.shape.groups},
          {"m", rows_of(outcome.shape)},
          {"n", outcome.shape.n},
          {"k", depth_of(outcome.shape)},
          {"a_type", name_of(outcome.problem.a_type)},
          {"b_type", name_of(outcome.problem.b_type)},
          {"d_type", name_of(outcome.problem.d_type)},
          {"recipe", recipe_text(outcome.problem)},
          {"kernel", outcome.kernel},
          {"config", outcome.config ? to_json(*outcome.config) : nlohmann::ordered_json()},
          {"worst_ratio", report.worst_ratio},
          {"global_score", report.global_score},
          {"elements", report.elements},
          {"mismatches", report.mismatches},
          {"ok", report.mismatches == 0},
          {"first", first}};
}

void print_mismatches(const Outcome& outcome) {
  if (outcome.report.first.empty()) return;
  fmt::print("\n{}, {}: {} of {} elements wrong; the first by row and column, in tiles of {}x{}\n", text(outcome.shape),
             outcome.kernel, outcome.report.mismatches, outcome.report.elements, tile_m(outcome), tile_n(outcome));
  Table table({"tile", "row", "column", "got", "expected", "bound"});
  for (const verify::Mismatch& one : outcome.report.first) {
    table.add({fmt::format("{},{}", one.row / tile_m(outcome), one.col / tile_n(outcome)), fmt::to_string(one.row),
               fmt::to_string(one.col), fmt::format("{:.9g}", one.got), fmt::format("{:.9g}", one.expected),
               fmt::format("{:.3g}", one.bound)});
  }
  table.print();
}

void check_all(const CheckOptions& options) {
  const std::vector<Shape> shapes = options.shapes.shapes();
  std::vector<std::optional<GemmConfig>> configs = {std::nullopt};
  if (!options.config.empty()) {
    const std::vector<GemmConfig> given = configs_from_text(options.config);
    configs.assign(given.begin(), given.end());
  }
  Backend backend(options.backend);
  if (!options.config.empty() && !backend.on_gpu()) throw CLI::ValidationError("--config needs --backend cuda");
  std::vector<Outcome> outcomes;
  {
    Progress progress("check", shapes.size() * configs.size());
    for (const Shape& shape : shapes) {
      for (const auto& config : configs) {
        progress.say(text(shape));
        outcomes.push_back(check(backend, shape, options.problem.problem(shape), config, options.seed));
        progress.advance("");
      }
    }
  }
  const bool ok =
      std::all_of(outcomes.begin(), outcomes.end(), [](const Outcome& o) { return o.report.mismatches == 0; });
  if (options.json) {
    nlohmann::ordered_json results = nlohmann::ordered_json::array();
    for (const Outcome& outcome : outcomes) results.push_back(json_of(outcome));
    print_json({{"backend", backend.on_gpu() ? "cuda" : "cpu"},
                {"device", backend.description()},
                {"seed", options.seed},
                {"results", results},
                {"ok", ok}});
  } else {
    fmt::print("{}, seed {}: every element against a double-precision reference\n\n", backend.description(),
               options.seed);
    Table table(
        {"layout", "groups", "m", "n", "k", "form", "kernel", "worst/bound", "global score", "mismatches", "ok"});
    for (const Outcome& outcome : outcomes) {
      const verify::Report& report = outcome.report;
      table.add({layout_text(outcome.shape.layout), fmt::to_string(outcome.shape.groups),
                 fmt::to_string(rows_of(outcome.shape)), fmt::to_string(outcome.shape.n),
                 fmt::to_string(depth_of(outcome.shape)), form_text(outcome.problem), outcome.kernel,
                 fmt::format("{:.3f}", report.worst_ratio), fmt::format("{:.2e}", report.global_score),
                 fmt::to_string(report.mismatches), report.mismatches == 0 ? "yes" : "NO"});
    }
    table.print();
    for (const Outcome& outcome : outcomes) print_mismatches(outcome);
  }
  if (!ok) throw ExitCode{1};
}

}  // namespace

void add_check(CLI::App& app) {
  auto options = std::make_shared<CheckOptions>();
  CLI::App* command = app.add_subcommand("check", "Compare every element of random products with a reference");
  options->shapes.add_to(*command);
  add_backend(*command, options->backend);
  options->problem.add_to(*command);
  command->add_option(
      "--config", options->config,
      "Check these kernels instead of the planned one: JSON object, or array of them, by the names that plan prints");
  add_seed(*command, options->seed);
  add_json(*command, options->json);
  command->footer(
      "Exit status 1 where an element is off by more than its bound. On the CPU mismatches are placed in tiles of "
      "128x128.\n"
      "Example: deep_gemm check 4096 7168 2048 --d-type f32");
  command->callback([options] { check_all(*options); });
}

}  // namespace deep_gemm::cli
