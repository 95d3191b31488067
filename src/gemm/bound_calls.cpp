#include "gemm/bound_calls.h"

#include <cstdint>

#include "hash.h"

namespace deep_gemm {

template <typename Options>
Call::Call(Layout layout_in, const Fp8Tensor& a_in, const Fp8Tensor& b_in, const TensorView& d_in,
           const Options& options, OfAll)
    : layout(layout_in),
      a(a_in),
      b(b_in),
      d(d_in),
      expected_m(0),
      num_sms(options.num_sms),
      batch_invariant(options.batch_invariant),
      programmatic(options.programmatic_launch),
      weights_are_constant(options.weights_are_constant),
      workspace(options.workspace),
      config(options.config) {}

Call::Call(Layout layout_in, const Fp8Tensor& a_in, const Fp8Tensor& b_in, const TensorView& d_in,
           const GemmOptions& options)
    : Call(layout_in, a_in, b_in, d_in, options, OfAll{}) {
  c = options.c;
  recipe = options.recipe;
}

Call::Call(Layout layout_in, const Fp8Tensor& a_in, const Fp8Tensor& b_in, const TensorView& d_in,
           const TensorView& groups_of, int64_t expected_m_in, const GroupedOptions& options)
    : Call(layout_in, a_in, b_in, d_in, options, OfAll{}) {
  group_rows = {groups_of, options.alignment, options.zero_padding};
  expected_m = expected_m_in;
}

std::size_t Call::hash() const {
  Hash hash;
  for (const TensorView* view : {&a.data, &a.scale, &b.data, &d, &group_rows.tensor})
    hash.add(reinterpret_cast<std::uintptr_t>(view->data));
  hash.add(d.shape[0]), hash.add(d.shape[1]), hash.add(expected_m);
  return hash.value();
}

const BoundCall* BoundCalls::Set::find(std::size_t hash, const Call& call) const {
  if (!kept) return nullptr;
  for (std::size_t i = 0; i < kWays; ++i)
    if (const auto& one = (*kept)[i]; hashes[i] == hash && one && one->call == call) return &one->bound;
  return nullptr;
}

std::optional<BoundCall> BoundCalls::find(const Call& call) {
  const std::size_t hash = call.hash();
  Set& set = sets_[hash % kSets];
  const std::unique_lock lock(set.mutex, std::try_to_lock);
  const BoundCall* found = lock ? set.find(hash, call) : nullptr;
  return found ? std::optional(*found) : std::nullopt;
}

void BoundCalls::keep(const Call& call, const BoundCall& bound) {
  const std::size_t hash = call.hash();
  Set& set = sets_[hash % kSets];
  const std::unique_lock lock(set.mutex, std::try_to_lock);
  if (!lock || set.find(hash, call)) return;
  if (!set.kept) set.kept = std::make_unique<std::array<std::optional<Kept>, kWays>>();
  set.hashes[set.oldest] = hash;
  (*set.kept)[set.oldest] = {call, bound};
  set.oldest = (set.oldest + 1) % kWays;
}

}  // namespace deep_gemm
