// The program as a user meets it: exit status, standard output, standard error.
#include <sys/wait.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <span>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <deep_gemm/gemm.h>

#include "cuda/driver.h"
#include "fake_nvcc.h"
#include "gemm/kernel_source.h"
#include "jit/entry.h"
#include "npy.h"
#include "safetensors.h"
#include "scratch.h"

namespace deep_gemm::cli {
namespace {

using nlohmann::json;

struct Result {
  int status = 0;
  std::string out, err;
};

class Cli : public testing::Test {
 protected:
  std::string quoted(const std::string& text) const {
    std::string out;
    for (char c : text) {
      if (c == '\'')
        out.append("'\\''");
      else
        out.push_back(c);
    }
    return fmt::format("'{}'", out);
  }
  Result run(const std::vector<std::string>& arguments, const std::string& environment = "") const {
    std::string command =
        fmt::format("DG_JIT_CACHE_DIR={} {} {}", quoted(scratch.path("cache")), environment, quoted(DG_CLI));
    for (const std::string& argument : arguments) command += fmt::format(" {}", quoted(argument));
    command += fmt::format(" >{} 2>{} </dev/null", quoted(scratch.path("out")), quoted(scratch.path("err")));
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text(scratch.path("out")),
            read_text(scratch.path("err"))};
  }
  json run_json(std::vector<std::string> arguments, int status = 0) const {
    arguments.push_back("--json");
    const Result result = run(arguments);
    EXPECT_EQ(result.status, status) << result.err;
    return json::parse(result.out);
  }
  /// It exits with 2, prints nothing, and one line on standard error that has `part` in it.
  void refused(const std::vector<std::string>& arguments, const std::string& part) const {
    const Result result = run(arguments);
    EXPECT_EQ(result.status, 2) << result.out << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(result.err.starts_with("deep_gemm: ")) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
  }
  Scratch scratch;
};

std::span<const std::byte> bytes_of(const std::vector<float>& values) { return std::as_bytes(std::span(values)); }

/// A file with an FP32 layer `a.b` [n, k], and one more tensor.
std::vector<float> write_model(const std::string& path, int64_t n, int64_t k) {
  std::mt19937 random(11);
  std::vector<float> weight(static_cast<std::size_t>(n * k));
  for (float& value : weight) value = std::normal_distribution<float>(0, 0.05f)(random);
  SafetensorsWriter writer(
      path, {{"a.b.weight", "F32", {n, k}}, {"a.b.bias", "F32", {n}}, {"a.embed.weight", "F32", {n, k}}});
  writer.write("a.b.weight", bytes_of(weight));
  writer.write("a.b.bias", bytes_of(std::vector<float>(static_cast<std::size_t>(n), 0.5f)));
  writer.write("a.embed.weight", bytes_of(weight));
  writer.commit();
  return weight;
}

std::vector<float> write_activations(const std::string& path, int64_t m, int64_t k) {
  std::mt19937 random(12);
  std::vector<float> x(static_cast<std::size_t>(m * k));
  for (float& value : x) value = std::normal_distribution<float>()(random);
  write_npy(path, x, m, k);
  return x;
}

/// |d - x wᵀ| / |x wᵀ|
double relative_error(const NpyArray& d, const std::vector<float>& x, const std::vector<float>& w, int64_t m, int64_t n,
                      int64_t k) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double expected = 0;
      for (int64_t p = 0; p < k; ++p)
        expected +=
            static_cast<double>(x[static_cast<std::size_t>(i * k + p)]) * w[static_cast<std::size_t>(j * k + p)];
      float got;
      std::memcpy(&got, d.bytes.data() + (i * n + j) * 4, 4);
      difference += (got - expected) * (got - expected);
      norm += expected * expected;
    }
  }
  return std::sqrt(difference / norm);
}

TEST_F(Cli, HelpAndVersion) {
  const Result help = run({"--help"});
  EXPECT_EQ(help.status, 0);
  for (const char* command : {"info", "run", "quantize", "check", "plan", "compile", "bench", "cache"}) {
    EXPECT_NE(help.out.find(std::string("\n  ") + command), std::string::npos) << command;
    const Result one = run({command, "--help"});
    EXPECT_EQ(one.status, 0);
    EXPECT_NE(one.out.find("deep_gemm"), std::string::npos) << command;
  }
  EXPECT_TRUE(run({"--version"}).out.starts_with("deep_gemm 0."));
}

