// What a Context holds. Private to the library, the command line and the tests.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include <deep_gemm/gemm.h>

#include "cuda/driver.h"
#include "jit/jit.h"

namespace deep_gemm {

class BoundCalls;

/// A map that many threads read and few extend: `get` makes a missing value once, outside the lock of other keys'
/// readers.
template <class Key, class Value, class Hash>
class OnceMap {
 public:
  /// The value of `key`; `make()` is called where it is missing. Threads that miss together call it once; the others
  /// wait. An exception from `make` leaves the key missing. References stay valid.
  template <class Make>
  const Value& get(const Key& key, Make&& make) {
    {
      std::shared_lock lock(mutex_);
      if (auto it = values_.find(key); it != values_.end() && it->second->ready.load(std::memory_order_acquire))
        return it->second->value;
    }
    Slot* slot;
    {
      std::unique_lock lock(mutex_);
      auto& entry = values_[key];
      if (!entry) entry = std::make_unique<Slot>();
      slot = entry.get();
    }
    std::scoped_lock lock(slot->mutex);
    if (!slot->ready.load(std::memory_order_relaxed)) {
      slot->value = make();
      slot->ready.store(true, std::memory_order_release);
    }
    return slot->value;
  }

 private:
  struct Slot {
    std::mutex mutex;
    std::atomic<bool> ready = false;
    Value value{};
  };
  std::shared_mutex mutex_;
  std::unordered_map<Key, std::unique_ptr<Slot>, Hash> values_;
};

/// The hash of an object's fields, one after the other: see hash.h.
struct ConfigHash {
  std::size_t operator()(const GemmConfig& config) const;
};
struct ProblemHash {
  std::size_t operator()(const Problem& problem) const;
};

struct Context::Impl {
  Device device;
  ContextOptions options;
  std::unique_ptr<cuda::DeviceContext> cuda;  ///< null on the CPU
  DeviceInfo plan_device;                     ///< what plans are made for; not used on the CPU
  jit::KernelStore store;
  OnceMap<Problem, std::vector<GemmConfig>, ProblemHash> kernels;  ///< for all m: see kernels_for
  OnceMap<Problem, GemmPlan, ProblemHash> plans;
  OnceMap<GemmConfig, cuda::Kernel, ConfigHash> gemm_kernels;
  std::unique_ptr<BoundCalls> bound_calls;  ///< the shortcut of calls that come again: gemm/bound_calls.h
  OnceMap<std::string, cuda::Kernel, std::hash<std::string>>
      other_kernels;  ///< layout, quantise, verify: by entry name

  Impl(Device device, ContextOptions options);
  ~Impl();
  /// Compiles (or finds) and loads a kernel that has no config, such as those of device/deep_gemm/layout.
  const cuda::Kernel& kernel(const std::string& entry, const std::string& text, int smem_bytes = 0);
};

}  // namespace deep_gemm
