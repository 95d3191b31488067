// The extension module: Python arguments to views, one call of the library, its errors as Python's. What is convenient
// rather than needed lives in the Python files beside it.
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "context_impl.h"
#include "gemm/check.h"
#include "tensors.h"
#include "text.h"

namespace deep_gemm::python {
namespace {

using namespace nb::literals;

// Settings are read by every call.
std::atomic<int> num_sms = 0, compile_mode = 0;
std::atomic<bool> programmatic_launch = false;

// Called from any thread that runs the library, which never holds the GIL there.
void log_to_python(LogLevel level, const std::string& text) {
  const nb::gil_scoped_acquire gil;
  try {
    const int number = level == LogLevel::debug ? 10 : level == LogLevel::info ? 20 : 30;
    nb::module_::import_("logging").attr("getLogger")("deep_gemm").attr("log")(number, "%s", text);
  } catch (nb::python_error& error) {
    error.discard_as_unraisable("deep_gemm's log");
  }
}

// One context a device, made on its first call. They are never destroyed: streams may outlive the module.
Context& context_of(const Device& device) {
  constexpr std::size_t kMaxDevices = 64;
  static std::array<std::atomic<Context*>, kMaxDevices + 1> contexts;
  static std::mutex mutex;
  const std::size_t slot = device.type == DeviceType::cpu ? 0 : static_cast<std::size_t>(device.index) + 1;
  if (slot >= contexts.size())
    fail(ErrorCode::invalid_argument, "{}: expected a CUDA ordinal below {}", name_of(device), kMaxDevices);
  if (Context* context = contexts[slot].load(std::memory_order_acquire)) return *context;
  const std::scoped_lock lock(mutex);
  Context* context = contexts[slot].load(std::memory_order_relaxed);
  if (!context) {
    ContextOptions options;
    options.log = log_to_python;
    context = std::make_unique<Context>(device, std::move(options)).release();
    contexts[slot].store(context, std::memory_order_release);
  }
  return *context;
}

DeviceInfo device_info(const std::string& name) {
  if (name == "h100") return DeviceInfo::h100();
  if (name == "h200") return DeviceInfo::h200();
  if (name == "h800") return DeviceInfo::h800();
  fail(ErrorCode::invalid_argument, "device is {}, expected h100, h200 or h800", name);
}

bool is_tuple_of(nb::handle given, std::initializer_list<int> expected) {
  if (nb::len(given) != expected.size()) return false;
  std::size_t i = 0;
  for (const int value : expected)
    if (nb::cast<int>(given[i++]) != value) return false;
  return true;
}

/// What one scale covers is the same in every way of saying it; None is the default.
void check_recipe(const char* function, const char* name, nb::handle given, std::initializer_list<int> expected) {
  if (given.is_none() || is_tuple_of(given, expected)) return;
  fail(ErrorCode::invalid_argument, "{}: {} is {}, expected ({})", function, name,
       nb::cast<std::string>(nb::repr(given)), fmt::join(expected, ", "));
}

void check_recipes(const char* function, nb::handle both, nb::handle a, nb::handle b) {
  check_recipe(function, "recipe", both, {1, 128, 128});
  check_recipe(function, "recipe_a", a, {1, 128});
  check_recipe(function, "recipe_b", b, {128, 128});
}

/// What a call does in compile mode.
void compile_for(Context& context, const Problem& problem) {
  if (problem.m == 0 || problem.n == 0 || problem.groups == 0) return;
  const bool cuda = context.device().type == DeviceType::cuda;
  compile(context, plan(problem, cuda ? context.impl().plan_device : DeviceInfo::h100()).config);
}

/// Whether the call was made; false: torch's dispatcher must take it.
template <class Call>
bool attempt(Call&& call) {
  try {
    call();
    return true;
  } catch (const NeedsTorch&) {
    return false;
  }
}

bool gemm(nb::handle a, nb::handle b, nb::handle d, nb::handle c, nb::handle recipe, nb::handle recipe_a,
          nb::handle recipe_b, nb::handle dtype, nb::handle stream) {
  constexpr const char* kFunction = "fp8_gemm_nt";
  return attempt([&] {
    Arguments arguments(kFunction);
    arguments.set_bytes(dtype);
    check_recipes(kFunction, recipe, recipe_a, recipe_b);
    const Fp8Tensor operand_a = arguments.operand(a, "a", "scale_a"), operand_b = arguments.operand(b, "b", "scale_b");
    const TensorView out = arguments.output(d, "d");
    GemmOptions options;
    if (!c.is_none()) options.c = arguments.tensor(c, "c");
    options.num_sms = num_sms.load(std::memory_order_relaxed);
    options.programmatic_launch = programmatic_launch.load(std::memory_order_relaxed);
    options.stream = arguments.stream(out.device, stream);

    const nb::gil_scoped_release no_gil;
    Context& context = context_of(out.device);
    if (compile_mode.load(std::memory_order_relaxed) == 0)
      return fp8_gemm_nt(context, operand_a, operand_b, out, options);
    compile_for(context, check(kFunction, out.device, operand_a, operand_b, out, options));
  });
}

/// The products of a mixture of experts, by layout.
bool m_grouped(Layout layout, nb::handle a, nb::handle b, nb::handle d, nb::handle groups_of, int64_t expected_m,
               int alignment, bool zero_padding, nb::handle recipe, nb::handle recipe_a, nb::handle recipe_b,
               nb::handle dtype, nb::handle stream) {
  const char* const function = layout == Layout::contiguous ? "m_grouped_fp8_gemm_nt_contiguous"
                               : layout == Layout::offsets  ? "m_grouped_fp8_gemm_nt_offsets"
                                                            : "m_grouped_fp8_gemm_nt_masked";
  const char* const groups_name = layout == Layout::contiguous ? "m_indices"
                                  : layout == Layout::offsets  ? "ends"
                                                               : "masked_m";
  return attempt([&] {
    Arguments arguments(function);
    arguments.set_bytes(dtype);
    check_recipes(function, recipe, recipe_a, recipe_b);
    const Fp8Tensor operand_a = arguments.operand(a, "a", "scale_a"), operand_b = arguments.operand(b, "b", "scale_b");
    const TensorView out = arguments.output(d, "d"), groups = arguments.tensor(groups_of, groups_name);
    const GroupedOptions options{.stream = arguments.stream(out.device, stream),
                                 .num_sms = num_sms.load(std::memory_order_relaxed),
                                 .programmatic_launch = programmatic_launch.load(std::memory_order_relaxed),
                                 .alignment = alignment,
                                 .zero_padding = zero_padding};
    const nb::gil_scoped_release no_gil;
    Context& context = context_of(out.device);
    if (compile_mode.load(std::memory_order_relaxed) != 0) {
      Problem problem = check_grouped(function, layout, out.device, operand_a, operand_b, out, groups, options);
      problem.expected_m = expected_m;
      return compile_for(context, problem);
    }
    if (layout == Layout::contiguous)
      m_grouped_fp8_gemm_nt_contiguous(context, operand_a, operand_b, out, groups, options);
    else if (layout == Layout::offsets)
      m_grouped_fp8_gemm_nt_offsets(context, operand_a, operand_b, out, groups, options);
    else
      m_grouped_fp8_gemm_nt_masked(context, operand_a, operand_b, out, groups, expected_m, options);
  });
}

bool quantize(int rows_per_scale, nb::handle x, nb::handle out, nb::handle scale, bool power_of_two, nb::handle dtype,
              nb::handle stream) {
  return attempt([&] {
    Arguments arguments(rows_per_scale == 1 ? "quantize_1x128" : "quantize_128x128");
    arguments.set_bytes(dtype);
    const TensorView in = arguments.tensor(x, "x");
    const Fp8Tensor to{arguments.output(out, "out.data"), arguments.output(scale, "out.scale")};
    const QuantizeOptions options{.stream = arguments.stream(to.data.device, stream),
                                  .power_of_two_scales = power_of_two};
    const nb::gil_scoped_release no_gil;
    if (compile_mode.load(std::memory_order_relaxed) != 0) return;
    (rows_per_scale == 1 ? quantize_1x128 : quantize_128x128)(context_of(to.data.device), in, to, options);
  });
}

/// A config as the values of its fields, which is all that tells kernels apart.
using Key = std::vector<int>;

Key key_of(const GemmConfig& config) {
  Key key;
  fields(config, [&](const char*, const auto& field) { key.push_back(static_cast<int>(field)); });
  return key;
}

GemmConfig config_of(const Key& key) {
  GemmConfig config;
  std::size_t i = 0;
  fields(config, [&]<class Field>(const char*, Field& field) { field = static_cast<Field>(key.at(i++)); });
  return config;
}

/// With BF16 results; m is what a group of the masked layout is expected to have.
Problem problem_of(Layout layout, int64_t m, int64_t n, int64_t k, int64_t groups) {
  return {.m = m,
          .n = n,
          .k = k,
          .num_sms = num_sms.load(std::memory_order_relaxed),
          .layout = layout,
          .groups = groups,
          .expected_m = layout == Layout::masked ? m : 0};
}

nb::tuple tuple_of(const Key& key) { return nb::tuple(nb::cast(key)); }

nb::dict compile_key(const Key& key) {
  CompileReport report;
  {
    const nb::gil_scoped_release no_gil;
    report = compile(context_of({}), config_of(key));
  }
  nb::dict out;
  out["name"] = report.name;
  out["compiler"] = report.compiler;
  out["cached"] = report.cached;
  out["seconds"] = report.seconds;
  out["registers"] = report.registers;
  out["spill_bytes"] = report.spill_bytes;
  return out;
}

/// Runs for every exception that leaves a function of the module; what it does not know, it throws on.
void translate(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    PyErr_SetString(error.code() == ErrorCode::invalid_argument ? PyExc_ValueError : PyExc_RuntimeError, error.what());
  }
}

}  // namespace

