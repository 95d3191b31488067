#include "gemm/check.h"

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <numeric>

#include <fmt/ranges.h>

#include "gemm/scratch.h"
#include "text.h"

namespace deep_gemm {

namespace {

constexpr int64_t ceil_div_128(int64_t x) { return (x + 127) / 128; }
constexpr Recipe k1d1d{1, 1, 128};

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

  std::size_t last() const { return static_cast<std::size_t>(view.rank) - 1; }

  void has_rank(int rank, const Device& device) const {
    if (view.rank != rank) reject("has {} dimensions, expected {}", view.rank, rank);
    if (view.device != device)
      reject("lies on {}, expected {}, the context's device", name_of(view.device), name_of(device));
    bool empty = false;
    for (std::size_t dim = 0; dim <= last(); ++dim) {
      // What is flat has a size that is a product of others.
      if (view.shape[dim] < 0 || (rank > 1 && view.shape[dim] > std::numeric_limits<int32_t>::max()))
        reject("is {}, expected dimensions from 0 to 2^31 - 1", shape_text(view));
      empty |= view.shape[dim] == 0;
    }
    if (!empty && view.data == nullptr) reject("is a null pointer, expected {} elements", shape_text(view));
    if (!empty && reinterpret_cast<std::uintptr_t>(view.data) % static_cast<std::uintptr_t>(size_of(view.dtype)) != 0)
      reject("is not aligned to its elements of {} bytes", size_of(view.dtype));
  }
  void has_dtype(DType expected) const {
    if (view.dtype != expected) reject("is {}, expected {}", name_of(view.dtype), name_of(expected));
  }
  void is_fp8() const {
    if (view.dtype != DType::e4m3 && view.dtype != DType::e5m2)
      reject("is {}, expected e4m3 or e5m2", name_of(view.dtype));
  }
  /// Unit stride along the last dimension and rows that do not overlap.
  void has_rows() const {
    if (stride_or(view, last(), 1) != 1)
      reject("has stride {} along its last dimension, expected 1", view.strides[last()]);
    const int64_t extent = view.shape[last()];
    for (std::size_t dim = 0; extent > 0 && dim < last(); ++dim) {
      if (stride_or(view, dim, extent) < extent)
        reject("has {} {} elements apart, expected at least {}", dim + 1 == last() ? "rows" : "groups",
               view.strides[dim], extent);
    }
  }
  void can_be_loaded_by_tma() const {
    for (std::size_t dim = 0; dim <= last(); ++dim)
      if (view.shape[dim] == 0) return;
    if (reinterpret_cast<std::uintptr_t>(view.data) % 16 != 0)
      reject(
          "starts at an address that is no multiple of 16 bytes, which TMA loads need: copy it to an aligned buffer");
    if (const int64_t pitch = view.rank == 1 ? 0 : stride_or(view, last() - 1, 0); pitch % 16 != 0)
      reject(
          "has a row pitch of {} bytes, expected a multiple of 16, which TMA loads need: allocate [{}, {}] and pass "
          "the first {} columns",
          pitch, view.shape[last() - 1], (view.shape[last()] + 15) / 16 * 16, view.shape[last()]);
    if (const int64_t pitch = view.rank == 3 ? stride_or(view, 0, 0) : 0; pitch % 16 != 0)
      reject("has groups {} bytes apart, expected a multiple of 16, which TMA loads need", pitch);
  }
  /// `k`: of the product, where the rule speaks of it.
  void has_shape(std::initializer_list<int64_t> expected, const char* rule, int64_t k = -1) const {
    if (static_cast<std::size_t>(view.rank) == expected.size() &&
        std::equal(expected.begin(), expected.end(), view.shape.begin()))
      return;
    reject("is {}, expected [{}] = {}{}", shape_text(view), fmt::join(expected, ", "), rule,
           k >= 0 ? fmt::format(" for k = {}", k) : "");
  }
};

void check_operand(const Argument& operand, int rank, const Device& device) {
  operand.has_rank(rank, device);
  operand.is_fp8();
  operand.has_rows();
  if (device.type == DeviceType::cuda) operand.can_be_loaded_by_tma();
}

void check_scale(const Argument& scale, int rank, const Device& device) {
  scale.has_rank(rank, device);
  scale.has_dtype(DType::f32);
}

void check_output(const Argument& out, int rank, const Device& device) {
  out.has_rank(rank, device);
  if (out.view.dtype != DType::bf16 && out.view.dtype != DType::f32)
    out.reject("is {}, expected bf16 or f32", name_of(out.view.dtype));
  out.has_rows();
}

void check_num_sms(const char* function, int num_sms) {
  if (num_sms < 0)
    fail(ErrorCode::invalid_argument, "{}: num_sms is {}, expected 0 (all) or a positive number", function, num_sms);
}

void check_workspace(const char* function, const Device& device, const TensorView& workspace, int64_t bytes) {
  if (!workspace || device.type == DeviceType::cpu) return;
  const Argument arg{function, "workspace", workspace};
  arg.has_rank(1, device);
  if (stride_or(workspace, 0, 1) != 1) arg.reject("has stride {}, expected 1", workspace.strides[0]);
  if (workspace.shape[0] * size_of(workspace.dtype) < bytes)
    arg.reject("has {} bytes, expected at least the {} that workspace_bytes() says",
               workspace.shape[0] * size_of(workspace.dtype), bytes);
  if (bytes > 0 && reinterpret_cast<std::uintptr_t>(workspace.data) % 16 != 0)
    arg.reject("starts at an address that is no multiple of 16 bytes");
}

void check_same_k(const Argument& b, const TensorView& a, int64_t k, const char* shape) {
  if (b.view.shape[b.last()] != k)
    b.reject("is {}, expected [{}, {}]: a is {} and both have the same k", shape_text(b.view), shape, k, shape_text(a));
}

}  // namespace

