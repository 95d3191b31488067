// The product's promises on a GPU. Streams, graphs and configs: gemm_launch_test.cpp, gemm_configs_test.cpp.
#include "gemm_cases.h"

namespace deep_gemm::test {
INSTANTIATE_TEST_SUITE_P(Gpu, GemmTest, testing::Values(DeviceType::cuda), [](const auto&) { return "cuda"; });
}  // namespace deep_gemm::test
