#include "tensors.h"

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

TensorView Arguments::from_dlpack(const dlpack::Tensor& t, const char* name) const {
  TensorView view;
  const auto is = [&](uint8_t code, uint8_t bits) { return t.dtype.code == code && t.dtype.bits == bits; };
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
  else if (is(dlpack::kUInt, 8))
    reject(name, "is uint8; say what its bytes are with dtype=\"e4m3\" or dtype=\"e5m2\"");
  else
    reject(name, "has a dtype that no function takes; expected FP8, bf16, f16, f32 or int32");
  if (t.dtype.lanes != 1) reject(name, "has vectors as elements, expected plain numbers");
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
    reject(name, "lies on neither the CPU nor a CUDA device");
  return view;
}

TensorView Arguments::from_parts(nb::handle tuple, const char* name) const {
  if (nb::len(tuple) != 5) reject(name, "is a tuple, expected a tensor");
  TensorView view;
  view.data = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(tuple[0]));
  const auto dtype = dtype_of(nb::cast<std::string>(tuple[1]));
  if (!dtype) reject(name, "has a dtype that no function takes; expected FP8, bf16, f16, f32 or int32");
  view.dtype = *dtype;
  const nb::object shape = tuple[2], strides = tuple[3];
  view.rank = static_cast<int>(nb::len(shape));
  if (view.rank < 1 || view.rank > TensorView::kMaxRank)
    fail(ErrorCode::invalid_argument, "{}: {} has {} dimensions, expected 1 to {}", function_, name, view.rank,
         TensorView::kMaxRank);
  for (int i = 0; i < view.rank; ++i) {
    view.shape[static_cast<std::size_t>(i)] = nb::cast<int64_t>(shape[i]);
    view.strides[static_cast<std::size_t>(i)] = nb::cast<int64_t>(strides[i]);
  }
  const int ordinal = nb::cast<int>(tuple[4]);
  if (ordinal >= 0) view.device = {DeviceType::cuda, ordinal};
  return view;
}

TensorView Arguments::tensor(nb::handle object, const char* name) { return read(object, name, false); }
TensorView Arguments::output(nb::handle object, const char* name) { return read(object, name, true); }

TensorView Arguments::read(nb::handle object, const char* name, bool writable) {
  PyTypeObject* type = Py_TYPE(object.ptr());
  for (const ExchangeType& known : exchange_types) {
    if (known.type != type) continue;
    dlpack::Tensor t;
    if (known.api->tensor_from_object(object.ptr(), &t) != 0) throw nb::python_error();
    api_ = known.api;
    return from_dlpack(t, name);
  }
  if (torch_tensor && PyType_IsSubtype(type, torch_tensor)) throw NeedsTorch();
  if (PyTuple_Check(object.ptr())) return from_parts(object, name);
  nb::ndarray<nb::ro> array;
  if (nb::ndarray<> changeable; writable && nb::try_cast(object, changeable))
    array = nb::ndarray<nb::ro>(changeable.handle());
  else if (writable && nb::try_cast(object, array))
    reject(name, "is read-only");
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
                     name);
}

Fp8Tensor Arguments::operand(nb::handle object, const char* name, const char* scale_name) {
  const bool is_tuple = PyTuple_Check(object.ptr()), is_list = PyList_Check(object.ptr());
  if (!is_tuple && !is_list) return {tensor(object, name), {}};
  const Py_ssize_t count = is_tuple ? PyTuple_Size(object.ptr()) : PyList_Size(object.ptr());
  if (is_tuple && count == 5) return {from_parts(object, name), {}};
  if (count != 2) reject(name, "is not a tensor and not a pair (tensor, scales)");
  // Borrowed: the pair holds them for as long as the call.
  const auto item = [&](Py_ssize_t i) -> nb::handle {
    return is_tuple ? PyTuple_GetItem(object.ptr(), i) : PyList_GetItem(object.ptr(), i);
  };
  // Made in place: copying what has just been written in small pieces takes longer than writing it.
  return {tensor(item(0), name), item(1).is_none() ? TensorView{} : tensor(item(1), scale_name)};
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
  if (device.type != DeviceType::cuda) return out;
  if (!given.is_none())
    out.handle = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(given));
  else if (api_ && api_->current_stream(dlpack::kCuda, device.index, &out.handle) != 0)
    throw nb::python_error();
  else if (is_cupy_)
    out.handle = reinterpret_cast<void*>(
        nb::cast<std::uintptr_t>(nb::module_::import_("cupy").attr("cuda").attr("get_current_stream")().attr("ptr")));
  return out;
}

}  // namespace deep_gemm::python