Problem check(const char* function, const Device& device, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d,
              const GemmOptions& options) {
  const Argument arg_a{function, "a", a.data}, arg_b{function, "b", b.data}, arg_d{function, "d", d};
  check_operand(arg_a, 2, device);
  check_operand(arg_b, 2, device);
  const int64_t m = a.data.shape[0], k = a.data.shape[1], n = b.data.shape[0];
  check_same_k(arg_b, a.data, k, "n");
  if (a.scale) {
    const Argument scale{function, "scale_a", a.scale};
    check_scale(scale, 2, device);
    scale.has_shape({m, ceil_div_128(k)}, "[m, ceil(k / 128)]", k);
  }
  const Recipe& recipe = options.recipe;
  if (recipe != Recipe{} && recipe != k1d1d)
    fail(ErrorCode::invalid_argument, "{}: recipe is ({}, {}, {}), expected (1, 128, 128) or (1, 1, 128)", function,
         recipe.rows_a, recipe.rows_b, recipe.cols);
  if (b.scale) {
    const Argument scale{function, "scale_b", b.scale};
    check_scale(scale, 2, device);
    if (recipe == k1d1d) {
      scale.has_shape({n, ceil_div_128(k)}, "[n, ceil(k / 128)] by recipe (1, 1, 128)", k);
    } else {
      scale.has_shape({ceil_div_128(n), ceil_div_128(k)}, "[ceil(n / 128), ceil(k / 128)]", k);
    }
  }
  check_output(arg_d, 2, device);
  arg_d.has_shape({m, n}, "[m, n]");
  if (options.c) {
    const Argument arg_c{function, "c", *options.c};
    check_output(arg_c, 2, device);
    arg_c.has_shape({m, n}, "[m, n]");
    arg_c.has_dtype(d.dtype);
  }
  check_num_sms(function, options.num_sms);
  check_workspace(function, device, options.workspace, workspace_bytes(a, b, recipe));

  return Problem{.m = m,
                 .n = n,
                 .k = k,
                 .d_type = d.dtype,
                 .scaled_a = static_cast<bool>(a.scale),
                 .scaled_b = static_cast<bool>(b.scale),
                 .accumulate = options.c.has_value(),
                 .a_type = a.data.dtype,
                 .b_type = b.data.dtype,
                 .scale_rows_b = b.scale ? recipe.rows_b : 128,
                 .batch_invariant = options.batch_invariant,
                 .num_sms = options.num_sms};
}