TEST_F(Cli, WrongUsage) {
  refused({}, "A subcommand is required");
  refused({"frobnicate"}, "no command 'frobnicate'");
  refused({"plan"}, "M is required");
  refused({"plan", "1", "2"}, "K is required");
  refused({"plan", "1", "2", "x"}, "x");
  refused({"plan", "1", "2", "3000000000"}, "3000000000");
  refused({"plan", "64", "128", "128", "--device", "b200"}, "b200");
  refused({"plan", "64", "128", "128", "--config", "{\"tile\":1}"}, "config");
  refused({"check"}, "expected M N K or --shapes FILE");
  refused({"check", "1", "2"}, "expected M N K or --shapes FILE");
  refused({"check", "1", "2", "3", "--shapes", "x.csv"}, "exclude each other");
  refused({"check", "--shapes", scratch.path("none.csv")}, "cannot be opened");
  refused({"check", "1", "2", "3", "--backend", "tpu"}, "tpu");
  refused({"compile"}, "--shapes is required");
  refused({"cache"}, "A subcommand is required");
  refused({"cache", "frobnicate"}, "no command 'frobnicate'");
  refused({"plan", "1", "2", "3", "--num-sms", "-1"}, "2147483647");
  refused({"plan", "1", "2", "3", "--config", "[{},{}]"}, "--config takes one JSON object");
  refused({"plan", "1", "2", "3", "--config", ""}, "config: not JSON");
  refused({"check", "--shapes", "x.csv", "--layout", "masked", "--groups", "4"}, "are of M N K");
  for (const char* seed : {"-1", "18446744073709551616", "1.5", ""})
    refused({"check", "1", "2", "3", "--backend", "cpu", "--seed", seed}, "is no whole number below 2^64");
  const std::string deep(1'000'000, '[');
  refused({"bench", "1", "1", "1", "--configs", scratch.write("deep", deep)}, "config: nested more than 3 deep");
  refused({"bench", "1", "1", "1", "--configs", scratch.write("empty", "")}, "config: not JSON");
  refused({"run", "--weights", "x"}, "--layer is required");
  refused({"run", "--weights", "x", "--layer", "y"}, "--activations FILE or --tokens M");
  refused({"run", "--weights", scratch.path("a\nb"), "--layer", "y", "--tokens", "1"}, "cannot be opened");
  refused({"quantize", "--weights", "x", "--output", "y", "--skip", "("}, "regular expression");
}

TEST_F(Cli, OutputThatCannotBeWritten) {
  const Result result = run({"plan", "64", "512", "512"});
  EXPECT_EQ(result.status, 0);
  const std::string command = quoted(DG_CLI) + " plan 64 512 512 >/dev/full 2>" + quoted(scratch.path("err"));
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_EQ(read_text(scratch.path("err")), "deep_gemm: cannot write to standard output\n");
}

TEST_F(Cli, InfoSaysWhatIsMissing) {
  const json info = run_json({"info"});
  EXPECT_EQ(info["backend"] == "cuda", !info["devices"].empty() && info["driver"]["problem"].is_null());
  EXPECT_EQ(info["devices"].size(), static_cast<std::size_t>(cuda::device_count()));
  EXPECT_NE(info["compiler"]["name"].is_null(), info["compiler"]["problem"].is_null());
  ASSERT_EQ(info["caches"].size(), 1u);
  EXPECT_EQ(info["caches"][0]["path"], scratch.path("cache"));
  EXPECT_EQ(info["caches"][0]["writable"], true);
  EXPECT_EQ(info["caches"][0]["entries"], 0);
  const Result missing = run({"info"}, "DG_JIT_USE_NVRTC=0 DG_JIT_NVCC_COMPILER=/nowhere/nvcc");
  EXPECT_EQ(missing.status, 0);
  EXPECT_NE(missing.out.find("compiler  none"), std::string::npos) << missing.out;
  EXPECT_NE(missing.out.find("missing   compiler: "), std::string::npos) << missing.out;
}

