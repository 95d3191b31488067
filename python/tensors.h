// Python tensors as TensorViews.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <deep_gemm/gemm.h>

#include "dlpack.h"

namespace deep_gemm::python {

namespace nb = nanobind;

/// Thrown where an argument is a torch tensor that the exchange API does not serve (an older torch, or a subclass that
/// stands for something else while a model is traced): torch's dispatcher, in deep_gemm/_torch.py, takes the call.
struct NeedsTorch {};

/// Tells of torch: its tensor type, and the types whose instances are nothing but a tensor and come in through the
/// exchange API (none for a torch that lacks it).
void register_torch(nb::type_object base, nb::tuple exact);

/// A torch tensor in pieces, as the dispatcher's operators hand it over.
struct Parts {
  std::uintptr_t address;
  std::string dtype;
  std::vector<int64_t> shape, strides;
  int ordinal;  ///< of the CUDA device; -1: on the CPU
};

/// What an argument may hold, for the error about a type that the library has no name for.
inline constexpr const char* kFp8 = "e4m3 or e5m2";
inline constexpr const char* kScales = "f32";
inline constexpr const char* kGroups = "i32";
inline constexpr const char* kResult = "bf16 or f32";
inline constexpr const char* kQuantizable = "bf16, f16 or f32";

/// Reads the arguments of one call, and keeps what it borrows alive until the call has been made.
class Arguments {
 public:
  explicit Arguments(const char* function) : function_(function) {}

  /// A tensor of a registered type, any other DLPack producer, or Parts. One-byte elements that are unsigned integers are
  /// read as `bytes`, two-byte ones as BF16. `types` is one of the texts above.
  TensorView tensor(nb::handle object, const char* name, const char* types);
  /// The same for a tensor that is written to; one that says it is read-only is refused.
  TensorView output(nb::handle object, const char* name, const char* types);
  /// A tensor, or a pair of a tensor and its scales, which may be None.
  Fp8Tensor operand(nb::handle object, const char* name, const char* scale_name);
  /// What uint8 stands for: "e4m3" or "e5m2"; None: uint8 is refused.
  void set_bytes(nb::handle dtype);
  /// Scratch memory of the framework's allocator that is free for others when the call has run; an empty view where nothing is needed, the
  /// framework has no allocator to offer, or the stream is not the framework's current one: the library has its own way then.
  TensorView workspace(int64_t bytes, const Device& device, nb::handle given_stream);
  /// The stream of `device` that calls go to: `given`, an address, or the current one of the tensors' framework (torch or
  /// CuPy; the default stream for others).
  Stream stream(const Device& device, nb::handle given) const;

 private:
  TensorView read(nb::handle object, const char* name, const char* types, bool writable);
  TensorView from_dlpack(const dlpack::Tensor& t, const char* name, const char* types) const;
  TensorView from_parts(const Parts& parts, const char* name, const char* types) const;
  [[noreturn]] void reject_layout(nb::handle tensor, const char* name, const char* types) const;
  [[noreturn]] void reject(const char* name, const char* problem) const;

  const char* function_;
  const dlpack::ExchangeApi* api_ = nullptr;
  bool is_cupy_ = false;
  std::optional<DType> bytes_;
  std::vector<nb::ndarray<nb::ro>> borrowed_;
  struct GiveBack {
    void operator()(dlpack::ManagedTensor* tensor) const {
      if (tensor->deleter) tensor->deleter(tensor);
    }
  };
  std::unique_ptr<dlpack::ManagedTensor, GiveBack> workspace_;
};

}  // namespace deep_gemm::python
