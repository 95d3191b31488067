#include "gemm/kernel_source.h"

#include "text.h"

namespace deep_gemm {

namespace {

std::string literal(int value) { return fmt::to_string(value); }
std::string literal(bool value) { return value ? "true" : "false"; }
std::string literal(DType value) { return fmt::format("DType::{}", name_of(value)); }
std::string literal(Layout value) { return fmt::format("Layout::{}", name_of(value)); }
std::string literal(Multicast value) { return fmt::format("Multicast::{}", name_of(value)); }

}  // namespace

std::string kernel_name(const GemmConfig& c) {
  std::string name =
      c.layout == Layout::dense ? "fp8_gemm_nt" : fmt::format("m_grouped_fp8_gemm_nt_{}", name_of(c.layout));
  name += fmt::format("_{}x{}_s{}", c.tile_m, c.tile_n, c.stages);
  if (c.cluster > 1) name += fmt::format("_c{}{}", c.cluster, name_of(c.multicast));
  if (c.unroll > 1) name += fmt::format("_u{}", c.unroll);
  name += fmt::format("_{}", name_of(c.d_type));
  if (!c.scaled_a) name += "_unscaled_a";
  if (c.accumulate) name += "_accumulate";
  return name;
}

jit::KernelSource kernel_source(const GemmConfig& config) {
  std::string initializers;
  fields(config, [&](const char* name, const auto& field) {
    initializers += fmt::format("{}.{} = {}", initializers.empty() ? "" : ", ", name, literal(field));
  });
  jit::KernelSource source{kernel_name(config), {}};
  source.text = fmt::format(
      "#define DG_WGMMA_N {}\n"
      "#include <deep_gemm/gemm/fp8_gemm_1d2d.cuh>\n"
      "using namespace deep_gemm;\n"
      "constexpr GemmConfig kConfig{{{}}};\n"
      "extern \"C\" __global__ __launch_bounds__(num_threads(kConfig), 1)\n"
      "void {}(const __grid_constant__ GemmArgs args) {{ Fp8Gemm1d2d<kConfig>::run(args); }}\n",
      config.tile_n, initializers, source.entry);
  return source;
}

}  // namespace deep_gemm
