#include "tensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "text.h"

namespace deep_gemm::python {
namespace {

struct ExchangeType {
  const PyTypeObject* type = nullptr;
  const dlpack::ExchangeApi* api = nullptr;
};
// Written once, on import, by a thread that holds the GIL; types are kept alive for ever.
std::array<ExchangeType, 4> exchange_types;
PyTypeObject* torch_tensor = nullptr;

const dlpack::ExchangeApi* exchange_api_of(nb::handle type) {
  const nb::object capsule = nb::getattr(type, dlpack::kExchangeAttribute, nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), dlpack::kExchangeCapsule)) return nullptr;
  using Header = dlpack::ExchangeApi::Header;
  const auto* header = static_cast<const Header*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kExchangeCapsule));
  while (header && header->major != 1) header = header->older;
  const auto* api = reinterpret_cast<const dlpack::ExchangeApi*>(header);
  return api && api->tensor_from_object && api->current_stream ? api : nullptr;
}

constexpr std::string_view kTypeNames[][2] = {{"e4m3", "float8_e4m3fn"}, {"e5m2", "float8_e5m2"}, {"bf16", "bfloat16"},
                                              {"f16", "float16"},        {"f32", "float32"},      {"i32", "int32"}};

/// By the library's name or the frameworks'.
std::optional<DType> dtype_of(std::string_view name) {
  for (std::size_t i = 0; i < std::size(kTypeNames); ++i)
    if (name == kTypeNames[i][0] || name == kTypeNames[i][1]) return static_cast<DType>(i);
  return std::nullopt;
}

/// As frameworks call the types that the library has no name for.
std::string name_of(const dlpack::DataType& dtype) {
  constexpr const char* kCodes[] = {"int",
                                    "uint",
                                    "float",
                                    nullptr,
                                    "bfloat",
                                    "complex",
                                    "bool",
                                    "float8_e3m4",
                                    "float8_e4m3",
                                    "float8_e4m3b11fnuz",
                                    "float8_e4m3fn",
                                    "float8_e4m3fnuz",
                                    "float8_e5m2",
                                    "float8_e5m2fnuz",
                                    "float8_e8m0fnu",
                                    "float6_e2m3fn",
                                    "float6_e3m2fn",
                                    "float4_e2m1fn"};
  const char* code = dtype.code < std::size(kCodes) ? kCodes[dtype.code] : nullptr;
  if (!code) return fmt::format("of DLPack's type {} with {} bits", dtype.code, dtype.bits);
  std::string name = code;
  if (dtype.code < 6) name += fmt::format("{}", dtype.bits);
  if (dtype.lanes != 1) name += fmt::format(" in vectors of {}", dtype.lanes);
  return name;
}

std::string name_of_type(nb::handle object) { return nb::cast<std::string>(object.type().attr("__name__")); }

}  // namespace

void register_torch(nb::type_object base, nb::tuple exact) {
  std::size_t count = 0;
  for (nb::handle type : exact) {
    const dlpack::ExchangeApi* api = exchange_api_of(type);
    if (!api || count == exchange_types.size()) continue;
    exchange_types[count++] = {reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr()), api};
  }
  torch_tensor = reinterpret_cast<PyTypeObject*>(base.release().ptr());
}

void Arguments::reject(const char* name, const char* problem) const {
  throw nb::type_error(fmt::format("{}: {} {}", function_, name, problem).c_str());
}

void Arguments::reject_layout(nb::handle tensor, const char* name, const char* types) const {
  PyErr_Clear();  // torch's own text is pages of its stack
  const auto text = [&](const char* attribute) {
    return nb::cast<std::string>(nb::str(nb::object(tensor.attr(attribute))));
  };
  fail(ErrorCode::invalid_argument, "{}: {} is {} ({}) on {}, expected {} (torch.strided) on the CPU or a CUDA device",
       function_, name, text("dtype"), text("layout"), text("device"), types);
}

