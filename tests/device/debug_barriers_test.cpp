// DG_JIT_DEBUG_BARRIERS: kernels whose barriers wait for over a second say which, and trap.
#include "gemm/bind.h"
#include "gemm/plan.h"
#include "gemm_support.h"
#include "self_process.h"

namespace deep_gemm::test {
namespace {

class DebugBarriersTest : public BackendTest {
 protected:
  DebugBarriersTest() : BackendTest(DeviceType::cuda) {}

  void launch(Product& product, const GemmConfig& config, uint32_t more_bytes) {
    const Problem problem = product.description().problem();
    const GemmPlan chosen = plan(problem, context().impl().plan_device, config);
    const jit::KernelSource source = kernel_source(config);
    const cuda::Kernel& kernel = context().impl().kernel(source.entry, source.text, chosen.smem_bytes);
    GemmArgs args = bind(chosen, problem, product.tensor_a(), product.tensor_b(), product.d().view(), {}, std::nullopt);
    args.stage_bytes += more_bytes;  // bytes that never come
    void* params[] = {&args};
    cuda::launch(kernel,
                 {.grid = {static_cast<unsigned>(chosen.grid), 1, 1},
                  .block_threads = static_cast<unsigned>(chosen.block_threads),
                  .cluster = static_cast<unsigned>(config.cluster),
                  .smem_bytes = static_cast<unsigned>(chosen.smem_bytes)},
                 {}, params);
    cuda::synchronize({});
  }
};

constexpr GemmConfig kPlain{.tile_m = 128, .tile_n = 128, .stages = 4};
constexpr GemmConfig kSplit{.tile_m = 64, .tile_n = 64, .stages = 4, .cluster = 4, .split_k = true, .ctas_per_sm = 2};

// In a process of its own, since a trap ends the device's context.
TEST_F(DebugBarriersTest, DISABLED_PlantedDeadlock) {
  Product product(context(), {.m = 300, .n = 520, .k = 700});
  EXPECT_THROW(launch(product, kPlain, 16), Error);
}
TEST_F(DebugBarriersTest, DISABLED_NoDeadlock) {
  Product product(context(), {.m = 300, .n = 520, .k = 700});
  for (const GemmConfig& config : {kPlain, kSplit}) {
    product.prepare();
    launch(product, config, 0);
    product.finish();
    product.expect_right(kernel_name(config));
  }
}

TEST_F(DebugBarriersTest, APlantedDeadlockIsNamedAndTraps) {
  const jit::ProcessResult result = run_self("DebugBarriersTest.DISABLED_PlantedDeadlock", {"DG_JIT_DEBUG_BARRIERS=1"});
  EXPECT_EQ(result.status, 0) << result.output;
  const auto said = [&](const char* text) { return result.output.find(text) != std::string::npos; };
  EXPECT_TRUE(said("waited a second for stages.full[0]")) << result.output;
  EXPECT_TRUE(said("tile at row 128, column 256 of group 0")) << result.output;
}

TEST_F(DebugBarriersTest, OtherwiseTheProductIsRight) {
  const jit::ProcessResult result = run_self("DebugBarriersTest.DISABLED_NoDeadlock", {"DG_JIT_DEBUG_BARRIERS=1"});
  EXPECT_EQ(result.status, 0) << result.output;
}

}  // namespace
}  // namespace deep_gemm::test
