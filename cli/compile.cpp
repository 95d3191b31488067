// deep_gemm compile: fills a kernel cache ahead of time. Needs no GPU.
#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

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

struct CompileOptions {
  std::string shapes, cache;
  ProblemOptions problem;
  DeviceOptions device;
  unsigned jobs = 0;
  bool all_m = false, json = false;
};

struct Job {
  GemmConfig config;
  CompileReport report;
  std::string error;
};

std::vector<Job> jobs_of(const CompileOptions& options) {
  const DeviceInfo device = options.device.device();
  std::vector<Job> jobs;
  for (const Shape& shape : read_shapes(options.shapes)) {
    const Problem problem = options.problem.problem(shape);
    if (problem.m == 0 || problem.n == 0) continue;
    for (const GemmConfig& config :
         options.all_m ? kernels_for(problem, device) : std::vector{deep_gemm::plan(problem, device).config}) {
      const auto same = [&](const Job& job) { return job.config == config; };
      if (std::none_of(jobs.begin(), jobs.end(), same)) jobs.push_back({config, {}, {}});
    }
  }
  return jobs;
}

void run_jobs(Context& context, std::vector<Job>& jobs, unsigned threads) {
  Progress progress("compile", jobs.size());
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr fatal;
  const auto stop = [&] {
    const std::scoped_lock lock(mutex);
    fatal = std::current_exception();
    next = jobs.size();
  };
  const auto work = [&] {
    for (std::size_t i = next++; i < jobs.size(); i = next++) {
      try {
        jobs[i].report = deep_gemm::compile(context, jobs[i].config);
      } catch (const Error& error) {
        // A kernel that does not compile is a result; a machine that has no compiler is an error.
        if (error.code() == ErrorCode::compiler)
          jobs[i].error = error.what();
        else
          stop();
      } catch (...) {
        stop();
      }
      progress.advance(jobs[i].report.name);
    }
  };
  {
    std::vector<std::jthread> others;
    for (unsigned i = 1; i < std::min<std::size_t>(threads, jobs.size()); ++i) others.emplace_back(work);
    work();
  }
  if (fatal) std::rethrow_exception(fatal);
}

void compile_all(const CompileOptions& options) {
  std::vector<Job> jobs = jobs_of(options);
  ContextOptions context_settings = context_options();
  if (!options.cache.empty()) context_settings.cache_dirs = {options.cache};
  Context context({}, context_settings);
  const std::filesystem::path directory = context.impl().store.writable_directory();
  if (directory.empty())
    fail(ErrorCode::io, "compile: no cache directory can be written{}{}; name one with --cache",
         options.cache.empty() ? "" : ": ", options.cache);
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  run_jobs(context, jobs, options.jobs == 0 ? cores : options.jobs);
  const std::vector<jit::CacheEntry> entries = context.impl().store.list();
  const auto lost = std::count_if(jobs.begin(), jobs.end(), [&](const Job& job) {
    const std::string key = jit::KernelStore::key(kernel_source(job.config));
    return job.error.empty() &&
           std::ranges::none_of(entries, [&](const jit::CacheEntry& entry) { return entry.key == key; });
  });
  if (lost != 0)
    fail(ErrorCode::io, "compile: {} of {} kernels could not be written to {}", lost, jobs.size(), directory.string());

  const bool ok = std::all_of(jobs.begin(), jobs.end(),
                              [](const Job& job) { return job.error.empty() && job.report.spill_bytes == 0; });
  std::vector<double> seconds;
  for (const Job& job : jobs) {
    if (job.error.empty()) seconds.push_back(job.report.seconds);
  }
  if (options.json) {
    nlohmann::ordered_json kernels = nlohmann::ordered_json::array();
    for (const Job& job : jobs) {
      nlohmann::ordered_json kernel = {{"config", to_json(job.config)}};
      if (job.error.empty()) {
        kernel.update({{"kernel", job.report.name},
                       {"compiler", job.report.compiler},
                       {"registers", job.report.registers},
                       {"spill_bytes", job.report.spill_bytes},
                       {"seconds", job.report.seconds},
                       {"cached", job.report.cached}});
      } else {
        kernel["error"] = job.error;
      }
      kernels.push_back(kernel);
    }
    print_json({{"cache", directory.string()}, {"kernels", kernels}, {"median_seconds", median(seconds)}, {"ok", ok}});
  } else {
    Table table({"kernel", "compiler", "registers", "spill bytes", "seconds", "cached"});
    for (const Job& job : jobs) {
      if (job.error.empty())
        table.add({job.report.name, job.report.compiler, fmt::to_string(job.report.registers),
                   fmt::to_string(job.report.spill_bytes), fmt::format("{:.3f}", job.report.seconds),
                   job.report.cached ? "yes" : "no"});
      else
        table.add({kernel_name(job.config), "FAILED", "-", "-", "-", "no"});
    }
    table.print();
    for (const Job& job : jobs) {
      if (!job.error.empty()) fmt::print("\n{}\n{}\n", kernel_name(job.config), job.error);
    }
    fmt::print("\n{} kernels in {}, median {:.3f} s a kernel\n", jobs.size(), directory.string(), median(seconds));
  }
  if (!ok) throw ExitCode{1};
}

}  // namespace

void add_compile(CLI::App& app) {
  auto options = std::make_shared<CompileOptions>();
  CLI::App* command = app.add_subcommand("compile", "Compile the kernels of a shape file into the cache; needs no GPU");
  command
      ->add_option("--shapes", options->shapes,
                   "CSV file with the columns m, n, k and, for groups, layout, groups, loads")
      ->required();
  command->add_option("--jobs", options->jobs, "Kernels compiled at once; default: one a core")
      ->check(CLI::Range(1, 1024));
  add_cache_directory(*command, options->cache, "Cache directory to fill; default: see `deep_gemm cache path`");
  command->add_flag("--all-m", options->all_m, "All kernels that any m gets with a shape's n and k");
  options->device.add_to(*command);
  options->problem.add_to(*command);
  add_json(*command, options->json);
  command->footer(
      "Exit status 1 where a kernel spills registers or does not compile.\n"
      "Example: deep_gemm compile --shapes bench/shapes/dense.csv --cache ./kernels");
  command->callback([options] { compile_all(*options); });
}

}  // namespace deep_gemm::cli
