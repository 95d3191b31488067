// deep_gemm run: a real layer times activations, and how far FP8 is from FP32.
#include <cmath>
#include <span>

#include <fmt/format.h>

#include "backend.h"
#include "commands.h"
#include "layer.h"
#include "npy.h"
#include "options.h"
#include "output.h"
#include "text.h"
#include "verify/verify.h"

namespace deep_gemm::cli {
namespace {

struct RunOptions {
  std::string weights, layer, activations, output, backend;
  int64_t tokens = 0;
  uint64_t seed = 1;
  bool json = false;
};

/// FP8 values and their scales in memory of the backend.
struct Quantised {
  Matrix data, scale;
  operator Fp8Tensor() const { return {data, scale}; }
};

Quantised quantised_rows(Backend& backend, const Matrix& x) {
  const int64_t rows = x.view().shape[0], cols = x.view().shape[1];
  Quantised out{backend.matrix(DType::e4m3, rows, cols), backend.mn_major(rows, (cols + 127) / 128)};
  quantize_1x128(backend.context(), x, out);
  return out;
}

Quantised weight_of(Backend& backend, const Layer& layer) {
  if (layer.scale) return {backend.upload(layer.weight), backend.upload(layer.scale)};
  const int64_t n = layer.weight.shape[0], k = layer.weight.shape[1];
  Quantised out{backend.matrix(DType::e4m3, n, k), backend.matrix(DType::f32, (n + 127) / 128, (k + 127) / 128)};
  const Matrix raw = backend.upload(layer.weight);
  quantize_128x128(backend.context(), raw, out);
  return out;
}

/// [m, k] on the CPU, from the file or random.
struct Activations {
  std::optional<NpyArray> file;
  std::vector<float> values;
  TensorView view;
};

Activations activations_of(const RunOptions& options, int64_t k) {
  Activations x;
  if (options.activations.empty()) {
    x.values.resize(static_cast<std::size_t>(options.tokens * k));
    x.view = TensorView::contiguous(x.values.data(), DType::f32, {options.tokens, k});
    Context cpu;
    verify::fill_random(cpu, x.view, {.seed = options.seed});
    return x;
  }
  x.file.emplace(read_npy(options.activations));
  if (x.file->shape.size() != 2 || x.file->shape[1] != k)
    fail(ErrorCode::io, "{}: shape {}, expected [m, {}] for the layer '{}'", options.activations,
         shape_text(x.file->shape), k, options.layer);
  // The data of a .npy file need not be aligned: old writers padded to 16 bytes, and version 1 headers may do less.
  x.values.resize(x.file->bytes.size() / sizeof(float) + 1);
  std::copy(x.file->bytes.begin(), x.file->bytes.end(), std::as_writable_bytes(std::span(x.values)).begin());
  x.view = TensorView::contiguous(x.values.data(), x.file->dtype, {x.file->shape[0], k});
  return x;
}

void run(const RunOptions& options) {
  const SafetensorsFile file(options.weights);
  const Layer layer = find_layer(file, options.layer);
  const int64_t n = layer.weight.shape[0], k = layer.weight.shape[1];
  const Activations x = activations_of(options, k);
  const int64_t m = x.view.shape[0];

  Backend backend(options.backend);
  const Quantised weight = weight_of(backend, layer);
  const Matrix input = backend.upload(x.view);
  const Quantised activations = quantised_rows(backend, input);
  const Matrix output = backend.matrix(DType::f32, m, n);
  const double gemm_us = backend.time_us([&] { fp8_gemm_nt(backend.context(), activations, weight, output); });
  const std::vector<std::byte> bytes = backend.download(output);
  const std::span<const float> result(reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float));
  const Closeness closeness = compare_with_f32(x.view, layer, result.data());
  if (!options.output.empty()) write_npy(options.output, result, m, n);

  const double tflops = gemm_us > 0 ? 2.0 * static_cast<double>(m * n) * static_cast<double>(k) / gemm_us / 1e6 : 0;
  const std::string form =
      layer.scale ? "FP8 with 128x128 scales" : fmt::format("{}, quantised here", name_of(layer.weight.dtype));
  if (options.json) {
    print_json({{"layer", layer.name},
                {"weight_dtype", name_of(layer.weight.dtype)},
                {"m", m},
                {"n", n},
                {"k", k},
                {"backend", backend.on_gpu() ? "cuda" : "cpu"},
                {"device", backend.description()},
                {"time_us", gemm_us},
                {"tflops", tflops},
                {"relative_error", closeness.relative_error},
                {"max_abs_error", closeness.max_abs_error},
                {"cosine", closeness.cosine},
                {"output", options.output.empty() ? nlohmann::json() : nlohmann::json(options.output)}});
  } else {
    fmt::print("layer           {}  [{}, {}]  {}\n", layer.name, n, k, form);
    fmt::print("activations     {}  [{}, {}]\n", options.activations.empty() ? "random normal" : options.activations, m,
               k);
    fmt::print("backend         {}\n", backend.description());
    fmt::print("time            {:.1f} us  ({:.3g} TFLOPS)\n", gemm_us, tflops);
    fmt::print("relative error  {:.3e}  (Frobenius, against the FP32 product{})\n", closeness.relative_error,
               layer.scale ? " of the dequantised weight" : "");
    fmt::print("max abs error   {:.3e}\n", closeness.max_abs_error);
    fmt::print("cosine          {:.6f}\n", closeness.cosine);
    if (!options.output.empty()) fmt::print("written         {}  float32 [{}, {}]\n", options.output, m, n);
  }
}

}  // namespace

void add_run(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "Multiply activations with a layer of a safetensors file in FP8");
  command->add_option("--weights", options->weights, "safetensors file")->required();
  command->add_option("--layer", options->layer, "Linear layer NAME: the file has NAME.weight")->required();
  CLI::Option* file =
      command->add_option("--activations", options->activations, ".npy file, float32 or float16 [m, k]");
  CLI::Option* tokens = command->add_option("--tokens", options->tokens, "Random normal activations with so many rows")
                            ->check(CLI::Range(int64_t{1}, kMaxExtent))
                            ->excludes(file);
  add_seed(*command, options->seed)->needs(tokens);
  command->add_option("--output", options->output, "Result as .npy, float32 [m, n]");
  add_backend(*command, options->backend);
  add_json(*command, options->json);
  command->footer(
      "NAME.weight is F8_E4M3 with NAME.weight_scale_inv as in DeepSeek-V3 checkpoints, or BF16, F16 or F32 and then\n"
      "quantised with 128x128 scales. Activations are quantised with 1x128 scales.\n"
      "Example: deep_gemm run --weights model.safetensors --layer encoder.layer.0.output.dense --activations x.npy "
      "--output y.npy");
  command->callback([options, file, tokens] {
    if (file->count() + tokens->count() == 0)
      throw CLI::ValidationError("run: expected --activations FILE or --tokens M");
    run(*options);
  });
}

}  // namespace deep_gemm::cli
