// deep_gemm bench: kernel times beside the rival's and the streaming floor's, in a stated L2 state.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>

#include <fmt/format.h>

#include "backend.h"
#include "bench/harness.h"
#include "bench/report.h"
#include "commands.h"
#include "config_json.h"
#include "options.h"
#include "output.h"
#include "output_file.h"
#include "text.h"

namespace deep_gemm::cli {
namespace {

struct BenchOptions {
  ShapeOptions shapes;
  FormOptions form;
  std::string regime = "cool", rival, json, configs;
  bool all_configs = false, rival_first = false, no_check = false;
  std::optional<int> repeats;
  int max_configs = 24;
  double budget_seconds = 0;
  uint64_t seed = 1;
};

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text.data();
}

/// "deep_gemm bench …", as it was typed; empty where the system does not tell.
std::string command_line() {
  std::ifstream file("/proc/self/cmdline");
  std::string words, word;
  while (std::getline(file, word, '\0')) words += words.empty() ? "deep_gemm" : " " + word;
  return words;
}

std::string read_text(const std::string& path) {
  std::ifstream file(path);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file) fail(ErrorCode::io, "{}: cannot be read", path);
  return text;
}

void write_report(OutputFile& file, const bench::Report& report) {
  const std::string text =
      bench::to_json(report).dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

std::string table_text(const std::vector<std::vector<std::string>>& rows) {
  Table table(rows.front());
  for (std::size_t i = 1; i < rows.size(); ++i) table.add(rows[i]);
  return table.text();
}

std::string text_of(const bench::Report& report) {
  std::string text = table_text(bench::table(report));
  if (const auto rows = bench::config_table(report); rows.size() > 1) text += "\n" + table_text(rows);
  for (const std::string& line : bench::summary(report)) text += line + "\n";
  return text;
}

bench::HarnessOptions harness_options(const BenchOptions& given) {
  bench::HarnessOptions options;
  options.regime = bench::regime_of(given.regime).value();
  options.form = given.form.form();
  options.rival = !given.rival.empty();
  options.rival_best = !given.rival_first;
  options.all_configs = given.all_configs;
  options.max_configs = given.max_configs;
  if (!given.configs.empty()) options.configs = configs_from_text(read_text(given.configs));
  const bool many = options.all_configs || !options.configs.empty();
  options.repeats = given.repeats.value_or(many ? 4 : 10);
  options.check = !given.no_check;
  options.seed = given.seed;
  return options;
}

void run(const BenchOptions& given) {
  const auto begin = std::chrono::steady_clock::now();
  auto seconds = [begin] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  const std::vector<Shape> shapes = given.shapes.shapes();
  for (const Shape& shape : shapes) given.form.check(shape);
  bench::Report report;
  report.options = harness_options(given);
  report.date = utc_now();
  report.command = command_line();
  Context context(Device{DeviceType::cuda, 0}, context_options());
  const bool to_file = !given.json.empty() && given.json != "-";
  std::unique_ptr<OutputFile> pipe;
  if (to_file) {  // a file that cannot be written must not cost a whole run
    std::error_code error;
    const std::filesystem::path directory = std::filesystem::path(given.json).parent_path();
    if (!directory.empty()) std::filesystem::create_directories(directory, error);
    // A file is written anew after each shape, so that a run that is cut off leaves what it had; a pipe gets all at the end.
    pipe = std::make_unique<OutputFile>(given.json);
    if (pipe->is_beside()) pipe.reset();
  }
  if (const char* revision = std::getenv("DG_REVISION")) report.revision = revision;

  const auto rewrite = [&] {
    OutputFile file(given.json);
    write_report(file, report);
  };
  auto say = [](const std::string& line) { cli::say(fmt::format("bench: {}\n", one_line(line))); };
  bench::Harness harness(context, report.options, say);
  harness.compile(shapes);
  report.left_out = shapes.size();
  std::optional<Error> broken;
  for (const Shape& shape : shapes) {
    if (given.budget_seconds > 0 && seconds() > given.budget_seconds) {
      say(fmt::format("{:.0f} s are over: {} shapes are left out", given.budget_seconds, report.left_out));
      break;
    }
    const std::string name = fmt::format("[{}/{}] {}", report.shapes.size() + 1, shapes.size(), text(shape));
    try {
      report.shapes.push_back(harness.run(shape));
    } catch (const Error& error) {
      // A failed device refuses all that follows; what was measured before it still counts.
      report.error = fmt::format("{}: {}", name, error.what());
      broken.emplace(error.code(), report.error);
      break;
    }
    --report.left_out;
    const bench::ShapeResult& done = report.shapes.back();
    const bench::Outcome& ours = done.ours;
    say(ours.error.empty() ? fmt::format("{} {:.2f} us{}, {:.1f} s", name, ours.time_us.median,
                                         ours.check && ours.check->mismatches ? " WRONG" : "", done.seconds)
                           : fmt::format("{} {}", name, ours.error));
    report.machine = harness.machine();
    if (to_file && !pipe) rewrite();
  }
  report.machine = harness.machine();
  if (given.json == "-") {
    print_json(bench::to_json(report));
    cli::say(text_of(report));
  } else {
    if (pipe)
      write_report(*pipe, report);
    else if (to_file)
      rewrite();
    fmt::print("{}", text_of(report));
  }
  if (broken) throw *broken;
  const bool failed = std::any_of(report.shapes.begin(), report.shapes.end(),
                                  [](const bench::ShapeResult& s) { return !s.ours.error.empty(); });
  if (failed || bench::mismatches(report.shapes) > 0) throw ExitCode{1};
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Kernel times beside cuBLASLt's and the streaming floor's");
  auto given = std::make_shared<BenchOptions>();
  std::vector<std::string> regimes;
  for (bench::Regime regime : bench::kRegimes) regimes.emplace_back(bench::name_of(regime));
  given->shapes.add_to(*command);
  command
      ->add_option("--regime", given->regime,
                   "what runs before each call: cool 8 GB memset, dirty 1 GB memset, clean 1 GB read, warm nothing; "
                   "sustained: back to back for 0.2 s over rotating operands")
      ->check(CLI::IsMember(regimes))
      ->capture_default_str();
  command->add_option("--rival", given->rival, "time this library launch by launch beside ours")
      ->check(CLI::IsMember({"cublaslt"}));
  command->add_flag("--rival-first", given->rival_first,
                    "the rival runs its heuristic's first proposal, not the fastest of the first 8");
  given->form.add_to(*command);
  command->add_option("--repeats", given->repeats, "timed calls of each contender (default 10; 4 with several configs)")
      ->check(CLI::Range(1, 1000));
  command->add_flag("--all-configs", given->all_configs, "time the best-estimated configs beside the chosen one");
  command->add_option("--max-configs", given->max_configs, "of --all-configs, for each shape")
      ->check(CLI::Range(2, 1000))
      ->capture_default_str();
  command->add_option("--configs", given->configs, "JSON file with configs to time beside the chosen one");
  command->add_flag("--no-check", given->no_check, "do not compare results with the reference");
  command->add_option("--budget-seconds", given->budget_seconds, "start no further shape after this time")
      ->check(CLI::Range(0.0, 1e6));
  add_seed(*command, given->seed);
  command->add_option("--json", given->json, "write the full report to this file; - writes it to standard output");
  command->footer("The environment variable DG_REVISION, where set, is noted in the report as the tree's revision.");
  command->callback([given] { run(*given); });
}

}  // namespace deep_gemm::cli
