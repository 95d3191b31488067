// The judge and the random operands on a GPU.
#include "verify_cases.h"

namespace deep_gemm::test {
INSTANTIATE_TEST_SUITE_P(Gpu, VerifyTest, testing::Values(DeviceType::cuda), [](const auto&) { return "cuda"; });
}  // namespace deep_gemm::test