TEST_F(Cli, PlanIsDeterministic) {
  for (const char* device : {"h100", "h200", "h800"}) {
    const std::vector<std::string> command = {"plan", "4096", "7168", "2048", "--device", device};
    const json plan = run_json(command);
    EXPECT_EQ(plan, run_json(command));
    EXPECT_GT(plan["estimate_us"], 0);
    EXPECT_FALSE(plan["reason"].get<std::string>().empty());
    EXPECT_FALSE(plan["runners_up"].empty());
    const Result text = run(command);
    EXPECT_NE(text.out.find(plan["reason"].get<std::string>()), std::string::npos);
    // What plan prints, plan takes.
    const json second = plan["runners_up"][0];
    const json forced =
        run_json({"plan", "4096", "7168", "2048", "--device", device, "--config", second["config"].dump()});
    EXPECT_EQ(forced["config"], second["config"]);
  }
  EXPECT_EQ(
      run_json({"plan", "64", "512", "512", "--d-type", "f32", "--accumulate", "--unscaled-a"})["config"]["d_type"],
      "f32");
}

TEST_F(Cli, CheckOnTheCpu) {
  const std::string shapes = scratch.write(
      "shapes.csv", "layout,m,n,k,groups,loads\ndense,1,1,1,1,\ndense,65,130,257,1,\ndense,0,8,8,1,\ndense,7,9,0,1,\n");
  for (const std::vector<std::string>& extra : {std::vector<std::string>{},
                                                {"--d-type", "f32", "--accumulate"},
                                                {"--unscaled-a", "--unscaled-b", "--seed", "9"}}) {
    std::vector<std::string> command = {"check", "--shapes", shapes, "--backend", "cpu"};
    command.insert(command.end(), extra.begin(), extra.end());
    const json check = run_json(command);
    EXPECT_EQ(check["backend"], "cpu");
    ASSERT_EQ(check["results"].size(), 4u);
    for (const json& result : check["results"]) {
      EXPECT_EQ(result["ok"], true) << result;
      EXPECT_EQ(result["elements"], result["m"].get<int64_t>() * result["n"].get<int64_t>());
    }
    EXPECT_LT(check["results"][1]["worst_ratio"], 1);
  }
  const Result text = run({"check", "33", "64", "128", "--backend", "cpu"});
  EXPECT_EQ(text.status, 0);
  EXPECT_NE(text.out.find("33"), std::string::npos);
  EXPECT_EQ(text.err, "");
}

TEST_F(Cli, CheckOfEveryForm) {
  const std::string shapes = scratch.write("shapes.csv",
                                           "layout,m,n,k,groups,loads\n"
                                           "dense,65,130,257,1,\n"
                                           "k-grouped,70,130,256,3,\n"
                                           "k-grouped,70,130,256,3,128;0;384\n"
                                           "k-grouped,33,40,256,4,7;0;129;300\n");
  for (const char* a : {"e4m3", "e5m2"})
    for (const char* b : {"e4m3", "e5m2"})
      for (const char* recipe : {"1,128,128", "1,1,128"}) {
        const json check = run_json(
            {"check", "--shapes", shapes, "--backend", "cpu", "--a-type", a, "--b-type", b, "--recipe", recipe});
        ASSERT_EQ(check["results"].size(), 4u);
        for (const json& result : check["results"]) {
          EXPECT_EQ(result["ok"], true) << result;
          EXPECT_EQ(result["elements"],
                    result["groups"].get<int64_t>() * result["m"].get<int64_t>() * result["n"].get<int64_t>());
          EXPECT_EQ(result["a_type"], a);
          EXPECT_EQ(result["b_type"], b);
          EXPECT_EQ(result["d_type"], result["layout"] == "dense" ? "bf16" : "f32");
          EXPECT_EQ(result["recipe"], result["layout"] == "dense" ? recipe : "1,1,128");
        }
        EXPECT_EQ(check["results"][1]["k"], 768);
        EXPECT_EQ(check["results"][2]["layout"], "k-grouped");
      }
  const Result text = run({"check", "33", "64", "128", "--layout", "k-grouped", "--groups", "2", "--backend", "cpu"});
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_NE(text.out.find("k-grouped"), std::string::npos) << text.out;
  EXPECT_EQ(run_json({"check", "65", "130", "257", "--backend", "cpu", "--recipe", "1,1,128", "--unscaled-b",
                      "--accumulate", "--d-type", "f32"})["ok"],
            true);
  refused({"check", "1", "2", "3", "--layout", "masked", "--recipe", "1,1,128", "--backend", "cpu"},
          "--recipe 1,1,128 needs --layout dense or k-grouped");
  refused({"check", "1", "2", "3", "--recipe", "1,128,1"}, "--recipe");
  refused({"check", "1", "2", "3", "--a-type", "bf16"}, "--a-type");
  refused({"bench", "1", "2", "3", "--layout", "offsets", "--recipe", "1,1,128"}, "--recipe 1,1,128 needs");
}