TensorView Arguments::from_dlpack(const dlpack::Tensor& t, const char* name, const char* types) const {
  TensorView view;
  const auto is = [&](uint8_t code, uint8_t bits) {
    return t.dtype.code == code && t.dtype.bits == bits && t.dtype.lanes == 1;
  };
  if (is(dlpack::kFloat8E4m3Fn, 8))
    view.dtype = DType::e4m3;
  else if (is(dlpack::kFloat8E5m2, 8))
    view.dtype = DType::e5m2;
  else if (is(dlpack::kBfloat, 16) || is(dlpack::kUInt, 16))
    view.dtype = DType::bf16;
  else if (is(dlpack::kFloat, 16))
    view.dtype = DType::f16;
  else if (is(dlpack::kFloat, 32))
    view.dtype = DType::f32;
  else if (is(dlpack::kInt, 32))
    view.dtype = DType::i32;
  else if (is(dlpack::kUInt, 8) && bytes_)
    view.dtype = *bytes_;
  else
    fail(ErrorCode::invalid_argument, "{}: {} is {}, expected {}{}", function_, name, name_of(t.dtype), types,
         is(dlpack::kUInt, 8) && std::string_view(types) == kFp8
             ? "; say what its bytes are with dtype=\"e4m3\" or dtype=\"e5m2\""
             : "");
  if (t.rank < 1 || t.rank > TensorView::kMaxRank)
    fail(ErrorCode::invalid_argument, "{}: {} has {} dimensions, expected 1 to {}", function_, name, t.rank,
         TensorView::kMaxRank);

  view.rank = t.rank;
  int64_t row_major = 1;
  for (int i = t.rank - 1; i >= 0; --i) {
    const auto at = static_cast<std::size_t>(i);
    view.shape[at] = t.shape[i];
    view.strides[at] = t.strides ? t.strides[i] : row_major;
    row_major *= t.shape[i];
  }
  if (t.data) view.data = static_cast<std::byte*>(t.data) + t.byte_offset;
  if (t.device.type == dlpack::kCpu || t.device.type == dlpack::kCudaHost)
    view.device = {DeviceType::cpu, 0};
  else if (t.device.type == dlpack::kCuda || t.device.type == dlpack::kCudaManaged)
    view.device = {DeviceType::cuda, t.device.index};
  else
    fail(ErrorCode::invalid_argument, "{}: {} lies on a device of DLPack's type {}, expected the CPU or a CUDA device",
         function_, name, t.device.type);
  return view;
}

TensorView Arguments::from_parts(const Parts& parts, const char* name, const char* types) const {
  TensorView view;
  view.data = reinterpret_cast<void*>(parts.address);
  const auto dtype = dtype_of(parts.dtype);
  if (!dtype) fail(ErrorCode::invalid_argument, "{}: {} is {}, expected {}", function_, name, parts.dtype, types);
  view.dtype = *dtype;
  view.rank = static_cast<int>(parts.shape.size());
  if (view.rank < 1 || view.rank > TensorView::kMaxRank)
    fail(ErrorCode::invalid_argument, "{}: {} has {} dimensions, expected 1 to {}", function_, name, view.rank,
         TensorView::kMaxRank);
  std::copy(parts.shape.begin(), parts.shape.end(), view.shape.begin());
  std::copy(parts.strides.begin(), parts.strides.end(), view.strides.begin());
  if (parts.ordinal >= 0) view.device = {DeviceType::cuda, parts.ordinal};
  return view;
}

TensorView Arguments::tensor(nb::handle object, const char* name, const char* types) {
  return read(object, name, types, false);
}
TensorView Arguments::output(nb::handle object, const char* name, const char* types) {
  return read(object, name, types, true);
}

TensorView Arguments::read(nb::handle object, const char* name, const char* types, bool writable) {
  PyTypeObject* type = Py_TYPE(object.ptr());
  for (const ExchangeType& known : exchange_types) {
    if (known.type != type) continue;
    dlpack::Tensor t;
    if (known.api->tensor_from_object(object.ptr(), &t) != 0) reject_layout(object, name, types);
    api_ = known.api;
    return from_dlpack(t, name, types);
  }
  if (torch_tensor && PyType_IsSubtype(type, torch_tensor)) throw NeedsTorch();
  if (nb::isinstance<Parts>(object)) return from_parts(nb::cast<const Parts&>(object), name, types);
  nb::ndarray<nb::ro> array;
  if (nb::ndarray<> changeable; writable && nb::try_cast(object, changeable))
    array = nb::ndarray<nb::ro>(changeable.handle());
  else if (writable && nb::try_cast(object, array))
    fail(ErrorCode::invalid_argument, "{}: {} is read-only, expected memory that can be written to", function_, name);
  else if (writable || !nb::try_cast(object, array))
    throw nb::type_error(
        fmt::format("{}: {} is of type {}, expected a tensor (of torch, or of a library that has __dlpack__)",
                    function_, name, name_of_type(object))
            .c_str());
  borrowed_.push_back(array);
  is_cupy_ = is_cupy_ || nb::cast<std::string>(object.type().attr("__module__")).starts_with("cupy");
  std::array<int64_t, TensorView::kMaxRank> shape{}, strides{};
  const auto rank = static_cast<int32_t>(array.ndim());
  for (int32_t i = 0; i < std::min(rank, TensorView::kMaxRank); ++i) {
    shape[static_cast<std::size_t>(i)] = static_cast<int64_t>(array.shape(static_cast<std::size_t>(i)));
    strides[static_cast<std::size_t>(i)] = array.stride(static_cast<std::size_t>(i));
  }
  return from_dlpack({.data = const_cast<void*>(static_cast<const void*>(array.data())),
                      .device = {array.device_type(), array.device_id()},
                      .rank = rank,
                      .dtype = {array.dtype().code, array.dtype().bits, array.dtype().lanes},
                      .shape = shape.data(),
                      .strides = strides.data(),
                      .byte_offset = 0},
                     name, types);
}

