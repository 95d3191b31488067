// Calls that have been made, ready to be launched again.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>

#include <deep_gemm/gemm.h>

#include "cuda/driver.h"
#include "gemm/bind.h"

namespace deep_gemm {

/// The arguments of a call but for its stream. The way to its launch depends on them alone, and not on what lies in the
/// tensors' memory.
struct Call {
  Layout layout;
  Fp8Tensor a, b;
  TensorView d;
  std::optional<TensorView> c;
  GroupRows group_rows;
  int64_t expected_m;
  Recipe recipe;
  int num_sms;
  bool batch_invariant, programmatic, weights_are_constant;
  TensorView workspace;
  std::optional<GemmConfig> config;

  Call(Layout layout, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, const GemmOptions& options);
  Call(Layout layout, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, const TensorView& groups_of,
       int64_t expected_m, const GroupedOptions& options);
  bool operator==(const Call&) const = default;

  /// Of what nearly always tells calls apart: addresses, and the sizes that change between steps of a model.
  std::size_t hash() const;

 private:
  struct OfAll {};
  /// What dense and grouped calls have in common.
  template <typename Options>
  Call(Layout layout, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, const Options& options, OfAll);
};

/// What a call has become after step 4 of the walk.
struct BoundCall {
  const cuda::Kernel* kernel;  ///< of Context::Impl::gemm_kernels, which forgets none
  cuda::LaunchSpec spec;
  GemmArgs args;
};

/// The last few calls of a context, at most kSets * kWays, by their arguments. Thread-safe; nobody waits.
class BoundCalls {
 public:
  static constexpr std::size_t kSets = 64, kWays = 4;

  /// Nothing where the call is not kept, and sometimes where threads ask at the same time.
  std::optional<BoundCall> find(const Call& call);
  /// In the place of the oldest of its set.
  void keep(const Call& call, const BoundCall& bound);

 private:
  struct Kept {
    Call call;
    BoundCall bound;
  };
  struct alignas(64) Set {
    // Held to copy, never during a launch. Only tried: in the child of a fork it may stay locked for ever.
    std::mutex mutex;
    std::array<std::size_t, kWays> hashes{};
    std::unique_ptr<std::array<std::optional<Kept>, kWays>> kept;  ///< null until the first one comes
    std::size_t oldest = 0;
    const BoundCall* find(std::size_t hash, const Call& call) const;
  };
  std::array<Set, kSets> sets_;
};

}  // namespace deep_gemm
