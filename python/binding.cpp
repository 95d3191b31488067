// The extension module: Python arguments to views, one call of the library, its errors as Python's. What is convenient
// rather than needed lives in the Python files beside it.
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "context_impl.h"
#include "direct.h"
#include "gemm/check.h"
#include "layout/layout.h"
#include "tensors.h"
#include "text.h"

namespace deep_gemm::python {
namespace {

using namespace nb::literals;

// Settings are read by every call.
std::atomic<int> num_sms = 0, compile_mode = 0;
std::atomic<int> mk_alignment = static_cast<int>(get_m_alignment_for_contiguous_layout());
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
  if (!PySequence_Check(given.ptr()) || nb::len(given) != expected.size()) return false;
  std::size_t i = 0;
  for (const int value : expected)
    if (int number = 0; !nb::try_cast(nb::object(given[i++]), number) || number != value) return false;
  return true;
}

std::string text_of(nb::handle object) { return nb::cast<std::string>(nb::repr(object)); }

[[noreturn]] void reject_recipe(const char* function, const char* name, nb::handle given, const char* expected) {
  fail(ErrorCode::invalid_argument, "{}: {} is {}, expected {}", function, name, text_of(given), expected);
}

/// What one scale covers, said in up to two ways that must not contradict each other; None everywhere is the default.
Recipe recipe_of(const char* function, nb::handle both, nb::handle a, nb::handle b) {
  Recipe recipe;
  if (both.is_none() && a.is_none() && b.is_none()) return recipe;
  if (!a.is_none() && !is_tuple_of(a, {1, 128})) reject_recipe(function, "recipe_a", a, "(1, 128)");
  if (!b.is_none()) {
    if (is_tuple_of(b, {1, 128}))
      recipe.rows_b = 1;
    else if (!is_tuple_of(b, {128, 128}))
      reject_recipe(function, "recipe_b", b, "(128, 128) or (1, 128)");
  }
  if (!both.is_none()) {
    const bool is_1d1d = is_tuple_of(both, {1, 1, 128});
    if (!is_1d1d && !is_tuple_of(both, {1, 128, 128}))
      reject_recipe(function, "recipe", both, "(1, 128, 128) or (1, 1, 128)");
    if (!b.is_none() && is_1d1d != (recipe.rows_b == 1))
      reject_recipe(function, "recipe", both, fmt::format("what recipe_b says, {}", text_of(b)).c_str());
    recipe.rows_b = is_1d1d ? 1 : 128;
  }
  return recipe;
}

/// What a call needs; operands that are no matrices are for its own checks to refuse.
int64_t scratch_bytes(const Fp8Tensor& a, const Fp8Tensor& b, const Recipe& recipe) {
  if (a.data.device.type != DeviceType::cuda || a.scale.rank == 1 || b.scale.rank == 1) return 0;
  return workspace_bytes(a, b, recipe);
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
    GemmOptions options;
    options.recipe = recipe_of(kFunction, recipe, recipe_a, recipe_b);
    const Fp8Tensor operand_a = arguments.operand(a, "a", "scale_a"), operand_b = arguments.operand(b, "b", "scale_b");
    const TensorView out = arguments.output(d, "d", kResult);
    if (!c.is_none()) options.c = arguments.tensor(c, "c", kResult);
    options.num_sms = num_sms.load(std::memory_order_relaxed);
    options.programmatic_launch = programmatic_launch.load(std::memory_order_relaxed);
    options.stream = arguments.stream(out.device, stream);
    options.workspace = arguments.workspace(scratch_bytes(operand_a, operand_b, options.recipe), out.device, stream);

    const nb::gil_scoped_release no_gil;
    Context& context = context_of(out.device);
    if (compile_mode.load(std::memory_order_relaxed) == 0)
      return fp8_gemm_nt(context, operand_a, operand_b, out, options);
    compile_for(context, check(kFunction, out.device, operand_a, operand_b, out, options));
  });
}

