// deep_gemm quantize: a checkpoint's linear layers in DeepSeek-V3's FP8 form.
#include <regex>
#include <span>

#include <fmt/format.h>

#include <deep_gemm/gemm.h>

#include "commands.h"
#include "layer.h"
#include "options.h"
#include "output.h"
#include "text.h"

namespace deep_gemm::cli {
namespace {

struct QuantizeArguments {
  std::string weights, output, skip = "embed|lm_head";
  bool power_of_two_scales = false, json = false;
};

bool is_quantised(const StoredTensor& tensor, const std::regex& skip) {
  const std::optional<DType> dtype = dtype_of(tensor.dtype);
  return tensor.shape.size() == 2 && tensor.name.ends_with(".weight") && !std::regex_search(tensor.name, skip) &&
         (dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f32);
}

void quantize(const QuantizeArguments& arguments) {
  std::regex skip;
  try {
    skip.assign(arguments.skip);
  } catch (const std::regex_error& e) {
    throw CLI::ValidationError(fmt::format("--skip: '{}' is no regular expression: {}", arguments.skip, e.what()));
  }
  const SafetensorsFile file(arguments.weights);
  std::vector<TensorSpec> specs;
  std::vector<std::string> names;
  for (const auto& [name, tensor] : file.tensors()) {
    if (!is_quantised(tensor, skip)) {
      specs.push_back(tensor);
      continue;
    }
    names.push_back(name);
    specs.push_back({name, "F8_E4M3", tensor.shape});
    specs.push_back({name + "_scale_inv", "F32", {(tensor.shape[0] + 127) / 128, (tensor.shape[1] + 127) / 128}});
  }
  SafetensorsWriter writer(arguments.output, specs, file.metadata());
  Context cpu;
  double bytes_before = 0, bytes_after = 0;
  {
    Progress progress("quantize", names.size());
    for (const auto& [name, tensor] : file.tensors()) {
      if (!is_quantised(tensor, skip)) {
        writer.write(name, tensor.bytes);
        continue;
      }
      const Layer layer = find_layer(file, name);
      const int64_t rows = tensor.shape[0], cols = tensor.shape[1];
      std::vector<std::byte> data(static_cast<std::size_t>(rows * cols));
      std::vector<float> scale(static_cast<std::size_t>((rows + 127) / 128 * ((cols + 127) / 128)));
      quantize_128x128(cpu, layer.weight,
                       {TensorView::contiguous(data.data(), DType::e4m3, {rows, cols}),
                        TensorView::contiguous(scale.data(), DType::f32, {(rows + 127) / 128, (cols + 127) / 128})},
                       {.stream = {}, .power_of_two_scales = arguments.power_of_two_scales});
      writer.write(name, data);
      writer.write(name + "_scale_inv", std::as_bytes(std::span(scale)));
      bytes_before += static_cast<double>(tensor.bytes.size());
      bytes_after += static_cast<double>(data.size() + scale.size() * sizeof(float));
      progress.advance(name);
    }
  }
  writer.commit();
  if (arguments.json) {
    print_json({{"output", arguments.output},
                {"quantised", names},
                {"copied", file.tensors().size() - names.size()},
                {"bytes_before", bytes_before},
                {"bytes_after", bytes_after}});
  } else {
    fmt::print("{}: {} weights in FP8 ({} -> {}), {} tensors copied\n", arguments.output, names.size(),
               bytes_text(bytes_before), bytes_text(bytes_after), file.tensors().size() - names.size());
  }
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto arguments = std::make_shared<QuantizeArguments>();
  CLI::App* command =
      app.add_subcommand("quantize", "Write a safetensors file's linear layers in FP8 with 128x128 scales");
  command->add_option("--weights", arguments->weights, "safetensors file to read")->required();
  command->add_option("--output", arguments->output, "safetensors file to write")->required();
  command->add_option("--skip", arguments->skip, "Regular expression: tensors whose names match are copied")
      ->capture_default_str();
  command->add_flag("--power-of-two-scales", arguments->power_of_two_scales, "Round scales up to powers of two");
  add_json(*command, arguments->json);
  command->footer(
      "BF16, F16 and F32 tensors NAME.weight with two dimensions become F8_E4M3 with NAME.weight_scale_inv (F32), as "
      "in\n"
      "DeepSeek-V3 checkpoints; all others are copied.\n"
      "Example: deep_gemm quantize --weights model.safetensors --output model-fp8.safetensors");
  command->callback([arguments] { quantize(*arguments); });
}

}  // namespace deep_gemm::cli
