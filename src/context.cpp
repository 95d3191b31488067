#include "context_impl.h"

#include "gemm/bound_calls.h"
#include "gemm/plan.h"
#include "hash.h"

namespace deep_gemm {

std::size_t ConfigHash::operator()(const GemmConfig& config) const {
  Hash hash;
  fields(config, [&](const char*, const auto& field) { hash.add(field); });
  return hash.value();
}

std::size_t ProblemHash::operator()(const Problem& p) const {
  Hash hash;
  hash.add(p.m), hash.add(p.n), hash.add(p.k), hash.add(p.num_sms), hash.add(p.d_type);
  hash.add(p.layout), hash.add(p.groups), hash.add(p.expected_m);
  hash.add(p.a_type), hash.add(p.b_type), hash.add(p.scale_rows_b);
  hash.add(static_cast<char>(p.scaled_a | p.scaled_b << 1 | p.accumulate << 2 | p.batch_invariant << 3));
  return hash.value();
}

Context::Impl::Impl(Device device_in, ContextOptions options_in)
    : device(device_in),
      options(std::move(options_in)),
      cuda(device.type == DeviceType::cuda ? std::make_unique<cuda::DeviceContext>(device.index) : nullptr),
      plan_device(cuda ? known_device(cuda->properties().info) : DeviceInfo{}),
      store(jit::cache_directories(options.cache_dirs), options.compiler, options.log),
      bound_calls(std::make_unique<BoundCalls>()) {}

Context::Impl::~Impl() = default;

const cuda::Kernel& Context::Impl::kernel(const std::string& entry, const std::string& text, int smem_bytes) {
  return other_kernels.get(entry, [&] {
    return store.load({entry, text}, cuda::driver_version(),
                      [&](const jit::Binary& binary) { return cuda::Kernel(binary.cubin, entry, smem_bytes); });
  });
}

Context::Context(Device device, ContextOptions options) : impl_(std::make_unique<Impl>(device, std::move(options))) {}
Context::~Context() = default;
Device Context::device() const { return impl_->device; }

}  // namespace deep_gemm