TEST_F(Cli, PlanOfEveryForm) {
  const json gradients = run_json({"plan", "7168", "4096", "8192", "--layout", "k-grouped", "--groups", "4"});
  EXPECT_EQ(gradients["layout"], "k-grouped");
  EXPECT_EQ(gradients["config"]["d_type"], "f32");
  EXPECT_EQ(gradients["config"]["accumulate"], true);
  EXPECT_EQ(gradients["config"]["scale_rows_b"], 1);
  const json dense = run_json({"plan", "4096", "7168", "2048", "--recipe", "1,1,128", "--a-type", "e5m2"});
  EXPECT_EQ(dense["config"]["scale_rows_b"], 1);
  EXPECT_EQ(dense["config"]["a_type"], "e5m2");
  EXPECT_EQ(dense["config"]["b_type"], "e4m3");
  const Result text = run({"plan", "4096", "7168", "2048", "--recipe", "1,1,128", "--b-type", "e5m2"});
  EXPECT_NE(text.out.find("A e4m3, B e5m2, recipe 1,1,128, D bf16"), std::string::npos) << text.out;
}

TEST_F(Cli, GpuCommandsWithoutGpu) {
  if (cuda::device_count() > 0) GTEST_SKIP() << "this machine has a GPU";
  write_model(scratch.path("model"), 8, 16);
  refused({"check", "1", "2", "3", "--backend", "cuda"}, "");
  refused({"run", "--weights", scratch.path("model"), "--layer", "a.b", "--tokens", "2", "--backend", "cuda"}, "");
  refused({"check", "1", "2", "3", "--config", "{}"}, "--config needs --backend cuda");
}

TEST_F(Cli, RunMultipliesAndReports) {
  const int64_t m = 37, n = 150, k = 200;  // k is no multiple of 16
  const std::vector<float> w = write_model(scratch.path("model"), n, k);
  const std::vector<float> x = write_activations(scratch.path("x.npy"), m, k);
  const auto run_layer = [&](const std::string& model) {
    const json report = run_json({"run", "--weights", model, "--layer", "a.b", "--activations", scratch.path("x.npy"),
                                  "--output", scratch.path("y.npy"), "--backend", "cpu"});
    EXPECT_EQ(report["m"], m);
    EXPECT_EQ(report["n"], n);
    EXPECT_EQ(report["k"], k);
    EXPECT_GT(report["time_us"], 0);
    const NpyArray y = read_npy(scratch.path("y.npy"));
    EXPECT_EQ(y.shape, (std::vector<int64_t>{m, n}));
    EXPECT_EQ(y.dtype, DType::f32);
    return std::pair(report, relative_error(y, x, w, m, n, k));
  };
  const auto [plain, plain_error] = run_layer(scratch.path("model"));
  EXPECT_EQ(plain["weight_dtype"], "f32");
  EXPECT_NEAR(plain["relative_error"], plain_error, 1e-5);
  EXPECT_GT(plain_error, 0.01);
  EXPECT_LT(plain_error, 0.06);  // e4m3 keeps 3 bits: half a step is 2^-4 at most, and its mean is smaller
  EXPECT_GT(plain["cosine"], 0.998);
  const std::string y_of_plain = read_text(scratch.path("y.npy"));

  const json quantised = run_json({"quantize", "--weights", scratch.path("model"), "--output", scratch.path("fp8")});
  EXPECT_EQ(quantised["quantised"], json({"a.b.weight"}));
  EXPECT_EQ(quantised["copied"], 2);
  const auto [fp8, fp8_error] = run_layer(scratch.path("fp8"));
  EXPECT_EQ(fp8["weight_dtype"], "e4m3");
  // The same values are multiplied, and the reference now is the dequantised weight.
  EXPECT_EQ(read_text(scratch.path("y.npy")), y_of_plain);
  EXPECT_NEAR(fp8_error, plain_error, 1e-9);
  EXPECT_LT(fp8["relative_error"], plain["relative_error"]);
  EXPECT_GT(fp8["relative_error"], 0.005);
}

