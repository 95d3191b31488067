// The benchmark's report: JSON, table, means; and the command where there is no GPU.
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>

#include <gtest/gtest.h>

#include "bench/report.h"
#include "config_json.h"
#include "cuda/driver.h"
#include "scratch.h"

namespace deep_gemm::bench {
namespace {

Outcome outcome(const Shape& shape, double us, double floor_us, int64_t mismatches = 0) {
  Outcome o;
  o.time_us = summarize({us - 0.5, us, us + 1});
  o.tflops = flop_of(shape) / us * 1e-6;
  o.gbytes_per_s = static_cast<double>(bytes_of(shape, DType::bf16)) / us * 1e-3;
  o.over_floor = us / floor_us;
  o.kernels = 1;
  o.kernel_names = {"some_kernel"};
  verify::Report& check = o.check.emplace();
  check.elements = shape.m * shape.n;
  check.mismatches = mismatches;
  check.worst_ratio = 0.25;
  if (mismatches > 0) check.first = {{.row = 3, .col = 4, .got = 1, .expected = 2, .bound = 0.1}};
  return o;
}

ShapeResult result(int64_t m, double us, double rival_us, double floor_us) {
  ShapeResult r;
  r.shape = {m, 4096, 7168};
  r.kernel = "fp8_gemm_nt_128x128";
  r.timer = "cupti";
  r.floor_us = floor_us;
  r.floor_way = "bulk";
  r.plan.config.tile_n = 160;
  r.ours = outcome(r.shape, us, floor_us);
  r.rival.emplace().outcome = outcome(r.shape, rival_us, floor_us);
  r.rival->proposals = 2;
  r.rival->proposals_us = {rival_us, rival_us + 1};
  return r;
}

Report report() {
  Report r;
  r.machine.device = "NVIDIA H100 80GB HBM3";
  r.machine.num_sms = 132;
  r.machine.cuda = "13.0";
  r.machine.timer = "cupti";
  r.machine.rival = "cuBLASLt 13.1.0";
  r.options.rival = true;
  r.date = "2026-11-22T12:00:00Z";
  r.shapes = {result(64, 10, 20, 8), result(128, 16, 20, 8), result(4096, 150, 180, 50)};
  return r;
}

double value_over(const std::vector<Mean>& means, const std::string& over) {
  for (const Mean& mean : means)
    if (mean.over == over) return mean.value;
  return -1;
}

TEST(BenchReport, BytesAndFlop) {
  EXPECT_EQ(bytes_of({64, 2112, 7168}, DType::bf16), 2112 * 7168 + 64 * 7168 + 2 * 64 * 2112);
  EXPECT_EQ(bytes_of({1, 1, 1}, DType::f32), 6);
  EXPECT_DOUBLE_EQ(flop_of({4096, 7168, 16384}), 2.0 * 4096 * 7168 * 16384);
  const Shape gradients{.m = 70, .n = 80, .k = 256, .layout = Layout::k_grouped, .groups = 3, .loads = {128, 0, 512}};
  EXPECT_EQ(bytes_of(gradients, DType::bf16), 640 * (70 + 80) + 3 * 70 * 80 * 4 * 2);
  EXPECT_DOUBLE_EQ(flop_of(gradients), 2.0 * 70 * 80 * 640);
}

TEST(BenchReport, MeansByPartOfTheShapes) {
  const Report r = report();
  EXPECT_NEAR(value_over(speedups(r.shapes), "all"), std::cbrt(2 * 1.25 * 1.2), 1e-12);
  EXPECT_NEAR(value_over(speedups(r.shapes), "m = 4096"), 1.2, 1e-12);
  EXPECT_NEAR(value_over(speedups(r.shapes), "m <= 128"), std::sqrt(2 * 1.25), 1e-12);
  EXPECT_NEAR(value_over(over_floor(r.shapes), "m <= 128"), std::sqrt(1.25 * 2), 1e-12);
  EXPECT_TRUE(speedups({}).empty());
}

TEST(BenchReport, AWrongResultCountsInNoMean) {
  Report r = report();
  r.shapes[2].ours.check->mismatches = 1;
  EXPECT_EQ(value_over(speedups(r.shapes), "m = 4096"), -1);
  EXPECT_EQ(mismatches(r.shapes), 1);
  r.shapes[1].rival->outcome.check->mismatches = 5;
  EXPECT_EQ(speedups(r.shapes).front().shapes, 1u);
  EXPECT_EQ(mismatches(r.shapes), 6);
  const nlohmann::ordered_json json = to_json(r);
  EXPECT_EQ(json["summary"]["mismatches"], 6);
  EXPECT_FALSE(json["shapes"][2].contains("speedup"));
  EXPECT_NE(table(r)[3][3].find("1 WRONG"), std::string::npos);
  EXPECT_NE(summary(r).back().find("6 elements differ"), std::string::npos);
}

TEST(BenchReport, JsonHoldsWhatWasMeasured) {
  Report r = report();
  r.shapes[0].clocks = ClockReport{.before = {1980, 300.5, 40},
                                   .after = {1755, 650, 60},
                                   .sm_mhz_min = 1700,
                                   .sm_mhz_max = 1980,
                                   .power_w_max = 690.25,
                                   .temperature_c_max = 61};
  const auto json = nlohmann::ordered_json::parse(to_json(r).dump());
  EXPECT_EQ(json["regime"], "cool");
  EXPECT_EQ(json["d_type"], "bf16");
  EXPECT_EQ(json["a_type"], "e4m3");
  EXPECT_EQ(json["recipe"], "1,128,128");
  EXPECT_EQ(json["digest"].get<std::string>(), tree_digest());
  EXPECT_EQ(json["digest"].get<std::string>().size(), 32u);
  EXPECT_TRUE(json["driver"].is_null());
  EXPECT_EQ(json["rival"]["name"], "cuBLASLt 13.1.0");
  ASSERT_EQ(json["shapes"].size(), 3u);
  const auto& shape = json["shapes"][0];
  EXPECT_EQ(shape["m"], 64);
  EXPECT_EQ(config_from_json(shape["config"]), r.shapes[0].plan.config);
  EXPECT_DOUBLE_EQ(shape["ours"]["time_us"]["median"], 10);
  EXPECT_DOUBLE_EQ(shape["ours"]["time_us"]["min"], 9.5);
  EXPECT_EQ(shape["ours"]["check"]["elements"], 64 * 4096);
  EXPECT_DOUBLE_EQ(shape["ours"]["over_floor"], 1.25);
  EXPECT_DOUBLE_EQ(shape["speedup"], 2);
  EXPECT_EQ(shape["rival"]["proposals_warm_us"].size(), 2u);
  EXPECT_EQ(shape["floor"]["way"], "bulk");
  EXPECT_EQ(shape["clocks"]["after"]["sm_mhz"], 1755);
  EXPECT_DOUBLE_EQ(shape["clocks"]["power_w_max"], 690.25);
  EXPECT_TRUE(json["shapes"][1]["clocks"].is_null());
  EXPECT_DOUBLE_EQ(json["summary"]["speedup"]["m = 4096"]["geomean"], 1.2);
  EXPECT_EQ(json["summary"]["over_floor"]["all"]["shapes"], 3);
}

TEST(BenchReport, AContenderThatCannotRunKeepsItsReason) {
  Report r = report();
  r.shapes[0].rival->outcome = {};
  r.shapes[0].rival->outcome.error = "cuBLASLt has no kernel for 64x4096x7168";
  const nlohmann::ordered_json json = to_json(r);
  EXPECT_EQ(json["shapes"][0]["rival"]["error"], "cuBLASLt has no kernel for 64x4096x7168");
  EXPECT_EQ(speedups(r.shapes).front().shapes, 2u);
  const auto rows = table(r);
  EXPECT_EQ(rows[1][6], "-");
  EXPECT_EQ(rows[1][8], "-");
  bool said = false;
  for (const std::string& line : summary(r)) said |= line.find("has no kernel") != std::string::npos;
  EXPECT_TRUE(said);
}

TEST(BenchReport, TableRowsHaveOneWidth) {
  Report r = report();
  for (bool rival : {true, false}) {
    r.options.rival = rival;
    const auto rows = table(r);
    ASSERT_EQ(rows.size(), 4u);
    for (const auto& row : rows) EXPECT_EQ(row.size(), rival ? 12u : 9u);
    EXPECT_EQ(rows[3].front(), "4096");
    EXPECT_EQ(rows[3].back(), "fp8_gemm_nt_128x128");
  }
}

TEST(BenchReport, ChosenAgainstBest) {
  Report r = report();
  auto add = [&](std::size_t shape, double us, int64_t wrong = 0) {
    ConfigOutcome& other = r.shapes[shape].configs.emplace_back();
    other.name = "config_" + std::to_string(static_cast<int>(us));
    other.outcome = outcome(r.shapes[shape].shape, us, 8, wrong);
  };
  add(0, 9), add(0, 8), add(0, 12), add(0, 1, 7);  // the fastest one is wrong and does not count
  add(1, 20);
  ConfigOutcome& illegal = r.shapes[2].configs.emplace_back();
  illegal.outcome.error = "tile_n is not a multiple of 16";
  const Choices found = choices(r.shapes);
  EXPECT_EQ(found.shapes, 2u);
  EXPECT_EQ(found.within_5_percent, 1u);
  EXPECT_DOUBLE_EQ(found.worst, 1.25);
  const auto rows = config_table(r);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[1].back(), "config_8");
  EXPECT_EQ(rows[2].back(), "the same");
  const nlohmann::ordered_json json = to_json(r);
  EXPECT_EQ(json["summary"]["choices"]["within_5_percent"], 1);
  EXPECT_DOUBLE_EQ(json["shapes"][0]["chosen_over_best"], 1.25);
  EXPECT_EQ(json["shapes"][2]["other_configs"][0]["error"], "tile_n is not a multiple of 16");
}

struct Ran {
  int status = -1;
  std::string output;
};
Ran shell(const std::string& command) {
  Ran ran;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return ran;
  std::array<char, 4096> buffer{};
  for (std::size_t n; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) ran.output.append(buffer.data(), n);
  const int status = pclose(pipe);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

TEST(BenchCommand, WithoutAGpuItSaysSoOnOneLine) {
  if (cuda::device_count() > 0) GTEST_SKIP() << "there is a GPU here";
  const Ran ran = shell(DG_CLI " bench 64 2112 7168 --rival cublaslt");
  EXPECT_EQ(ran.status, 2) << ran.output;
  EXPECT_EQ(std::count(ran.output.begin(), ran.output.end(), '\n'), 1) << ran.output;
  EXPECT_EQ(ran.output.rfind("deep_gemm: ", 0), 0u) << ran.output;
}

TEST(BenchCommand, WrongUseIsRefused) {
  for (const char* arguments :
       {"", "64 2112", "64 2112 7168 --regime hot", "64 2112 7168 --rival deepgemm", "64 2112 7168 --repeats 0",
        "--shapes /nonexistent.csv", "64 2112 7168 --configs /nonexistent.json"}) {
    const Ran ran = shell(std::string(DG_CLI " bench ") + arguments);
    EXPECT_EQ(ran.status, 2) << arguments << ": " << ran.output;
    EXPECT_EQ(std::count(ran.output.begin(), ran.output.end(), '\n'), 1) << ran.output;
  }
}

TEST(BenchEvidence, TheToolsDigestIsTheProgramsDigest) {
  if (shell("python3 --version").status != 0) GTEST_SKIP() << "no python3";
  const Ran ran = shell("python3 " DG_SOURCE_DIR "/tools/evidence.py --digest");
  EXPECT_EQ(ran.status, 0);
  EXPECT_EQ(ran.output, std::string(tree_digest()) + "\n");
}

TEST(BenchEvidence, TableOfAReportAndStaleQuotes) {
  if (shell("python3 --version").status != 0) GTEST_SKIP() << "no python3";
  const std::string report_path = testing::TempDir() + "bench_evidence.json";
  const std::string readme_path = testing::TempDir() + "bench_evidence.md";
  std::ofstream(report_path) << to_json(report()).dump();
  std::ofstream(readme_path) << "Measured: bench/results/never_measured.json\n";
  const std::string tool = "python3 " DG_SOURCE_DIR "/tools/evidence.py ";
  const Ran table = shell(tool + report_path);
  EXPECT_EQ(table.status, 0) << table.output;
  EXPECT_NE(table.output.find("| 4096 | 4096 | 7168 | 150.0 |"), std::string::npos) << table.output;
  EXPECT_NE(table.output.find("1.200 (m = 4096, 1 shapes)"), std::string::npos) << table.output;
  const Ran stale = shell(tool + "--strict --check " + readme_path);
  EXPECT_EQ(stale.status, 1) << stale.output;
  EXPECT_NE(stale.output.find("never_measured.json, which does not exist"), std::string::npos) << stale.output;
}

// Sources whose comments alone have changed since are those that were measured.
TEST(BenchEvidence, CommentsMakeNoReportStale) {
  if (shell("python3 --version && git --version").status != 0) GTEST_SKIP() << "no python3 or no git";
  const Scratch scratch;
  const std::string program = scratch.write("x.py", R"(
import json, pathlib, subprocess, sys
sys.path.insert(0, sys.argv[1])
import evidence
root = pathlib.Path(sys.argv[2])
def source(text):
    (root / 'device/a.cuh').write_text(text)
def git(*arguments):
    return subprocess.run(['git', '-C', root, '-c', 'user.name=x', '-c', 'user.email=x', *arguments], check=True,
                          capture_output=True, text=True).stdout.strip()
(root / 'bench/results').mkdir(parents=True)
(root / 'device').mkdir()
source('int a = 1;  // one\nconst char* s = "//";  /* two\nlines */\n')
git('init', '-q'), git('add', '-A'), git('commit', '-qm', 'x')
report = {'revision': git('rev-parse', 'HEAD'), 'digest': evidence.tree_digest(root)}
(root / 'bench/results/r.json').write_text(json.dumps(report))
(root / 'bench/results/of_host.json').write_text(json.dumps({'context': {'digest': report['digest']}}))
(root / 'README').write_text('bench/results/r.json bench/results/of_host.json')
def wrong():
    evidence.changed_since.cache_clear()
    return evidence.check(root / 'README', root)[1]
assert wrong() == []
source('// Quite another comment.\nint a = 1;\n\nconst char* s = "//";\n')
assert wrong() == [], wrong()
source('int a = 1;\nconst char* s = "// ";\n')
assert len(wrong()) == 2 and all('measured with another device/a.cuh' in one for one in wrong()), wrong()
source('int a = 1;\nconst char* s = "//";\n')
(root / 'device/b.cuh').write_text('int b;')
assert 'another device/b.cuh' in wrong()[0], wrong()
(root / 'device/b.cuh').unlink()
report['digest'] = '0' * 32
(root / 'bench/results/r.json').write_text(json.dumps(report))
assert 'other sources than the tree' in wrong()[0], wrong()
)");
  const Ran ran = shell("python3 " + program + " " DG_SOURCE_DIR "/tools " + scratch.path("repository"));
  EXPECT_EQ(ran.status, 0) << ran.output;
}

}  // namespace
}  // namespace deep_gemm::bench