NB_MODULE(_C, module) {
  nb::register_exception_translator(translate);
  module.attr("version") = DG_VERSION;
  module.def("register_torch", &register_torch, "base"_a, "exact"_a);
  module.def("fp8_gemm_nt", &gemm, "a"_a.none(), "b"_a.none(), "d"_a.none(), "c"_a.none(), "recipe"_a.none(),
             "recipe_a"_a.none(), "recipe_b"_a.none(), "dtype"_a.none(), "stream"_a.none());
  nb::enum_<Layout>(module, "Layout")
      .value("dense", Layout::dense)
      .value("contiguous", Layout::contiguous)
      .value("offsets", Layout::offsets)
      .value("masked", Layout::masked);
  module.def("m_grouped", &m_grouped, "layout"_a, "a"_a.none(), "b"_a.none(), "d"_a.none(), "groups_of"_a.none(),
             "expected_m"_a, "alignment"_a, "zero_padding"_a, "recipe"_a.none(), "recipe_a"_a.none(),
             "recipe_b"_a.none(), "dtype"_a.none(), "stream"_a.none());
  module.def("quantize", &quantize, "rows_per_scale"_a, "x"_a.none(), "out"_a.none(), "scale"_a.none(),
             "power_of_two"_a, "dtype"_a.none(), "stream"_a.none());
  module.def("get_num_sms", [] { return num_sms.load(); });
  module.def("set_num_sms", [](int value) { num_sms = value; });
  module.def("get_pdl", [] { return programmatic_launch.load(); });
  module.def("set_pdl", [](bool value) { programmatic_launch = value; });
  module.def("get_compile_mode", [] { return compile_mode.load(); });
  module.def("set_compile_mode", [](int value) { compile_mode = value; });
  module.def(
      "device_sms", [](const std::string& device) { return device_info(device).num_sms; }, "device"_a);
  module.def(
      "plan",
      [](Layout layout, int64_t m, int64_t n, int64_t k, int64_t groups, const std::string& device) {
        return tuple_of(key_of(plan(problem_of(layout, m, n, k, groups), device_info(device)).config));
      },
      "layout"_a, "m"_a, "n"_a, "k"_a, "groups"_a, "device"_a);
  module.def(
      "kernels_for",
      [](Layout layout, int64_t m, int64_t n, int64_t k, int64_t groups, const std::string& device) {
        nb::list keys;
        for (const GemmConfig& config : kernels_for(problem_of(layout, m, n, k, groups), device_info(device)))
          keys.append(tuple_of(key_of(config)));
        return keys;
      },
      "layout"_a, "m"_a, "n"_a, "k"_a, "groups"_a, "device"_a);
  module.def("compile", &compile_key, "key"_a);
}

}  // namespace deep_gemm::python
