// For any processor: vectors of 16 bytes, decoding by table.
#include <array>
#include <cstddef>

#include <deep_gemm/core/fp8.cuh>

#include "cpu/gemm_block_body.h"

namespace deep_gemm::cpu::baseline {
namespace {

template <DType dtype>
constexpr std::array<float, 256> kValues = [] {
  std::array<float, 256> values{};
  for (std::size_t code = 0; code < values.size(); ++code)
    values[code] = (dtype == DType::e4m3 ? decode_e4m3 : decode_e5m2)(static_cast<uint8_t>(code));
  return values;
}();

struct Isa {
  using Vec [[gnu::vector_size(16), gnu::may_alias]] = float;

  static float unit(DType) { return 1; }  // what 1 stands for in decoded numbers

  template <DType dtype>
  static void decode(const uint8_t* codes, int64_t pitch, float* out) {
    for (int64_t p = 0; p < kBlockK; ++p)
      for (int64_t i = 0; i < 4; ++i) out[p * 4 + i] = kValues<dtype>[codes[i * pitch + p]];
  }
};

}  // namespace

void accumulate(const GemmBlock& block) { GemmStep<Isa>::run(block); }

}  // namespace deep_gemm::cpu::baseline