Fp8Tensor Arguments::operand(nb::handle object, const char* name, const char* scale_name) {
  const bool is_tuple = PyTuple_Check(object.ptr()), is_list = PyList_Check(object.ptr());
  if (!is_tuple && !is_list) return {tensor(object, name, kFp8), {}};
  const Py_ssize_t count = is_tuple ? PyTuple_Size(object.ptr()) : PyList_Size(object.ptr());
  if (count != 2) reject(name, "is not a tensor and not a pair (tensor, scales)");
  // Borrowed: the pair holds them for as long as the call.
  const auto item = [&](Py_ssize_t i) -> nb::handle {
    return is_tuple ? PyTuple_GetItem(object.ptr(), i) : PyList_GetItem(object.ptr(), i);
  };
  // Made in place: copying what has just been written in small pieces takes longer than writing it.
  return {tensor(item(0), name, kFp8), item(1).is_none() ? TensorView{} : tensor(item(1), scale_name, kScales)};
}

void Arguments::set_bytes(nb::handle dtype) {
  if (dtype.is_none()) return;
  if (nb::isinstance<nb::str>(dtype)) bytes_ = dtype_of(nb::cast<std::string>(dtype));
  if (bytes_ != DType::e4m3 && bytes_ != DType::e5m2)
    fail(ErrorCode::invalid_argument, "{}: dtype is {}, expected \"e4m3\" or \"e5m2\"", function_,
         nb::cast<std::string>(nb::repr(dtype)));
}

TensorView Arguments::workspace(int64_t bytes, const Device& device, nb::handle given_stream) {
  if (bytes == 0 || !api_ || !api_->allocate || !given_stream.is_none()) return {};
  dlpack::Tensor prototype{.data = nullptr,
                           .device = {dlpack::kCuda, device.index},
                           .rank = 1,
                           .dtype = {dlpack::kUInt, 8, 1},
                           .shape = &bytes,
                           .strides = nullptr,
                           .byte_offset = 0};
  std::string why;
  const auto set_error = [](void* text, const char*, const char* message) {
    *static_cast<std::string*>(text) = message ? message : "";
  };
  dlpack::ManagedTensor* memory = nullptr;
  if (api_->allocate(&prototype, &memory, &why, set_error) != 0)
    fail(ErrorCode::cuda, "{}: no scratch memory of {} bytes: {}", function_, bytes, why);
  workspace_.reset(memory);
  return TensorView::contiguous(static_cast<std::byte*>(memory->tensor.data) + memory->tensor.byte_offset, DType::e4m3,
                                {bytes}, device);
}

Stream Arguments::stream(const Device& device, nb::handle given) const {
  Stream out;
  if (!given.is_none()) {
    std::uintptr_t address = 0;
    if (!nb::try_cast(given, address))
      fail(ErrorCode::invalid_argument, "{}: stream is {}, expected the address of a CUDA stream", function_,
           nb::cast<std::string>(nb::repr(given)));
    out.handle = reinterpret_cast<void*>(address);
  }
  if (device.type != DeviceType::cuda || !given.is_none()) return out;
  if (api_ && api_->current_stream(dlpack::kCuda, device.index, &out.handle) != 0)
    throw nb::python_error();
  else if (is_cupy_)
    out.handle = reinterpret_cast<void*>(
        nb::cast<std::uintptr_t>(nb::module_::import_("cupy").attr("cuda").attr("get_current_stream")().attr("ptr")));
  return out;
}

}  // namespace deep_gemm::python