bool k_grouped(nb::handle a, nb::handle b, nb::handle d, const std::vector<int>& ks, nb::handle c, nb::handle recipe,
               nb::handle dtype, nb::handle stream) {
  constexpr const char* kFunction = "k_grouped_fp8_gemm_nt";
  return attempt([&] {
    Arguments arguments(kFunction);
    arguments.set_bytes(dtype);
    if (!recipe.is_none() && !is_tuple_of(recipe, {1, 1, 128}))
      reject_recipe(kFunction, "recipe", recipe, "(1, 1, 128)");
    const Fp8Tensor operand_a = arguments.operand(a, "a", "scale_a"), operand_b = arguments.operand(b, "b", "scale_b");
    const TensorView out = arguments.output(d, "d", kResult);
    GemmOptions options;
    options.recipe = {1, 1, 128};
    if (!c.is_none()) options.c = arguments.tensor(c, "c", kResult);
    options.num_sms = num_sms.load(std::memory_order_relaxed);
    options.programmatic_launch = programmatic_launch.load(std::memory_order_relaxed);
    options.stream = arguments.stream(out.device, stream);
    options.workspace = arguments.workspace(scratch_bytes(operand_a, operand_b, options.recipe), out.device, stream);

    const nb::gil_scoped_release no_gil;
    Context& context = context_of(out.device);
    if (compile_mode.load(std::memory_order_relaxed) == 0)
      return k_grouped_fp8_gemm_nt(context, operand_a, operand_b, out, ks, options);
    compile_for(context, check_k_grouped(kFunction, out.device, operand_a, operand_b, out, ks, options));
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
    if (recipe_of(function, recipe, recipe_a, recipe_b) != Recipe{})
      reject_recipe(function, recipe.is_none() ? "recipe_b" : "recipe", recipe.is_none() ? recipe_b : recipe,
                    recipe.is_none() ? "(128, 128)" : "(1, 128, 128)");
    const Fp8Tensor operand_a = arguments.operand(a, "a", "scale_a"), operand_b = arguments.operand(b, "b", "scale_b");
    const TensorView out = arguments.output(d, "d", kResult),
                     groups = arguments.tensor(groups_of, groups_name, kGroups);
    const GroupedOptions options{
        .stream = arguments.stream(out.device, stream),
        .num_sms = num_sms.load(std::memory_order_relaxed),
        .programmatic_launch = programmatic_launch.load(std::memory_order_relaxed),
        .workspace = arguments.workspace(scratch_bytes(operand_a, operand_b, {}), out.device, stream),
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

bool quantize(int rows_per_scale, int cols_per_scale, nb::handle x, nb::handle out, nb::handle scale, bool power_of_two,
              nb::handle dtype, nb::handle stream) {
  const auto call = cols_per_scale == 1 ? quantize_128x1 : rows_per_scale == 1 ? quantize_1x128 : quantize_128x128;
  // Errors name what users call.
  const char* const function = cols_per_scale == 1   ? "per_channel_cast_to_fp8"
                               : rows_per_scale == 1 ? "per_token_cast_to_fp8"
                                                     : "per_block_cast_to_fp8";
  return attempt([&] {
    Arguments arguments(function);
    arguments.set_bytes(dtype);
    const TensorView in = arguments.tensor(x, "x", kQuantizable);
    const Fp8Tensor to{arguments.output(out, "out.data", kFp8), arguments.output(scale, "out.scale", kScales)};
    const QuantizeOptions options{.stream = arguments.stream(to.data.device, stream),
                                  .power_of_two_scales = power_of_two};
    const nb::gil_scoped_release no_gil;
    if (compile_mode.load(std::memory_order_relaxed) != 0) return;
    try {
      call(context_of(to.data.device), in, to, options);
    } catch (const Error& error) {
      // "quantize_1x128: what is wrong"
      const std::string text = error.what();
      const std::size_t colon = text.find(':');
      if (error.code() != ErrorCode::invalid_argument || colon == std::string::npos) throw;
      throw Error(error.code(), function + text.substr(colon));
    }
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

/// Of a product with BF16 results, or of weight gradients; m is what a group of the masked layout is expected to have.
Problem problem_of(Layout layout, int64_t m, int64_t n, int64_t k, int64_t groups) {
  const bool gradients = layout == Layout::k_grouped;
  return {.m = m,
          .n = n,
          .k = k,
          .d_type = gradients ? DType::f32 : DType::bf16,
          .accumulate = gradients,
          .scale_rows_b = gradients ? 1 : 128,
          .num_sms = num_sms.load(std::memory_order_relaxed),
          .layout = layout,
          .groups = groups,
          .expected_m = layout == Layout::masked ? m : 0};
}

nb::tuple tuple_of(const Key& key) { return nb::tuple(nb::cast(key)); }

/// What a server needs beside the products: activations and weights to e4m3, scales into TMA's layout.
std::vector<jit::KernelSource> helper_kernels() {
  return {quantize_kernel(DType::bf16, DType::e4m3, {1, 128}), quantize_kernel(DType::bf16, DType::e4m3, {128, 128}),
          transpose_kernel()};
}

/// Of a product's key, or of the helper kernel with that number.
nb::dict compile_kernel(const std::variant<Key, std::size_t>& which) {
  CompileReport report;
  {
    const nb::gil_scoped_release no_gil;
    Context& context = context_of({});
    if (const Key* key = std::get_if<Key>(&which)) {
      report = compile(context, config_of(*key));
    } else {
      const jit::KernelSource source = helper_kernels().at(std::get<std::size_t>(which));
      const jit::Binary binary = context.impl().store.get(source);
      report = {source.entry, binary.compiler, binary.cached, binary.seconds, binary.registers, binary.spill_bytes};
    }
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
    set_python_error(error);
  }
}

// Never destroyed: what they hold outlives the interpreter. Places of arguments are those in the signatures of
// python/deep_gemm/_gemm.py and _grouped.py.
DirectFunction& direct_gemm = *new DirectFunction;
DirectFunction& direct_contiguous = *new DirectFunction;
DirectFunction& direct_masked = *new DirectFunction;

PyObject* call_gemm(PyObject*, PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  return direct_gemm.call(given, count, keywords, [](const DirectArguments& of) {
    if (!of[9].is_none()) return false;
    return gemm(of[0], of[1], of[2], of[3], of[4], of[5], of[6], of[10], of[11]);
  });
}

PyObject* call_contiguous(PyObject*, PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  return direct_contiguous.call(given, count, keywords, [](const DirectArguments& of) {
    const bool psum = of.is_true(9, false);
    const int alignment = mk_alignment.load(std::memory_order_relaxed);
    if (!psum && alignment % get_m_alignment_for_contiguous_layout() != 0) return false;
    if (of[3].is_none() == of[14].is_none()) return false;  // two names of one argument
    const nb::handle groups_of = of[3].is_none() ? of[14] : of[3];
    return m_grouped(psum ? Layout::offsets : Layout::contiguous, of[0], of[1], of[2], groups_of, 0,
                     psum ? alignment : 1, psum && of.is_true(10, true), of[4], of[5], of[6], of[12], of[13]);
  });
}

PyObject* call_masked(PyObject*, PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  return direct_masked.call(given, count, keywords, [](const DirectArguments& of) {
    return m_grouped(Layout::masked, of[0], of[1], of[2], of[3], nb::cast<int64_t>(of[4]), 1, false, of[5], of[6],
                     of[7], of[10], of[11]);
  });
}

nb::object direct(nb::object python, const std::string& doc) {
  const auto name = nb::cast<std::string>(python.attr("__name__"));
  if (name == "fp8_gemm_nt") return direct_gemm.make(std::move(python), doc, call_gemm);
  if (name == "m_grouped_fp8_gemm_nt_contiguous")
    return direct_contiguous.make(std::move(python), doc, call_contiguous);
  if (name == "m_grouped_fp8_gemm_nt_masked") return direct_masked.make(std::move(python), doc, call_masked);
  throw nb::value_error(name.c_str());
}

}  // namespace

NB_MODULE(_C, module) {
  nb::register_exception_translator(translate);
  module.attr("version") = DG_VERSION;
  nb::class_<Parts>(module, "Parts")
      .def(nb::init<std::uintptr_t, std::string, std::vector<int64_t>, std::vector<int64_t>, int>(), "address"_a,
           "dtype"_a, "shape"_a, "strides"_a, "ordinal"_a);
  module.def("register_torch", &register_torch, "base"_a, "exact"_a);
  module.def("fp8_gemm_nt", &gemm, "a"_a.none(), "b"_a.none(), "d"_a.none(), "c"_a.none(), "recipe"_a.none(),
             "recipe_a"_a.none(), "recipe_b"_a.none(), "dtype"_a.none(), "stream"_a.none());
  module.def("direct", &direct, "python"_a, "doc"_a);
  module.def("k_grouped", &k_grouped, "a"_a.none(), "b"_a.none(), "d"_a.none(), "ks"_a, "c"_a.none(), "recipe"_a.none(),
             "dtype"_a.none(), "stream"_a.none());
  nb::enum_<Layout>(module, "Layout")
      .value("dense", Layout::dense)
      .value("contiguous", Layout::contiguous)
      .value("offsets", Layout::offsets)
      .value("masked", Layout::masked)
      .value("k_grouped", Layout::k_grouped);
  module.def("m_grouped", &m_grouped, "layout"_a, "a"_a.none(), "b"_a.none(), "d"_a.none(), "groups_of"_a.none(),
             "expected_m"_a, "alignment"_a, "zero_padding"_a, "recipe"_a.none(), "recipe_a"_a.none(),
             "recipe_b"_a.none(), "dtype"_a.none(), "stream"_a.none());
  module.def("quantize", &quantize, "rows_per_scale"_a, "cols_per_scale"_a, "x"_a.none(), "out"_a.none(),
             "scale"_a.none(), "power_of_two"_a, "dtype"_a.none(), "stream"_a.none());
  module.def("get_num_sms", [] { return num_sms.load(); });
  module.def("set_num_sms", [](int value) { num_sms = value; });
  module.def("set_mk_alignment", [](int value) { mk_alignment = value; });
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
  module.def("helper_kernels", [] { return helper_kernels().size(); });
  module.def("compile", &compile_kernel, "which"_a);
}

}  // namespace deep_gemm::python
