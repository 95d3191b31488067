// Multiplies ones: every element of D is k.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include <deep_gemm/c_api.h>
#include <deep_gemm/gemm.h>

int main() {
  using namespace deep_gemm;
  constexpr int64_t kM = 3, kN = 5, kK = 260;
  const std::vector<uint8_t> ones(kN * kK, 0x38);
  std::vector<float> d(kM * kN);
  Context context;
  fp8_gemm_nt(context, {TensorView::contiguous(ones.data(), DType::e4m3, {kM, kK})},
              {TensorView::contiguous(ones.data(), DType::e4m3, {kN, kK})},
              TensorView::contiguous(d.data(), DType::f32, {kM, kN}));
  for (const float value : d)
    if (value != static_cast<float>(kK)) return 1;
  std::printf("deep_gemm %s\n", deep_gemm_version());
}
