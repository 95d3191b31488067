// deep_gemm plan: the kernel that a shape gets, and why. Needs no GPU.
#include <limits>
#include <optional>

#include <fmt/format.h>

#include "commands.h"
#include "config_json.h"
#include "options.h"
#include "output.h"
#include "text.h"

namespace deep_gemm::cli {
namespace {

struct PlanOptions {
  int64_t m = 0, n = 0, k = 0;
  LayoutOptions layout;
  ProblemOptions problem;
  DeviceOptions device;
  std::optional<std::string> config;
  int num_sms = 0;
  bool json = false;
};

void show(const PlanOptions& options) {
  Problem problem = options.problem.problem(options.layout.shape(options.m, options.n, options.k));
  problem.num_sms = options.num_sms;
  const DeviceInfo device = options.device.device();
  std::optional<GemmConfig> config;
  if (options.config) {
    const std::vector<GemmConfig> given = configs_from_text(*options.config);
    if (given.size() != 1) throw CLI::ValidationError("--config takes one JSON object");
    config = given.front();
  }
  const GemmPlan plan = deep_gemm::plan(problem, device, config);
  if (options.json) {
    nlohmann::ordered_json out = {{"m", problem.m},           {"n", problem.n},
                                  {"k", problem.k},           {"layout", layout_text(problem.layout)},
                                  {"groups", problem.groups}, {"device", device.name}};
    out.update(to_json(plan));
    print_json(out);
    return;
  }
  const std::string groups = problem.layout == Layout::dense
                                 ? ""
                                 : fmt::format(", {}, {} groups", layout_text(problem.layout), problem.groups);
  fmt::print("problem   {} x {} x {}{}  {}{}{}{}\n", problem.m, problem.n, problem.k, groups, form_text(problem),
             problem.accumulate ? ", accumulated" : "", problem.scaled_a ? "" : ", A without scales",
             problem.scaled_b ? "" : ", B without scales");
  fmt::print("device    {} ({} SMs)\n", device.name, problem.num_sms > 0 ? problem.num_sms : device.num_sms);
  fmt::print("config    {}\n", to_json(plan.config).dump());
  fmt::print("launch    {} CTAs of {} threads, {} bytes of shared memory each; clusters walked down m {} abreast{}\n",
             plan.grid, plan.block_threads, plan.smem_bytes, plan.raster_tiles,
             plan.stream_b ? "; B leaves L2 first" : "");
  fmt::print("estimate  {:.1f} us\n", plan.estimate_us);
  fmt::print("reason    {}\n", plan.reason);
  if (plan.runners_up.empty()) return;
  Table table({"tile", "stages", "cluster", "shares", "CTAs/SM", "unroll", "estimate us", "slower by"});
  const auto add = [&](const GemmConfig& c, double estimate_us) {
    table.add({fmt::format("{}x{}", c.tile_m, c.tile_n), fmt::to_string(c.stages), fmt::to_string(c.cluster),
               c.split_k ? "k" : name_of(c.multicast), fmt::to_string(c.ctas_per_sm), fmt::to_string(c.unroll),
               fmt::format("{:.1f}", estimate_us),
               fmt::format("{:.1f} %", 100 * (estimate_us / plan.estimate_us - 1))});
  };
  fmt::print("\n");
  add(plan.config, plan.estimate_us);
  for (const PlanCandidate& one : plan.runners_up) add(one.config, one.estimate_us);
  table.print();
}

}  // namespace

void add_plan(CLI::App& app) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* command =
      app.add_subcommand("plan", "Show which kernel a shape gets, why, and the runners-up; needs no GPU");
  const CLI::Range extent(int64_t{0}, kMaxExtent);
  command->add_option("M", options->m, "Rows of A and D")->required()->check(extent);
  command->add_option("N", options->n, "Rows of B, columns of D")->required()->check(extent);
  command->add_option("K", options->k, "Columns of A and B")->required()->check(extent);
  options->layout.add_to(*command);
  options->device.add_to(*command);
  options->problem.add_to(*command);
  command->add_option("--num-sms", options->num_sms, "Use at most so many SMs; 0: all")
      ->check(CLI::Range(0, std::numeric_limits<int>::max()));
  command->add_option("--config", options->config, "Plan with this kernel: JSON object by the names that plan prints");
  add_json(*command, options->json);
  command->footer("Example: deep_gemm plan 4096 7168 2048 --device h200");
  command->callback([options] { show(*options); });
}

}  // namespace deep_gemm::cli