Problem check_grouped(const char* function, Layout layout, const Device& device, const Fp8Tensor& a, const Fp8Tensor& b,
                      const TensorView& d, const TensorView& groups_of, const GroupedOptions& options) {
  const bool masked = layout == Layout::masked;
  const int rank_a = masked ? 3 : 2;
  const Argument arg_a{function, "a", a.data}, arg_b{function, "b", b.data}, arg_d{function, "d", d};
  check_operand(arg_a, rank_a, device);
  check_operand(arg_b, 3, device);
  const auto dim_m = static_cast<std::size_t>(rank_a) - 2;
  const int64_t m = a.data.shape[dim_m], k = a.data.shape[dim_m + 1];
  const int64_t groups = b.data.shape[0], n = b.data.shape[1], blocks = ceil_div_128(k);
  check_same_k(arg_b, a.data, k, "groups, n");
  if (masked && a.data.shape[0] != groups)
    arg_a.reject("is {}, expected [{}, m_max, k]: b is {} and both have the same groups", shape_text(a.data), groups,
                 shape_text(b.data));
  if (a.scale) {
    const Argument scale{function, "scale_a", a.scale};
    check_scale(scale, rank_a, device);
    if (masked) {
      scale.has_shape({groups, m, blocks}, "[groups, m_max, ceil(k / 128)]", k);
    } else {
      scale.has_shape({m, blocks}, "[m, ceil(k / 128)]", k);
    }
  }
  if (b.scale) {
    const Argument scale{function, "scale_b", b.scale};
    check_scale(scale, 3, device);
    scale.has_shape({groups, ceil_div_128(n), blocks}, "[groups, ceil(n / 128), ceil(k / 128)]", k);
  }
  check_output(arg_d, rank_a, device);
  if (masked) {
    arg_d.has_shape({groups, m, n}, "[groups, m_max, n]");
  } else {
    arg_d.has_shape({m, n}, "[m, n]");
  }
  const char* name = layout == Layout::contiguous ? "m_indices" : layout == Layout::offsets ? "ends" : "masked_m";
  const Argument arg_groups{function, name, groups_of};
  arg_groups.has_rank(1, device);
  arg_groups.has_dtype(DType::i32);
  arg_groups.has_shape({layout == Layout::contiguous ? m : groups}, layout == Layout::contiguous ? "[m]" : "[groups]");
  if (stride_or(groups_of, 0, 1) != 1) arg_groups.reject("has stride {}, expected 1", groups_of.strides[0]);
  if (groups == 0 && m > 0) arg_b.reject("is {}, expected at least one group", shape_text(b.data));
  if (options.alignment < 1 || options.alignment > 1 << 20)
    fail(ErrorCode::invalid_argument, "{}: alignment is {}, expected 1 to 2^20", function, options.alignment);
  check_num_sms(function, options.num_sms);
  check_workspace(function, device, options.workspace, workspace_bytes(a, b));

  return Problem{.m = m,
                 .n = n,
                 .k = k,
                 .d_type = d.dtype,
                 .scaled_a = static_cast<bool>(a.scale),
                 .scaled_b = static_cast<bool>(b.scale),
                 .a_type = a.data.dtype,
                 .b_type = b.data.dtype,
                 .batch_invariant = options.batch_invariant,
                 .num_sms = options.num_sms,
                 .layout = layout,
                 .groups = groups};
}

