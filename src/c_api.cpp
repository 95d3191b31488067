// The C API: arguments become those of gemm.h, exceptions become a status and an error handle. No logic of its own.
#include <deep_gemm/c_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include <deep_gemm/gemm.h>

#include "config_json.h"
#include "text.h"

struct deep_gemm_error {
  std::string message;
};

struct deep_gemm_context {
  deep_gemm::Context context;
};

namespace deep_gemm {
namespace {

// What is handed out where there is no memory for anything else; short enough to need none itself.
deep_gemm_error out_of_memory{"out of memory"};

deep_gemm_status report(deep_gemm_error** error, deep_gemm_status status, const char* message) noexcept {
  if (!error) return status;
  try {
    *error = new deep_gemm_error{message};
  } catch (const std::bad_alloc&) {
    *error = &out_of_memory;
  }
  return status;
}

deep_gemm_status status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return DEEP_GEMM_INVALID_ARGUMENT;
    case ErrorCode::unavailable:
      return DEEP_GEMM_UNAVAILABLE;
    case ErrorCode::cuda:
      return DEEP_GEMM_CUDA;
    case ErrorCode::compiler:
      return DEEP_GEMM_COMPILER;
    case ErrorCode::io:
      return DEEP_GEMM_IO;
  }
  return DEEP_GEMM_INTERNAL;
}

template <class Call>
deep_gemm_status guarded(deep_gemm_error** error, Call&& call) noexcept {
  if (error) *error = nullptr;
  try {
    call();
    return DEEP_GEMM_OK;
  } catch (const Error& e) {
    return report(error, status_of(e.code()), e.what());
  } catch (const std::bad_alloc&) {
    if (error) *error = &out_of_memory;
    return DEEP_GEMM_OUT_OF_MEMORY;
  } catch (const std::exception& e) {
    return report(error, DEEP_GEMM_INTERNAL, e.what());
  } catch (...) {
    return report(error, DEEP_GEMM_INTERNAL, "unknown exception");
  }
}

/// `*pointer`, which the caller must have given.
template <class T>
T& given(const char* function, const char* name, T* pointer) {
  if (!pointer) fail(ErrorCode::invalid_argument, "{}: {} is null", function, name);
  return *pointer;
}

/// The caller's structure, which may be of an older or a newer header than the library's.
template <class Options>
Options known_options(const char* function, const Options* options, Options known) {
  if (!options) return known;
  const std::size_t size = options->size, shared = std::min(size, sizeof(Options));
  if (size < sizeof(std::size_t))
    fail(ErrorCode::invalid_argument, "{}: options.size is {}, expected the size of the structure, {}", function, size,
         sizeof(Options));
  const char* bytes = reinterpret_cast<const char*>(options);
  if (std::any_of(bytes + shared, bytes + size, [](char byte) { return byte != 0; }))
    fail(ErrorCode::invalid_argument,
         "{}: options has fields that are set and that this library does not know: it is {} bytes long, expected at "
         "most {}",
         function, size, sizeof(Options));
  std::memcpy(&known, options, shared);
  if constexpr (requires { known.reserved; })
    if (known.reserved != 0)
      fail(ErrorCode::invalid_argument, "{}: options.reserved is {}, expected 0", function, known.reserved);
  return known;
}

DType dtype_of(const char* function, const char* name, const deep_gemm_data_type& type) {
  constexpr std::pair<deep_gemm_data_type, DType> kTypes[] = {
      {DEEP_GEMM_E4M3, DType::e4m3}, {DEEP_GEMM_E5M2, DType::e5m2}, {DEEP_GEMM_BF16, DType::bf16},
      {DEEP_GEMM_F16, DType::f16},   {DEEP_GEMM_F32, DType::f32},   {DEEP_GEMM_I32, DType::i32}};
  for (const auto& [known, dtype] : kTypes)
    if (type.code == known.code && type.bits == known.bits && type.lanes == known.lanes) return dtype;
  fail(ErrorCode::invalid_argument,
       "{}: {} has DLPack's type code {} with {} bits and {} lanes, expected one of DEEP_GEMM_E4M3, E5M2, BF16, F16, "
       "F32, I32",
       function, name, type.code, type.bits, type.lanes);
}

Device device_of(const char* function, const char* name, const deep_gemm_device& device) {
  if (device.type != DEEP_GEMM_CPU && device.type != DEEP_GEMM_CUDA_DEVICE)
    fail(ErrorCode::invalid_argument, "{}: {} has DLPack's device type {}, expected 1 (CPU) or 2 (CUDA)", function,
         name, device.type);
  return {device.type == DEEP_GEMM_CPU ? DeviceType::cpu : DeviceType::cuda, device.index};
}

