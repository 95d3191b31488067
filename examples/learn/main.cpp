// deep_gemm_learn: compiles the kernels of docs/learn, checks every element of their results and times them beside the
// library's own kernel. Exit status: 0 good, 1 a wrong result or a spill, 2 wrong usage or an error, said on one line.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "backend.h"
#include "bench/nvml.h"
#include "bench/regime.h"
#include "bench/report.h"
#include "bench/stats.h"
#include "bench/timer.h"
#include "commands.h"
#include "context_impl.h"
#include "gemm/kernel_source.h"
#include "jit/sha256.h"
#include "learn/report.h"
#include "learn/steps.h"
#include "output.h"
#include "output_file.h"
#include "text.h"
#include "verify/workload.h"

namespace deep_gemm::learn {
namespace {

struct Options {
  int64_t m = 4096, n = 4096, k = 7168;
  std::vector<int> steps;  // empty: all
  int repeats = 10;
  std::string regime = "cool", json, table;
  bool compile_only = false;
  uint64_t seed = 1;
};

std::vector<int> numbers(const Options& options) {
  if (!options.steps.empty()) return options.steps;
  std::vector<int> all;
  for (std::size_t i = 1; i <= steps().size(); ++i) all.push_back(static_cast<int>(i));
  return all;
}

const Step& step_of(int number) { return steps()[static_cast<std::size_t>(number) - 1]; }

void say(const std::string& line) { fmt::print(stderr, "deep_gemm_learn: {}\n", cli::one_line(line)); }

void compile_all(const Options& options) {
  Context context({}, cli::context_options());
  cli::Table table({"step", "kernel", "registers", "spilled bytes", "shared memory", "compiler", "seconds"});
  bool spills = false;
  for (const int number : numbers(options)) {
    const Step& step = step_of(number);
    const jit::Binary binary = compile(context, step);
    table.add({fmt::to_string(number), step.entry, fmt::to_string(binary.registers), fmt::to_string(binary.spill_bytes),
               fmt::to_string(step.smem_bytes), binary.compiler,
               binary.cached ? "cached" : fmt::format("{:.2f}", binary.seconds)});
    spills |= binary.spill_bytes > 0;
  }
  table.print();
  if (spills) throw cli::ExitCode{1};
}

/// Runs, checks and times calls on one set of operands.
class Bench {
 public:
  Bench(Context& context, const Options& options)
      : options_(options),
        workload_(context, {options.m, options.n, options.k}, problem(options), options.seed, stream_),
        timer_(context, stream_),
        kernels_(context, stream_),
        l2_(bench::regime_of(options.regime).value(), context.impl().cuda->properties().info.l2_bytes, kernels_,
            stream_) {}

  static Problem problem(const Options& options) { return {.m = options.m, .n = options.n, .k = options.k}; }
  const char* timer() const { return timer_.name(); }

  void run_step(const Kernel& kernel, Timing& timing) {
    run([&] { kernel(workload_.a(), workload_.b(), workload_.d(), stream_); }, timing);
  }
  void run_shipped(Timing& timing) {
    run([&] { workload_.call(stream_); }, timing);
  }

 private:
  void run(const std::function<void()>& call, Timing& timing) {
    workload_.poison(stream_);
    call();
    const verify::Report report = workload_.verify(stream_);
    timing.worst_ratio = report.worst_ratio;
    timing.mismatches = report.mismatches;
    for (const verify::Mismatch& one : report.first)
      say(fmt::format("{}: row {}, column {}: {:.9g}, expected {:.9g} within {:.3g}", timing.kernel, one.row, one.col,
                      one.got, one.expected, one.bound));
    const std::vector<std::function<void()>> calls(static_cast<std::size_t>(options_.repeats), call);
    std::vector<double> times;
    for (const bench::CallTime& time : timer_.time(calls, [&] { l2_.prepare(); })) times.push_back(time.kernel_us);
    const bench::Stats stats = bench::summarize(times);
    timing.median_us = stats.median;
    timing.min_us = stats.min;
    timing.max_us = stats.max;
    timing.tflops = 2e-6 * static_cast<double>(options_.m) * static_cast<double>(options_.n) *
                    static_cast<double>(options_.k) / stats.median;
    say(fmt::format("{}: {:.1f} us, {}", timing.kernel, stats.median,
                    report.mismatches > 0 ? fmt::format("{} elements WRONG", report.mismatches) : "right"));
  }