TEST_F(Cli, RunIsRepeatable) {
  write_model(scratch.path("model"), 64, 128);
  const auto once = [&](const std::string& seed) {
    const Result result = run({"run", "--weights", scratch.path("model"), "--layer", "a.b.weight", "--tokens", "9",
                               "--seed", seed, "--output", scratch.path("y.npy"), "--backend", "cpu"});
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_NE(result.out.find("relative error"), std::string::npos);
    return read_text(scratch.path("y.npy"));
  };
  const std::string first = once("5");
  EXPECT_EQ(first, once("5"));
  EXPECT_NE(first, once("6"));
}

TEST_F(Cli, RunErrors) {
  write_model(scratch.path("model"), 64, 128);
  write_activations(scratch.path("x.npy"), 3, 100);
  const auto refused_run = [&](const std::string& layer, std::vector<std::string> more, const std::string& part) {
    std::vector<std::string> command = {"run", "--weights", scratch.path("model"), "--layer", layer};
    command.insert(command.end(), more.begin(), more.end());
    refused(command, part);
  };
  refused_run("a.c", {"--tokens", "1"}, "no layer 'a.c'; similar ones of 2: a.b, a.embed");
  refused_run("a.b", {"--activations", scratch.path("x.npy")},
              "x.npy: shape [3, 100], expected [m, 128] for the layer 'a.b'");
  refused_run("a.b", {"--activations", scratch.path("model")}, "not a .npy file");
  refused_run("a.b", {"--tokens", "0"}, "--tokens");
  refused_run("a.b", {"--tokens", "1", "--activations", scratch.path("x.npy")}, "--activations");
  refused_run("a.b", {"--tokens", "1", "--output", scratch.path("no/y.npy")}, "cannot be written");
  scratch.write("model", read_text(scratch.path("model")).substr(0, 1000));
  refused_run("a.b", {"--tokens", "1"}, "truncated");
}

TEST_F(Cli, QuantizeKeepsTheRest) {
  const std::vector<float> w = write_model(scratch.path("model"), 130, 140);
  EXPECT_EQ(
      run({"quantize", "--weights", scratch.path("model"), "--output", scratch.path("model"), "--power-of-two-scales"})
          .status,
      0);
  const SafetensorsFile model(scratch.path("model"));  // written over its own source
  ASSERT_EQ(model.tensors().size(), 4u);
  EXPECT_EQ(model.find("a.b.weight")->dtype, "F8_E4M3");
  EXPECT_EQ(model.find("a.embed.weight")->dtype, "F32");
  EXPECT_EQ(std::memcmp(model.find("a.embed.weight")->bytes.data(), w.data(), w.size() * 4), 0);
  const StoredTensor* scale = model.find("a.b.weight_scale_inv");
  EXPECT_EQ(scale->shape, (std::vector<int64_t>{2, 2}));
  for (std::size_t i = 0; i < 4; ++i) {
    float value;
    std::memcpy(&value, scale->bytes.data() + 4 * i, 4);
    int exponent = 0;
    EXPECT_EQ(std::frexp(value, &exponent), 0.5f) << value;
  }
  // Once more: what is FP8 stays as it is.
  const std::string before = read_text(scratch.path("model"));
  EXPECT_EQ(run_json({"quantize", "--weights", scratch.path("model"), "--output", scratch.path("again")})["quantised"],
            json::array());
  EXPECT_EQ(read_text(scratch.path("again")), before);
}