/// A null pointer and a zeroed struct are no tensor; the call itself says where that is wrong.
TensorView view_of(const char* function, const char* name, const deep_gemm_tensor* tensor) {
  TensorView view;
  if (!tensor || (tensor->ndim == 0 && !tensor->data)) return view;
  if (tensor->ndim < 1 || tensor->ndim > TensorView::kMaxRank)
    fail(ErrorCode::invalid_argument, "{}: {} has {} dimensions, expected 1 to {}", function, name, tensor->ndim,
         TensorView::kMaxRank);
  if (!tensor->shape) fail(ErrorCode::invalid_argument, "{}: {}.shape is null", function, name);
  view.data = tensor->data ? static_cast<std::byte*>(tensor->data) + tensor->byte_offset : nullptr;
  view.dtype = dtype_of(function, name, tensor->dtype);
  view.device = device_of(function, name, tensor->device);
  view.rank = tensor->ndim;
  std::copy_n(tensor->shape, view.rank, view.shape.begin());
  int64_t stride = 1;
  for (auto i = static_cast<std::size_t>(view.rank); i-- > 0;) {
    view.strides[i] = tensor->strides ? tensor->strides[i] : stride;
    // Extents that overflow are refused by the call's own check, whatever the strides.
    if (__builtin_mul_overflow(stride, std::max<int64_t>(view.shape[i], 1), &stride)) stride = 0;
  }
  return view;
}

Fp8Tensor fp8_of(const char* function, const char* name, const char* scale_name, const deep_gemm_fp8_tensor* tensor) {
  const deep_gemm_fp8_tensor& pair = given(function, name, tensor);
  return {view_of(function, name, pair.data), view_of(function, scale_name, pair.scale)};
}

char* text_of(const nlohmann::ordered_json& json) {
  const std::string text = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  const auto copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (!copy) throw std::bad_alloc();
  std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

GemmConfig config_of(const char* function, const char* text) {
  const std::vector<GemmConfig> configs = configs_from_text(text);
  if (configs.size() != 1)
    fail(ErrorCode::invalid_argument, "{}: config is an array of {}, expected one", function, configs.size());
  return configs.front();
}

Recipe recipe_of(const deep_gemm_recipe& recipe) {
  if (recipe.rows_a == 0 && recipe.rows_b == 0 && recipe.cols == 0) return {};
  return {recipe.rows_a, recipe.rows_b, recipe.cols};
}

GemmOptions options_of(const char* function, const deep_gemm_gemm_options* options) {
  const auto known = known_options(function, options, deep_gemm_gemm_options DEEP_GEMM_GEMM_OPTIONS_INIT);
  GemmOptions converted{.stream = {known.stream},
                        .recipe = recipe_of(known.recipe),
                        .num_sms = known.num_sms,
                        .batch_invariant = known.batch_invariant != 0,
                        .programmatic_launch = known.programmatic_launch != 0,
                        .weights_are_constant = known.weights_are_constant != 0,
                        .workspace = view_of(function, "workspace", known.workspace)};
  if (known.c) converted.c = view_of(function, "c", known.c);
  if (known.config) converted.config = config_of(function, known.config);
  return converted;
}

GroupedOptions options_of(const char* function, const deep_gemm_grouped_options* options) {
  const auto known = known_options(function, options, deep_gemm_grouped_options DEEP_GEMM_GROUPED_OPTIONS_INIT);
  GroupedOptions converted{.stream = {known.stream},
                           .num_sms = known.num_sms,
                           .programmatic_launch = known.programmatic_launch != 0,
                           .batch_invariant = known.batch_invariant != 0,
                           .weights_are_constant = known.weights_are_constant != 0,
                           .workspace = view_of(function, "workspace", known.workspace),
                           .alignment = known.alignment == 0 ? 1 : known.alignment,
                           .zero_padding = known.zero_padding != 0};
  if (known.config) converted.config = config_of(function, known.config);
  return converted;
}

DeviceInfo device_info(const char* function, const std::string& name) {
  if (name == "h100") return DeviceInfo::h100();
  if (name == "h200") return DeviceInfo::h200();
  if (name == "h800") return DeviceInfo::h800();
  fail(ErrorCode::invalid_argument, "{}: device is '{}', expected h100, h200 or h800", function, name);
}

}  // namespace
}  // namespace deep_gemm

using namespace deep_gemm;

const char* deep_gemm_error_message(const deep_gemm_error* error) noexcept {
  return error ? error->message.c_str() : "";
}

void deep_gemm_error_free(deep_gemm_error* error) noexcept {
  if (error != &out_of_memory) delete error;
}

