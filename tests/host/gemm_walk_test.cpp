// The product's promises on the CPU backend.
#include "gemm_cases.h"

namespace deep_gemm::test {
INSTANTIATE_TEST_SUITE_P(Cpu, GemmTest, testing::Values(DeviceType::cpu), [](const auto&) { return "cpu"; });
}  // namespace deep_gemm::test
