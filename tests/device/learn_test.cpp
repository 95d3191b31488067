// The five kernels of docs/learn on a GPU: every element, of shapes with one step and with many laps of the ring, of one tile
// and of several waves of thread blocks.
#include <gtest/gtest.h>

#include "context_impl.h"
#include "cuda/driver.h"
#include "gemm_support.h"
#include "learn/steps.h"
#include "verify/workload.h"

namespace deep_gemm::learn {
namespace {

class LearnOnGpu : public testing::TestWithParam<std::size_t> {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "NO GPU: the kernels of docs/learn are not run here";
  }
};

TEST_P(LearnOnGpu, EveryElementIsRight) {
  const Step& step = steps()[GetParam()];
  Context context(Device{DeviceType::cuda, 0});
  const cuda::DeviceContext::Scope scope(*context.impl().cuda);
  const cuda::OwnedStream stream;
  const Kernel kernel(context, step);
  for (const Shape& shape : {Shape{256, 256, 128}, Shape{256, 512, 384}, Shape{512, 256, 1152}, Shape{768, 1280, 2048},
                             Shape{2048, 4352, 512}}) {
    if (test::is_emulated(context) && shape.m > 512) break;  // would take minutes
    Workload workload(context, shape, problem_of(shape, {}), 7, stream);
    for (int launch = 0; launch < 2; ++launch) {  // the second one finds shared memory as the first one left it
      workload.poison(stream);
      kernel(workload.a(), workload.b(), workload.d(), stream);
      const verify::Report report = workload.verify(stream);
      EXPECT_EQ(report.elements, shape.m * shape.n);
      EXPECT_EQ(report.mismatches, 0) << step.entry << " " << text(shape) << ", worst ratio " << report.worst_ratio;
    }
  }
}

TEST_P(LearnOnGpu, RefusesTails) {
  const Step& step = steps()[GetParam()];
  Context context(Device{DeviceType::cuda, 0});
  const cuda::DeviceContext::Scope scope(*context.impl().cuda);
  const Kernel kernel(context, step);
  const Shape shape{256, 256, 192};
  Workload workload(context, shape, problem_of(shape, {}), 7);
  EXPECT_THROW(kernel(workload.a(), workload.b(), workload.d()), Error);
}

INSTANTIATE_TEST_SUITE_P(Steps, LearnOnGpu, testing::Range(std::size_t{0}, steps().size()),
                         [](const auto& step) { return std::string(steps()[step.param].entry); });

}  // namespace
}  // namespace deep_gemm::learn
