// Compiled with AVX2 and FMA (CMakeLists.txt) and called only where the processor has them and F16C.
#ifdef __AVX2__
#include <immintrin.h>

#include "cpu/gemm_block_body.h"

namespace deep_gemm::cpu::avx2 {
namespace {

struct Isa {
  using Vec [[gnu::vector_size(32), gnu::may_alias]] = float;

  /// What 1 stands for in decoded numbers. e5m2 is the upper byte of an FP16 number; the bits of e4m3, moved to FP16's
  /// place, are its value times 2^-8, so that denormals need no care.
  static float unit(DType dtype) { return dtype == DType::e4m3 ? 256 : 1; }

  /// FP16 from codes in the upper bytes.
  template <DType dtype>
  static __m256i to_f16(__m256i x) {
    if constexpr (dtype == DType::e5m2) return x;
    const __m256i largest = _mm256_set1_epi16(0x7f00);
    const __m256i nan = _mm256_cmpeq_epi16(_mm256_and_si256(x, largest), largest);
    return _mm256_or_si256(_mm256_andnot_si256(_mm256_set1_epi16(0x4000), _mm256_srai_epi16(x, 1)), nan);
  }

  template <DType dtype>
  [[gnu::target("f16c")]] static void decode(const uint8_t* codes, int64_t pitch, float* out) {
    for (int64_t p = 0; p < kBlockK; p += 32) {
      __m256i x[8];
      for (int64_t i = 0; i < 8; ++i)
        x[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i * pitch + p));
      // A transpose by three rounds of interleaving registers i and i + 4. In each half of 16 bytes, register i then holds
      // all rows' codes at 2 i, and after them those at 2 i + 1.
      for (int round = 0; round < 3; ++round) {
        __m256i y[8];
        for (int64_t i = 0; i < 4; ++i) {
          y[2 * i] = _mm256_unpacklo_epi8(x[i], x[i + 4]);
          y[2 * i + 1] = _mm256_unpackhi_epi8(x[i], x[i + 4]);
        }
        for (int64_t i = 0; i < 8; ++i) x[i] = y[i];
      }
      // The upper half of every register is 16 further along k.
      for (int64_t i = 0; i < 8; ++i) {
        const __m256i wide[2] = {_mm256_unpacklo_epi8(_mm256_setzero_si256(), x[i]),
                                 _mm256_unpackhi_epi8(_mm256_setzero_si256(), x[i])};
        for (int64_t odd = 0; odd < 2; ++odd) {
          const __m256i f16 = to_f16<dtype>(wide[odd]);
          float* at = out + (p + 2 * i + odd) * 8;
          _mm256_store_ps(at, _mm256_cvtph_ps(_mm256_castsi256_si128(f16)));
          _mm256_store_ps(at + 16 * 8, _mm256_cvtph_ps(_mm256_extracti128_si256(f16, 1)));
        }
      }
    }
  }
};

}  // namespace

void accumulate(const GemmBlock& block) { GemmStep<Isa>::run(block); }

}  // namespace deep_gemm::cpu::avx2
#endif