TEST_F(Cli, CacheOfNothing) {
  EXPECT_EQ(run({"cache", "path"}).out, scratch.path("cache") + "\n");
  EXPECT_EQ(run_json({"cache", "ls"}), json({{"entries", json::array()}, {"bytes", 0}}));
  EXPECT_EQ(run_json({"cache", "rm"})["removed"], 0);
  EXPECT_EQ(run({"cache", "ls", "--cache", scratch.path("other")}).status, 0);
  const std::string file = scratch.write("file", "");
  for (const char* action : {"ls", "rm"}) {
    refused({"cache", action, "--cache", file}, "cache: " + file + " cannot be listed: Not a directory");
    refused({"cache", action, "--cache", ""}, "--cache");
  }
  refused({"compile", "--shapes", DG_SOURCE_DIR "/bench/shapes/dense.csv", "--cache", ""}, "--cache");
  const Result unwritable = run({"cache", "path", "--cache", file + "/below"});
  EXPECT_EQ(unwritable.status, 2);
  refused({"compile", "--shapes", DG_SOURCE_DIR "/bench/shapes/dense.csv", "--cache", file + "/below"},
          "can be written");
}

TEST_F(Cli, CompileIntoACacheThatTakesNothing) {
  const test::FakeNvcc nvcc;
  const std::string compiler = "DG_JIT_USE_NVRTC=0 DG_JIT_NVCC_COMPILER=" + quoted(nvcc.path().string());
  const std::string shapes = scratch.write("shapes.csv", "m,n,k\n64,512,512\n");
  // Rows are those of `loads`; m is no more than what a masked call expects.
  const std::string loads =
      scratch.write("loads.csv", "m,n,k,layout,groups,loads\n0,64,64,offsets,2,5;7\n0,64,64,masked,2,0;0\n");
  const Result kernels = run({"compile", "--shapes", loads, "--cache", scratch.path("loads")}, compiler);
  EXPECT_NE(kernels.out.find("1 kernels in "), std::string::npos) << kernels.out << kernels.err;
  std::filesystem::create_symlink("/nonexistent/directory", scratch.path("cache"));
  const Result lost = run({"compile", "--shapes", shapes}, compiler);
  EXPECT_EQ(lost.status, 2);
  EXPECT_EQ(lost.out, "");
  EXPECT_NE(lost.err.find("kernels are compiled for this process alone"), std::string::npos) << lost.err;
  EXPECT_NE(lost.err.find("compile: 1 of 1 kernels could not be written to " + scratch.path("cache")),
            std::string::npos)
      << lost.err;
  std::filesystem::remove(scratch.path("cache"));
  // Nor is it written because an entry of that name from other sources is there.
  const GemmConfig config = plan({.m = 64, .n = 512, .k = 512}, DeviceInfo::h100()).config;
  const std::string key = jit::KernelStore::key(kernel_source(config)), other_key(32, '0');
  jit::Entry other{other_key, kernel_name(config), {}};
  other.binary.cubin = {std::byte{1}};
  test::write_text(scratch.path("cache/" + other_key + ".dgk"), jit::write_entry(other));
  test::write_text(scratch.path("cache/" + key + ".dgk/in"), "the way");
  test::write_text(scratch.path("cache/locks"), "in the way");
  const Result same_name = run({"compile", "--shapes", shapes, "--device", "h100"}, compiler);
  EXPECT_EQ(same_name.status, 2) << same_name.out;
  EXPECT_NE(same_name.err.find("1 of 1 kernels could not be written"), std::string::npos) << same_name.err;
  std::filesystem::remove_all(scratch.path("cache"));
  EXPECT_EQ(run({"compile", "--shapes", shapes}, compiler).status, 0);
  EXPECT_NE(run({"cache", "ls"}).out.find("1 kernel"), std::string::npos);
}

