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
#include "verify/verify.h"

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
  std::optional<GemmConfig> config;  ///< none on the CPU
  verify::Report report;
};

Outcome check(Backend& backend, const Shape& shape, const Problem& problem, const std::optional<GemmConfig>& config,
              uint64_t seed) {
  constexpr unsigned char kNan = 0xff;  // as e4m3, bf16 and f32
  const int64_t m = problem.m, n = problem.n, k = problem.k, blocks = (k + 127) / 128;
  Outcome outcome{shape, "cpu", {}, {}};
  if (backend.on_gpu()) {
    outcome.config = config;
    if (!config && m > 0 && n > 0) outcome.config = plan(problem, backend.device_info()).config;
    outcome.kernel = outcome.config ? kernel_name(*outcome.config) : "none";
  }
  if (shape.layout != Layout::dense) {
    Workload workload(backend.context(), shape, problem, seed);
    workload.call({}, outcome.config);
    outcome.report = workload.verify();
    return outcome;
  }
  const Matrix a = backend.matrix(DType::e4m3, m, k), b = backend.matrix(DType::e4m3, n, k);
  const Matrix c = backend.matrix(problem.d_type, problem.accumulate ? m : 0, n),
               d = backend.matrix(problem.d_type, m, n);
  const Matrix scale_a = backend.mn_major(m, blocks), scale_b = backend.matrix(DType::f32, (n + 127) / 128, blocks);
  for (const Matrix* matrix : {&a, &b, &c, &d, &scale_a, &scale_b}) backend.fill(*matrix, kNan);
  const Fp8Tensor operand_a{a, problem.scaled_a ? scale_a.view() : TensorView{}};
  const Fp8Tensor operand_b{b, problem.scaled_b ? scale_b.view() : TensorView{}};
  Context& context = backend.context();
  verify::fill_random(context, operand_a, {.seed = 3 * seed});
  verify::fill_random(context, operand_b, {.seed = 3 * seed + 1});
  GemmOptions options;
  options.config = outcome.config;
  if (problem.accumulate) {
    verify::fill_random(context, c.view(), {.seed = 3 * seed + 2});
    options.c = c.view();
  }
  fp8_gemm_nt(context, operand_a, operand_b, d, options);
  outcome.report = verify::verify(context, operand_a, operand_b, options.c, d);
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
  return {{"layout", name_of(outcome.shape.layout)},
          {"groups", outcome.shape.groups},
          {"m", rows_of(outcome.shape)},
          {"n", outcome.shape.n},
          {"k", outcome.shape.k},
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
                {"d_type", options.problem.d_type},
                {"seed", options.seed},
                {"results", results},
                {"ok", ok}});
  } else {
    fmt::print("{}, D {}, seed {}: every element against a double-precision reference\n\n", backend.description(),
               options.problem.d_type, options.seed);
    Table table({"layout", "groups", "m", "n", "k", "kernel", "worst/bound", "global score", "mismatches", "ok"});
    for (const Outcome& outcome : outcomes) {
      const verify::Report& report = outcome.report;
      table.add({name_of(outcome.shape.layout), fmt::to_string(outcome.shape.groups),
                 fmt::to_string(rows_of(outcome.shape)), fmt::to_string(outcome.shape.n),
                 fmt::to_string(outcome.shape.k), outcome.kernel, fmt::format("{:.3f}", report.worst_ratio),
                 fmt::format("{:.2e}", report.global_score), fmt::to_string(report.mismatches),
                 report.mismatches == 0 ? "yes" : "NO"});
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
  command->add_option("--seed", options->seed, "Of the random operands")->capture_default_str();
  add_json(*command, options->json);
  command->footer(
      "Exit status 1 where an element is off by more than its bound. On the CPU mismatches are placed in tiles of "
      "128x128.\n"
      "Example: deep_gemm check 4096 7168 2048 --d-type f32");
  command->callback([options] { check_all(*options); });
}

}  // namespace deep_gemm::cli