  const Options& options_;
  const cuda::OwnedStream stream_;
  Workload workload_;
  bench::Timer timer_;
  bench::StreamKernels kernels_;
  bench::L2State l2_;
};

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text.data();
}

/// As it was typed, with the program's bare name.
std::string command_line() {
  std::ifstream file("/proc/self/cmdline");
  std::string words, word;
  while (std::getline(file, word, '\0')) words += words.empty() ? "deep_gemm_learn" : " " + word;
  return words;
}

std::string driver_text(const DeviceInfo& info, const std::string& uuid) {
  try {
    const std::string version = bench::Nvml(uuid, 0).driver_version();
    return version.empty() ? "unknown" : version;
  } catch (const Error&) {
    say(info.name + ": no NVML, so the driver's version is not noted");
    return "unknown";
  }
}

void print(const Report& report) {
  cli::Table table({"step", "", "what is new", "us", "TFLOPS", "% of shipped", "worst/bound", "right"});
  const auto add = [&](const std::string& step, const Timing& t) {
    table.add({step, t.name, t.what_is_new, fmt::format("{:.1f}", t.median_us), fmt::format("{:.1f}", t.tflops),
               fmt::format("{:.1f}", 100 * report.shipped.median_us / t.median_us),
               fmt::format("{:.3f}", t.worst_ratio), t.mismatches == 0 ? "yes" : "NO"});
  };
  for (const auto& [number, timing] : report.steps) add(fmt::to_string(number), timing);
  add("-", report.shipped);
  table.print();
  fmt::print("\n{}x{}x{} on {}, regime {}, median of {} launches by {}\n", report.m, report.n, report.k, report.device,
             report.regime, report.repeats, report.timer);
}

void run(const Options& options) {
  check_shape(options.m, options.n, options.k);
  Context context(Device{DeviceType::cuda, 0}, cli::context_options());
  Context::Impl& impl = context.impl();
  const cuda::DeviceContext::Scope scope(*impl.cuda);
  std::optional<cli::OutputFile> file;  // one that cannot be written must not cost a run
  if (!options.json.empty()) file.emplace(options.json);

  Bench bench(context, options);
  const int version = cuda::driver_version();
  Report report{.date = utc_now(),
                .version = DG_VERSION,
                .revision = {},
                .digest = bench::tree_digest(),
                .command = command_line(),
                .device = impl.cuda->properties().info.name,
                .driver = driver_text(impl.cuda->properties().info, impl.cuda->properties().uuid),
                .cuda = fmt::format("{}.{}", version / 1000, version % 1000 / 10),
                .compiler = {},
                .timer = bench.timer(),
                .regime = options.regime,
                .m = options.m,
                .n = options.n,
                .k = options.k,
                .repeats = options.repeats,
                .steps = {},
                .shipped = {}};
  if (const char* revision = std::getenv("DG_REVISION")) report.revision = revision;

  const GemmPlan shipped = plan(Bench::problem(options), impl.plan_device);
  const CompileReport compiled = deep_gemm::compile(context, shipped.config);
  report.compiler = compiled.compiler;
  report.shipped = {.name = "shipped",
                    .what_is_new = "fp8_gemm_nt",
                    .kernel = compiled.name,
                    .sha256 = {},
                    .registers = compiled.registers,
                    .smem_bytes = shipped.smem_bytes};
  bench.run_shipped(report.shipped);
  int64_t mismatches = report.shipped.mismatches;
  for (const int number : numbers(options)) {
    const Step& step = step_of(number);
    const jit::KernelSource text = source(step);
    Timing timing{.name = step.name,
                  .what_is_new = step.what_is_new,
                  .kernel = step.entry,
                  .sha256 = jit::sha256(text.text),
                  .registers = compile(context, step).registers,
                  .smem_bytes = static_cast<int>(step.smem_bytes)};
    bench.run_step(Kernel(context, step), timing);
    mismatches += timing.mismatches;
    report.steps.emplace_back(number, timing);
  }
  print(report);
  if (file) {
    const std::string text = to_json(report).dump(1) + "\n";
    file->write(std::as_bytes(std::span(text)));
    file->commit();
  }
  if (mismatches > 0) throw cli::ExitCode{1};
}

void print_table(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail(ErrorCode::io, "{}: cannot be read", path);
  try {
    fmt::print("{}", markdown(nlohmann::ordered_json::parse(file)));
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::io, "{}: no report of deep_gemm_learn: {}", path, error.what());
  }
}

int complain(const std::string& what) {
  say(what);
  return 2;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"The five kernels of docs/learn: compiled, checked in every element, timed beside the library's own."};
  app.add_option("--m", options.m, "Rows of A and D, a multiple of 256")->capture_default_str();
  app.add_option("--n", options.n, "Rows of B, columns of D, a multiple of 256")->capture_default_str();
  app.add_option("--k", options.k, "A multiple of 128")->capture_default_str();
  app.add_option("--step", options.steps, "Only these")->check(CLI::Range(std::size_t{1}, steps().size()));
  app.add_option("--repeats", options.repeats, "Timed launches of each kernel")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--regime", options.regime, "What runs before each timed launch, as in deep_gemm bench")
      ->check(CLI::IsMember({"cool", "dirty", "clean", "warm"}))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of the random operands")->capture_default_str();
  app.add_option("--json", options.json, "Write the report to this file");
  auto* table = app.add_option("--table", options.table, "Print the table of this report as Markdown, and run nothing");
  app.add_flag("--compile-only", options.compile_only, "Compile, print registers and spills; needs no GPU")
      ->excludes(table);
  app.footer("Example: deep_gemm_learn --step 3 --step 4 --json learn.json");
  try {
    app.parse(argc, argv);
    if (!options.table.empty())
      print_table(options.table);
    else if (options.compile_only)
      compile_all(options);
    else
      run(options);
  } catch (const cli::ExitCode& exit) {
    return exit.code;
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::Error& e) {
    return complain(fmt::format("{} (see --help)", e.what()));
  } catch (const std::bad_alloc&) {
    return complain("out of memory");
  } catch (const std::exception& e) {
    return complain(e.what());
  }
  return 0;
}

}  // namespace
}  // namespace deep_gemm::learn

int main(int argc, char** argv) {
  const int status = deep_gemm::learn::run(argc, argv);
  std::cout.flush();
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    return deep_gemm::learn::complain("cannot write to standard output");
  return status;
}