// No HOME, no PATH, nothing: what needs no cache works, and the rest says what is missing.
TEST_F(Cli, EmptyEnvironment) {
  write_model(scratch.path("model"), 64, 128);
  const auto bare = [&](const std::vector<std::string>& arguments) { return run(arguments, "/usr/bin/env -i"); };
  const Result info = bare({"info"});
  EXPECT_EQ(info.status, 0) << info.err;
  EXPECT_NE(info.out.find("cache     none: DG_JIT_CACHE_DIR, XDG_CACHE_HOME and HOME name none"), std::string::npos)
      << info.out;
  EXPECT_EQ(bare({"check", "65", "130", "257", "--backend", "cpu"}).status, 0);
  EXPECT_EQ(bare({"run", "--weights", scratch.path("model"), "--layer", "a.b", "--tokens", "3", "--backend", "cpu",
                  "--output", scratch.path("y.npy")})
                .status,
            0);
  EXPECT_EQ(read_npy(scratch.path("y.npy")).shape, (std::vector<int64_t>{3, 64}));
  EXPECT_EQ(bare({"cache", "ls"}).out, "0 kernels, 0 B\n");
  const Result none = bare({"compile", "--shapes", DG_SOURCE_DIR "/bench/shapes/dense.csv"});
  EXPECT_EQ(none.status, 2);
  EXPECT_NE(none.err.find("can be written"), std::string::npos) << none.err;
  for (const char* variables : {"/usr/bin/env -i", "DG_JIT_CACHE_DIR=:"}) {
    const Result path = run({"cache", "path"}, variables);
    EXPECT_EQ(path.status, 2);
    EXPECT_NE(path.err.find("name no directory for the cache; name one with --cache"), std::string::npos) << path.err;
  }
}

// Directories that lie in each other, or are named twice: each kernel is counted where it lies.
TEST_F(Cli, InfoCountsKernels) {
  const test::FakeNvcc nvcc;
  const std::string outer = scratch.path("cache"), inner = outer + "/inner";
  const std::string shapes = scratch.write("shapes.csv", "m,n,k\n64,512,512\n");
  const std::string compiler = "DG_JIT_USE_NVRTC=0 DG_JIT_NVCC_COMPILER=" + quoted(nvcc.path().string());
  EXPECT_EQ(run({"compile", "--shapes", shapes, "--cache", inner}, compiler).status, 0);
  const Result info = run({"info", "--json"}, "DG_JIT_CACHE_DIR=" + quoted(outer + ":" + inner + ":" + inner + "/"));
  const json caches = json::parse(info.out)["caches"];
  ASSERT_EQ(caches.size(), 2U) << caches;
  EXPECT_EQ(caches[0]["entries"], 0);
  EXPECT_EQ(caches[1]["entries"], 1);
}

// A result that does not fit leaves the one before as it was.
TEST_F(Cli, OutputKeepsWhatWasThere) {
  write_model(scratch.path("model"), 64, 128);
  const std::string old = scratch.write("y.npy", "old");
  const std::vector<std::string> command = {"run",      "--weights", scratch.path("model"), "--layer", "a.b",
                                            "--tokens", "9",         "--backend",           "cpu",     "--output"};
  auto to = [&](const std::string& output) {
    std::vector<std::string> all = command;
    all.push_back(output);
    return all;
  };
  refused(to("/dev/full"), "/dev/full: cannot be written: No space left on device");
  refused(to(scratch.path("")), "cannot be written: Is a directory");
  EXPECT_EQ(run(to("/dev/null")).status, 0);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  EXPECT_EQ(read_text(old), "old");
  EXPECT_EQ(run(to(old)).status, 0);
  EXPECT_EQ(read_npy(old).shape, (std::vector<int64_t>{9, 64}));
}

// No rows, no columns, nothing to sum: nothing happens, in every layout.
TEST_F(Cli, ProductsOfNothing) {
  for (const char* layout : {"contiguous", "offsets", "masked", "k-grouped"})
    for (const auto& [m, n, k] : {std::array{"0", "5", "6"}, {"4", "0", "6"}, {"4", "5", "0"}, {"0", "0", "0"}}) {
      const json all = run_json({"check", m, n, k, "--layout", layout, "--groups", "2", "--backend", "cpu"})["results"];
      EXPECT_EQ(all[0]["ok"], true) << layout << " " << m << " " << n << " " << k;
    }
}

