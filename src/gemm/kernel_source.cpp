#include "gemm/kernel_source.h"

#include <deep_gemm/gemm/layout.cuh>

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
  std::string name = c.layout == Layout::dense       ? "fp8_gemm_nt"
                     : c.layout == Layout::k_grouped ? "k_grouped_fp8_gemm_nt"
                                                     : fmt::format("m_grouped_fp8_gemm_nt_{}", name_of(c.layout));
  name += fmt::format("_{}x{}_s{}", c.tile_m, c.tile_n, c.stages);
  if (c.cluster > 1) name += fmt::format("_c{}{}", c.cluster, c.split_k ? "k" : name_of(c.multicast));
  if (c.ctas_per_sm > 1) name += fmt::format("_x{}", c.ctas_per_sm);
  if (c.unroll > 1) name += fmt::format("_u{}", c.unroll);
  if (c.kept_blocks > 0) name += fmt::format("_keep{}", c.kept_blocks);
  name += fmt::format("_{}", name_of(c.d_type));
  if (c.a_type != DType::e4m3 || c.b_type != DType::e4m3)
    name += fmt::format("_{}_{}", name_of(c.a_type), name_of(c.b_type));
  if (c.scale_rows_b == 1) name += "_1d1d";
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
      "#define DG_WGMMA_TYPES \"{}.{}\"\n"
      "#include <deep_gemm/gemm/fp8_gemm.cuh>\n"
      "using namespace deep_gemm;\n"
      "constexpr GemmConfig kConfig{{{}}};\n"
      "extern \"C\" __global__ __launch_bounds__(num_threads(kConfig), kConfig.ctas_per_sm)\n"
      "void {}(const __grid_constant__ ArgsOf<kConfig.layout>::Type args) {{ Fp8Gemm<kConfig>::run(args); }}\n",
      wave_cols(config), name_of(config.a_type), name_of(config.b_type), initializers, source.entry);
  return source;
}

}  // namespace deep_gemm
