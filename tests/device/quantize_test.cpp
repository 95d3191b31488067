// Quantisation and scale transposition on a GPU.
#include "quantize_cases.h"

namespace deep_gemm::test {
INSTANTIATE_TEST_SUITE_P(Gpu, LayoutTest, testing::Values(DeviceType::cuda), [](const auto&) { return "cuda"; });
}  // namespace deep_gemm::test