Problem check_k_grouped(const char* function, const Device& device, const Fp8Tensor& a, const Fp8Tensor& b,
                        const TensorView& d, std::span<const int> ks, const GemmOptions& options) {
  const Argument arg_d{function, "d", d};
  check_output(arg_d, 3, device);
  arg_d.has_dtype(DType::f32);
  const int64_t m = d.shape[1], n = d.shape[2];
  if (d.shape[0] != static_cast<int64_t>(ks.size()))
    arg_d.reject("is {}, expected [groups, m, n] with the {} groups of ks", shape_text(d), ks.size());
  if (options.c) {
    const Argument arg_c{function, "c", *options.c};
    check_output(arg_c, 3, device);
    arg_c.has_shape({d.shape[0], m, n}, "[groups, m, n]");
    arg_c.has_dtype(DType::f32);
  }

  const int64_t all = std::accumulate(ks.begin(), ks.end(), int64_t{0});
  int64_t blocks = 0, largest = 0;
  const bool flat = a.data.rank == 1;
  const int step = flat ? 128 : device.type == DeviceType::cuda ? 16 : 1;
  for (std::size_t group = 0; group < ks.size(); ++group) {
    const int k = ks[group];
    if (k < 0) fail(ErrorCode::invalid_argument, "{}: ks[{}] is {}, expected 0 or more", function, group, k);
    if (k % step != 0 && (flat || group + 1 < ks.size()))
      fail(ErrorCode::invalid_argument, "{}: ks[{}] is {}, expected a multiple of {}{}", function, group, k, step,
           flat ? " for flat operands; strided ones, [m, sum of ks], may have others"
                : ", since the next group starts there and TMA loads from multiples of 16 bytes: pad with zeros");
    blocks += ceil_div_128(k);
    largest = std::max<int64_t>(largest, k);
  }

  struct Rules {
    const char *name, *scale_name, *flat, *strided, *scale;
  };
  const auto check_one = [&](const Fp8Tensor& operand, int64_t rows, const Rules& rules) {
    const Argument arg{function, rules.name, operand.data};
    check_operand(arg, flat ? 1 : 2, device);
    if (flat) {
      arg.has_shape({rows * all}, rules.flat);
    } else {
      arg.has_shape({rows, all}, rules.strided);
    }
    if (!operand.scale) return;
    const Argument scale{function, rules.scale_name, operand.scale};
    check_scale(scale, 2, device);
    scale.has_shape({rows, blocks}, rules.scale);
  };
  check_one(a, m, {"a", "scale_a", "[m · sum of ks]", "[m, sum of ks]", "[m, sum of ceil(ks / 128)]"});
  check_one(b, n, {"b", "scale_b", "[n · sum of ks]", "[n, sum of ks]", "[n, sum of ceil(ks / 128)]"});
  if (static_cast<bool>(a.scale) != static_cast<bool>(b.scale))
    fail(ErrorCode::invalid_argument, "{}: scale_{} is missing, expected scales for both operands or for none",
         function, a.scale ? "b" : "a");
  check_num_sms(function, options.num_sms);
  check_workspace(function, device, options.workspace, workspace_bytes(a, b, k1d1d));

  return Problem{.m = m,
                 .n = n,
                 .k = largest,
                 .d_type = DType::f32,
                 .scaled_a = static_cast<bool>(a.scale),
                 .scaled_b = static_cast<bool>(b.scale),
                 .accumulate = true,
                 .a_type = a.data.dtype,
                 .b_type = b.data.dtype,
                 .scale_rows_b = b.scale ? 1 : 128,
                 .batch_invariant = options.batch_invariant,
                 .num_sms = options.num_sms,
                 .layout = Layout::k_grouped,
                 .groups = static_cast<int64_t>(ks.size())};
}

}  // namespace deep_gemm
