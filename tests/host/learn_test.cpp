// What surrounds the kernels of docs/learn: shapes, the report, and the table in the documentation.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include <deep_gemm/error.h>

#include "learn/report.h"
#include "learn/steps.h"

namespace deep_gemm::learn {
namespace {

std::string error_of(int64_t m, int64_t n, int64_t k) {
  try {
    check_shape(m, n, k);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "";
}

TEST(Learn, ShapesWithoutTails) {
  EXPECT_EQ(error_of(256, 256, 128), "");
  EXPECT_EQ(error_of(65536, 65536, 65536), "");
  EXPECT_EQ(error_of(128, 256, 128),
            "m is 128, expected a multiple of 256 from 256 to 65536: these kernels have no code for tails");
  EXPECT_TRUE(error_of(256, 384, 128).starts_with("n is 384, expected a multiple of 256 from 256 "));
  EXPECT_TRUE(error_of(256, 256, 64).starts_with("k is 64, expected a multiple of 128 from 128 "));
  EXPECT_NE(error_of(0, 256, 128), "");
  EXPECT_NE(error_of(-256, 256, 128), "");
  EXPECT_NE(error_of(256, 65792, 128), "");
}

TEST(Learn, EveryStepHasItsFileAndDividesTheShapes) {
  EXPECT_EQ(kernel_texts().size(), steps().size());
  for (const Step& step : steps()) {
    EXPECT_EQ(256 % step.tile_m, 0u) << step.file;
    EXPECT_EQ(256 % (step.tile_n * step.cluster), 0u) << step.file;
    std::ifstream file(DG_SOURCE_DIR "/examples/learn/" + std::string(step.file));
    std::ostringstream text;
    text << file.rdbuf();
    ASSERT_FALSE(text.str().empty()) << step.file;
    EXPECT_TRUE(source(step).text.starts_with(text.str())) << step.file << " in the program is not the one in the tree";
  }
}

TEST(Learn, ReportBecomesATable) {
  Timing naive{.name = "naive", .what_is_new = "one thread an element", .kernel = "learn_1_naive", .sha256 = "abc"};
  naive.median_us = 400000;
  naive.tflops = 0.6;
  Timing shipped{.name = "shipped", .what_is_new = "fp8_gemm_nt", .kernel = "fp8_gemm_nt_256x128", .sha256 = {}};
  shipped.median_us = 160.04;
  shipped.tflops = 1503.4;
  Report report{.date = "2026-01-02T03:04:05Z",
                .version = "0",
                .revision = {},
                .digest = {},
                .command = {},
                .device = "GPU",
                .driver = "1.2",
                .cuda = "13.0",
                .compiler = "NVRTC",
                .timer = "cupti",
                .regime = "cool",
                .m = 256,
                .n = 512,
                .k = 128,
                .repeats = 3,
                .steps = {{1, naive}},
                .shipped = shipped};
  const auto json = nlohmann::ordered_json::parse(to_json(report).dump());
  EXPECT_EQ(json["steps"][0]["step"], 1);
  EXPECT_EQ(json["steps"][0]["sha256"], "abc");
  EXPECT_EQ(json["steps"][0]["check"]["mismatches"], 0);
  EXPECT_EQ(markdown(json),
            "| step | what is new | µs | TFLOPS | of the shipped kernel |\n"
            "| --- | --- | ---: | ---: | ---: |\n"
            "| 1 naive | one thread an element | 400000 | 0.6 | 0.0 % |\n"
            "| shipped | fp8_gemm_nt | 160 | 1503 | 100 % |\n"
            "\n256×512×128, GPU, driver 1.2, CUDA 13.0, 2026-01-02, regime cool, median of 3 launches by cupti.\n");
}

/// What stands between the markers is what `deep_gemm_learn --table` prints of the committed report.
TEST(Learn, TableInTheDocumentationIsThatOfTheReport) {
  std::ifstream report(DG_SOURCE_DIR "/bench/results/learn.json");
  if (!report) GTEST_SKIP() << "NOT TESTED: there is no bench/results/learn.json";
  std::ifstream file(DG_SOURCE_DIR "/docs/learn/README.md");
  std::ostringstream page;
  page << file.rdbuf();
  const std::string begin = "<!-- evidence:begin -->\n", end = "<!-- evidence:end -->\n";
  const std::size_t from = page.str().find(begin), to = page.str().find(end);
  ASSERT_NE(from, std::string::npos);
  ASSERT_NE(to, std::string::npos);
  EXPECT_EQ(page.str().substr(from + begin.size(), to - from - begin.size()),
            markdown(nlohmann::ordered_json::parse(report)));
}

}  // namespace
}  // namespace deep_gemm::learn
