// Quantisation and scale transposition on the CPU backend.
#include "quantize_cases.h"

namespace deep_gemm::test {
INSTANTIATE_TEST_SUITE_P(Cpu, LayoutTest, testing::Values(DeviceType::cpu), [](const auto&) { return "cpu"; });
}  // namespace deep_gemm::test