// More bytes than a number holds, and more than any memory.
TEST_F(Cli, SizesWithoutEnd) {
  refused({"check", "2147483647", "2147483647", "0", "--d-type", "f32", "--backend", "cpu"}, "out of memory");
  refused({"check", "2147483647", "2147483647", "0", "--layout", "masked", "--groups", "2", "--backend", "cpu"},
          "out of memory");
}

TEST_F(Cli, StandardStreamsThatAreClosedOrFull) {
  const auto status = [](const std::string& command) {
    const int all = std::system(command.c_str());
    return WIFEXITED(all) ? WEXITSTATUS(all) : -1;
  };
  for (const char* stream : {"2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"})
    EXPECT_EQ(status(fmt::format("{} frobnicate {}", quoted(DG_CLI), stream)), 2) << stream;
  EXPECT_EQ(status(fmt::format("{} --version >&- 2>/dev/null", quoted(DG_CLI))), 2);
  // A file of its own does not become standard error.
  write_model(scratch.path("model"), 64, 128);
  const std::string arguments = fmt::format("run --weights {} --layer a.b --tokens 3 --backend cpu --output {}",
                                            quoted(scratch.path("model")), quoted(scratch.path("y.npy")));
  EXPECT_EQ(status(fmt::format("{} {} <&- >/dev/null 2>&-", quoted(DG_CLI), arguments)), 0);
  EXPECT_EQ(read_npy(scratch.path("y.npy")).shape, (std::vector<int64_t>{3, 64}));
}

// What other programs write is read here, and the other way round.
TEST_F(Cli, NumPyAndSafetensorsAgree) {
  if (std::system("python3 -c 'import numpy, safetensors' 2>/dev/null") != 0)
    GTEST_SKIP() << "python3 has no numpy and safetensors; tools/setup.sh puts them into .venv";
  const std::string program = scratch.write("x.py", R"(
import sys, numpy as np
from safetensors.numpy import load_file, save_file
from safetensors import safe_open
root, step = sys.argv[1:]
if step == 'write':
    r = np.random.default_rng(1)
    save_file({'a.weight': r.normal(size=(40, 72)).astype('f4'), 'b.weight': r.normal(size=(40, 72)).astype('f2'),
               'n.bias': np.arange(3)}, root + '/model', metadata={'format': 'np'})
    np.save(root + '/x.npy', r.normal(size=(5, 72)).astype('f2'))
else:
    w, x, y = load_file(root + '/model'), np.load(root + '/x.npy').astype('f4'), np.load(root + '/y.npy')
    expected = x @ w['b.weight'].astype('f4').T
    assert y.shape == (5, 40) and y.dtype == np.float32
    assert np.linalg.norm(y - expected) < 0.06 * np.linalg.norm(expected)
    with safe_open(root + '/fp8', 'np') as f:
        assert sorted(f.keys()) == ['a.weight', 'a.weight_scale_inv', 'b.weight', 'b.weight_scale_inv', 'n.bias']
        assert f.metadata() == {'format': 'np'}
        assert f.get_slice('a.weight').get_dtype() == 'F8_E4M3' and f.get_slice('a.weight').get_shape() == [40, 72]
        assert (f.get_tensor('n.bias') == np.arange(3)).all()
        scale = f.get_tensor('b.weight_scale_inv')
        assert scale.shape == (1, 1) and np.isclose(scale[0, 0], np.abs(w['b.weight'].astype('f4')).max() / 448)
)");
  const auto python = [&](const std::string& step) {
    const std::string command = fmt::format("python3 {} {} {}", quoted(program), quoted(scratch.path("")), step);
    return std::system(command.c_str());
  };
  ASSERT_EQ(python("write"), 0);
  EXPECT_EQ(run({"quantize", "--weights", scratch.path("model"), "--output", scratch.path("fp8")}).status, 0);
  EXPECT_EQ(run({"run", "--weights", scratch.path("model"), "--layer", "b", "--activations", scratch.path("x.npy"),
                 "--output", scratch.path("y.npy"), "--backend", "cpu"})
                .status,
            0);
  EXPECT_EQ(python("check"), 0);
}

}  // namespace
}  // namespace deep_gemm::cli
