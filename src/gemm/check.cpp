#include "gemm/check.h"

#include <cstdint>
#include <limits>

#include "text.h"

namespace deep_gemm {

namespace {

constexpr int64_t ceil_div_128(int64_t x) { return (x + 127) / 128; }

/// One argument under check. Texts are built only when something is wrong.
struct Argument {
  const char* function;
  const char* name;
  const TensorView& view;

  template <class... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> rule, Args&&... args) const {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: {} {}", function, name, fmt::format(rule, std::forward<Args>(args)...)));
  }

  void is_matrix(const Device& device) const {
    if (view.rank != 2) reject("has {} dimensions, expected 2", view.rank);
    if (view.device != device)
      reject("lies on {}, expected {}, the context's device", name_of(view.device), name_of(device));
    for (const int64_t extent : {view.shape[0], view.shape[1]}) {
      if (extent < 0 || extent > std::numeric_limits<int32_t>::max())
        reject("is {}, expected dimensions from 0 to 2^31 - 1", shape_text(view));
    }
    const bool empty = view.shape[0] == 0 || view.shape[1] == 0;
    if (!empty && view.data == nullptr) reject("is a null pointer, expected {} elements", shape_text(view));
    if (!empty && reinterpret_cast<std::uintptr_t>(view.data) % static_cast<std::uintptr_t>(size_of(view.dtype)) != 0)
      reject("is not aligned to its elements of {} bytes", size_of(view.dtype));
  }
  void has_dtype(DType expected) const {
    if (view.dtype != expected) reject("is {}, expected {}", name_of(view.dtype), name_of(expected));
  }
  /// Unit stride along dimension 1 and rows that do not overlap.
  void has_rows() const {
    if (stride_or(view, 1, 1) != 1) reject("has stride {} along its last dimension, expected 1", view.strides[1]);
    if (view.shape[1] > 0 && stride_or(view, 0, view.shape[1]) < view.shape[1])
      reject("has rows {} elements apart, expected at least {}", view.strides[0], view.shape[1]);
  }
  void can_be_loaded_by_tma() const {
    if (view.shape[0] == 0 || view.shape[1] == 0) return;
    if (reinterpret_cast<std::uintptr_t>(view.data) % 16 != 0)
      reject(
          "starts at an address that is no multiple of 16 bytes, which TMA loads need: copy it to an aligned buffer");
    if (const int64_t pitch = stride_or(view, 0, 0); pitch % 16 != 0)
      reject(
          "has a row pitch of {} bytes, expected a multiple of 16, which TMA loads need: allocate [{}, {}] and pass "
          "the first {} columns",
          pitch, view.shape[0], (view.shape[1] + 15) / 16 * 16, view.shape[1]);
  }
  void has_scale_shape(int64_t rows, int64_t blocks, const char* rule, int64_t rows_of, int64_t k) const {
    if (view.shape[0] != rows || view.shape[1] != blocks)
      reject("is {}, expected [{}, {}] = {} for {} rows and k = {}", shape_text(view), rows, blocks, rule, rows_of, k);
  }
};

}  // namespace

Problem check(const char* function, const Device& device, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
              const GemmOptions& options) {
  const Argument arg_a{function, "a", a.data}, arg_b{function, "b", b.data}, arg_d{function, "d", d};
  for (const Argument& operand : {arg_a, arg_b}) {
    operand.is_matrix(device);
    operand.has_dtype(DType::e4m3);
    operand.has_rows();
    if (device.type == DeviceType::cuda) operand.can_be_loaded_by_tma();
  }
  const int64_t m = a.data.shape[0], k = a.data.shape[1], n = b.data.shape[0];
  if (b.data.shape[1] != k)
    arg_b.reject("is {}, expected [n, {}]: a is {} and both have the same k", shape_text(b.data), k,
                 shape_text(a.data));

  if (a.scale) {
    const Argument scale{function, "scale_a", a.scale};
    scale.is_matrix(device);
    scale.has_dtype(DType::f32);
    scale.has_scale_shape(m, ceil_div_128(k), "[m, ceil(k / 128)]", m, k);
  }
  if (b.scale) {
    const Argument scale{function, "scale_b", b.scale};
    scale.is_matrix(device);
    scale.has_dtype(DType::f32);
    scale.has_scale_shape(ceil_div_128(n), ceil_div_128(k), "[ceil(n / 128), ceil(k / 128)]", n, k);
  }

  const auto check_output = [&](const Argument& out) {
    out.is_matrix(device);
    if (out.view.dtype != DType::bf16 && out.view.dtype != DType::f32)
      out.reject("is {}, expected bf16 or f32", name_of(out.view.dtype));
    if (out.view.shape[0] != m || out.view.shape[1] != n)
      out.reject("is {}, expected [{}, {}] = [m, n]", shape_text(out.view), m, n);
    out.has_rows();
  };
  check_output(arg_d);
  if (options.c) {
    const Argument arg_c{function, "c", *options.c};
    check_output(arg_c);
    arg_c.has_dtype(d.dtype);
  }
  if (options.num_sms < 0)
    fail(ErrorCode::invalid_argument, "{}: num_sms is {}, expected 0 (all) or a positive number", function,
         options.num_sms);

  return Problem{.m = m,
                 .n = n,
                 .k = k,
                 .d_type = d.dtype,
                 .scaled_a = static_cast<bool>(a.scale),
                 .scaled_b = static_cast<bool>(b.scale),
                 .accumulate = options.c.has_value(),
                 .num_sms = options.num_sms};
}

}  // namespace deep_gemm
