// The grouped products' promises on the CPU.
#include "grouped_cases.h"

namespace deep_gemm::test {
INSTANTIATE_TEST_SUITE_P(Cpu, GroupedTest, testing::Values(DeviceType::cpu), [](const auto&) { return "cpu"; });
}  // namespace deep_gemm::test