const char* deep_gemm_version() noexcept { return DG_VERSION; }

void deep_gemm_text_free(char* text) noexcept { std::free(text); }

deep_gemm_status deep_gemm_context_create(deep_gemm_device device, const deep_gemm_context_options* options,
                                          deep_gemm_context** context, deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    constexpr const char* kFunction = "deep_gemm_context_create";
    given(kFunction, "context", context) = nullptr;
    const auto known = known_options(kFunction, options, deep_gemm_context_options DEEP_GEMM_CONTEXT_OPTIONS_INIT);
    ContextOptions converted;
    for (const char* const* dir = known.cache_dirs; dir && *dir; ++dir) converted.cache_dirs.emplace_back(*dir);
    if (known.compiler < DEEP_GEMM_COMPILER_AUTOMATIC || known.compiler > DEEP_GEMM_COMPILER_NVCC)
      fail(ErrorCode::invalid_argument, "{}: options.compiler is {}, expected 0 (automatic), 1 (NVRTC) or 2 (nvcc)",
           kFunction, known.compiler);
    converted.compiler = static_cast<CompilerChoice>(known.compiler);
    if (known.log)
      converted.log = [log = known.log, user = known.log_user](LogLevel level, const std::string& text) {
        log(user, static_cast<int32_t>(level), text.c_str());
      };
    *context = new deep_gemm_context{.context = Context(device_of(kFunction, "device", device), std::move(converted))};
  });
}

void deep_gemm_context_destroy(deep_gemm_context* context) noexcept { delete context; }

deep_gemm_status deep_gemm_fp8_gemm_nt(deep_gemm_context* context, const deep_gemm_fp8_tensor* a,
                                       const deep_gemm_fp8_tensor* b, const deep_gemm_tensor* d,
                                       const deep_gemm_gemm_options* options, deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    constexpr const char* kFunction = "fp8_gemm_nt";
    fp8_gemm_nt(given(kFunction, "context", context).context, fp8_of(kFunction, "a", "scale_a", a),
                fp8_of(kFunction, "b", "scale_b", b), view_of(kFunction, "d", d), options_of(kFunction, options));
  });
}

int64_t deep_gemm_get_m_alignment_for_contiguous_layout() noexcept { return get_m_alignment_for_contiguous_layout(); }

deep_gemm_status deep_gemm_m_grouped_fp8_gemm_nt_contiguous(deep_gemm_context* context, const deep_gemm_fp8_tensor* a,
                                                            const deep_gemm_fp8_tensor* b, const deep_gemm_tensor* d,
                                                            const deep_gemm_tensor* m_indices,
                                                            const deep_gemm_grouped_options* options,
                                                            deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    constexpr const char* kFunction = "m_grouped_fp8_gemm_nt_contiguous";
    m_grouped_fp8_gemm_nt_contiguous(given(kFunction, "context", context).context, fp8_of(kFunction, "a", "scale_a", a),
                                     fp8_of(kFunction, "b", "scale_b", b), view_of(kFunction, "d", d),
                                     view_of(kFunction, "m_indices", m_indices), options_of(kFunction, options));
  });
}

deep_gemm_status deep_gemm_m_grouped_fp8_gemm_nt_offsets(deep_gemm_context* context, const deep_gemm_fp8_tensor* a,
                                                         const deep_gemm_fp8_tensor* b, const deep_gemm_tensor* d,
                                                         const deep_gemm_tensor* ends,
                                                         const deep_gemm_grouped_options* options,
                                                         deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    constexpr const char* kFunction = "m_grouped_fp8_gemm_nt_offsets";
    m_grouped_fp8_gemm_nt_offsets(given(kFunction, "context", context).context, fp8_of(kFunction, "a", "scale_a", a),
                                  fp8_of(kFunction, "b", "scale_b", b), view_of(kFunction, "d", d),
                                  view_of(kFunction, "ends", ends), options_of(kFunction, options));
  });
}

deep_gemm_status deep_gemm_m_grouped_fp8_gemm_nt_masked(deep_gemm_context* context, const deep_gemm_fp8_tensor* a,
                                                        const deep_gemm_fp8_tensor* b, const deep_gemm_tensor* d,
                                                        const deep_gemm_tensor* masked_m, int64_t expected_m,
                                                        const deep_gemm_grouped_options* options,
                                                        deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    constexpr const char* kFunction = "m_grouped_fp8_gemm_nt_masked";
    m_grouped_fp8_gemm_nt_masked(given(kFunction, "context", context).context, fp8_of(kFunction, "a", "scale_a", a),
                                 fp8_of(kFunction, "b", "scale_b", b), view_of(kFunction, "d", d),
                                 view_of(kFunction, "masked_m", masked_m), expected_m, options_of(kFunction, options));
  });
}

