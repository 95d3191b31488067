// The parts of DLPack 1.3 that reading a tensor needs: the plain tensor and the C exchange API, by which a framework hands
// tensors and its current stream to C without building Python objects (https://dmlc.github.io/dlpack/latest/c_api.html).
// Layouts are fixed by DLPack's major version 1.
#pragma once

#include <cstdint>

namespace deep_gemm::dlpack {

enum DeviceType : int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kFloat8E4m3Fn = 10, kFloat8E5m2 = 12 };

struct Device {
  int32_t type;
  int32_t index;
};

struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t rank;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  ///< elements; null: row-major without gaps
  uint64_t byte_offset;
};

/// A tensor that whoever holds it gives back.
struct ManagedTensor {
  uint32_t major, minor;
  void* context;
  void (*deleter)(ManagedTensor* self);  ///< or null
  uint64_t flags;
  Tensor tensor;
};

struct ExchangeApi {
  struct Header {
    uint32_t major, minor;
    const Header* older;  ///< the table of an earlier major version, or null
  } header;
  /// By the framework's allocator, for its current stream; dtype, rank, shape and device are the prototype's. Returns 0, or
  /// -1 after a call of `set_error`.
  int (*allocate)(const Tensor* prototype, ManagedTensor** out, void* error_context,
                  void (*set_error)(void* error_context, const char* kind, const char* message));
  void* managed_from_object;
  void* managed_to_object;
  /// Borrows: `out` is valid while the object lives. Returns 0, or -1 with a Python error set.
  int (*tensor_from_object)(void* object, Tensor* out);
  int (*current_stream)(int32_t device_type, int32_t device_index, void** stream);
};
/// The attribute of a tensor's type that holds a capsule with the table, and the capsule's name.
constexpr const char* kExchangeAttribute = "__dlpack_c_exchange_api__";
constexpr const char* kExchangeCapsule = "dlpack_exchange_api";

}  // namespace deep_gemm::dlpack
