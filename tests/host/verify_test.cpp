// The judge and the random operands on the CPU backend.
#include "verify_cases.h"

namespace deep_gemm::test {
INSTANTIATE_TEST_SUITE_P(Cpu, VerifyTest, testing::Values(DeviceType::cpu), [](const auto&) { return "cpu"; });
}  // namespace deep_gemm::test