deep_gemm_status deep_gemm_k_grouped_fp8_gemm_nt(deep_gemm_context* context, const deep_gemm_fp8_tensor* a,
                                                 const deep_gemm_fp8_tensor* b, const deep_gemm_tensor* d,
                                                 const int32_t* ks, size_t groups,
                                                 const deep_gemm_gemm_options* options,
                                                 deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    constexpr const char* kFunction = "k_grouped_fp8_gemm_nt";
    if (groups != 0) given(kFunction, "ks", ks);
    k_grouped_fp8_gemm_nt(given(kFunction, "context", context).context, fp8_of(kFunction, "a", "scale_a", a),
                          fp8_of(kFunction, "b", "scale_b", b), view_of(kFunction, "d", d), {ks, groups},
                          options_of(kFunction, options));
  });
}

deep_gemm_status deep_gemm_workspace_bytes(const deep_gemm_fp8_tensor* a, const deep_gemm_fp8_tensor* b,
                                           const deep_gemm_recipe* recipe, int64_t* bytes,
                                           deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    constexpr const char* kFunction = "workspace_bytes";
    given(kFunction, "bytes", bytes) = 0;
    *bytes = workspace_bytes(fp8_of(kFunction, "a", "scale_a", a), fp8_of(kFunction, "b", "scale_b", b),
                             recipe ? recipe_of(*recipe) : Recipe{});
  });
}

deep_gemm_status deep_gemm_quantize(deep_gemm_context* context, const deep_gemm_tensor* x,
                                    const deep_gemm_fp8_tensor* out, const deep_gemm_quantize_options* options,
                                    deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    const auto known = known_options("quantize", options, deep_gemm_quantize_options DEEP_GEMM_QUANTIZE_OPTIONS_INIT);
    const int rows = known.rows_per_scale == 0 ? 1 : known.rows_per_scale;
    const int cols = known.cols_per_scale == 0 ? 128 : known.cols_per_scale;
    using Call = void(Context&, const TensorView&, const Fp8Tensor&, const QuantizeOptions&);
    Call* call = nullptr;
    const char* function = nullptr;
    if (rows == 1 && cols == 128)
      call = quantize_1x128, function = "quantize_1x128";
    else if (rows == 128 && cols == 128)
      call = quantize_128x128, function = "quantize_128x128";
    else if (rows == 128 && cols == 1)
      call = quantize_128x1, function = "quantize_128x1";
    else
      fail(
          ErrorCode::invalid_argument,
          "quantize: options.rows_per_scale is {} and cols_per_scale {}, expected 1 and 128, 128 and 128, or 128 and 1",
          rows, cols);
    call(given(function, "context", context).context, view_of(function, "x", x),
         fp8_of(function, "out.data", "out.scale", out),
         {.stream = {known.stream}, .power_of_two_scales = known.power_of_two_scales != 0});
  });
}

int64_t deep_gemm_tma_aligned_rows(int64_t mn) noexcept { return tma_aligned_rows(mn); }

deep_gemm_status deep_gemm_to_mn_major_aligned(deep_gemm_context* context, const deep_gemm_tensor* scale,
                                               const deep_gemm_tensor* out, void* stream,
                                               deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    constexpr const char* kFunction = "to_mn_major_aligned";
    to_mn_major_aligned(given(kFunction, "context", context).context, view_of(kFunction, "scale", scale),
                        view_of(kFunction, "out", out), {stream});
  });
}

deep_gemm_status deep_gemm_plan(const char* problem, const char* device, char** plan_text,
                                deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    constexpr const char* kFunction = "deep_gemm_plan";
    char*& out = given(kFunction, "plan", plan_text) = nullptr;
    const Problem asked = problem_from_text(&given(kFunction, "problem", problem));
    out = text_of(to_json(plan(asked, device_info(kFunction, &given(kFunction, "device", device)))));
  });
}

deep_gemm_status deep_gemm_compile(deep_gemm_context* context, const char* config, char** report_text,
                                   deep_gemm_error** error) noexcept {
  return guarded(error, [&] {
    constexpr const char* kFunction = "deep_gemm_compile";
    if (report_text) *report_text = nullptr;
    Context& on = given(kFunction, "context", context).context;
    const CompileReport made = compile(on, config_of(kFunction, &given(kFunction, "config", config)));
    if (report_text)
      *report_text = text_of({{"name", made.name},
                              {"compiler", made.compiler},
                              {"cached", made.cached},
                              {"seconds", made.seconds},
                              {"registers", made.registers},
                              {"spill_bytes", made.spill_bytes}});
  });
}
