// Scales in the layout that TMA reads, MN-major with a 16-byte aligned column pitch: as they lie or, transposed, in scratch
// memory.
#pragma once

#include <optional>

#include <deep_gemm/gemm.h>

#include "cuda/driver.h"

namespace deep_gemm {

/// Whether TMA can read scales as they lie: MN-major, base and column pitch multiples of 16 bytes.
bool is_mn_major_aligned(const TensorView& scale);

class AlignedScales {
 public:
  /// Enqueues what transpositions it takes. `recipe`: whether B's scales are read by TMA too. `workspace` may be empty.
  AlignedScales(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const Recipe& recipe,
                const TensorView& workspace, Stream stream);
  /// Valid as long as this object, on the stream.
  const TensorView& a() const { return a_; }
  const TensorView& b() const { return b_; }

 private:
  TensorView a_, b_;
  std::optional<cuda::ScratchBuffer> memory_;
};

}  // namespace deep_gemm
