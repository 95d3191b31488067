/* The calls of <deep_gemm/gemm.h> for C (C99) and every language that can call C.
 *
 * Nothing here throws, prints or ends the process. A function that can fail returns a status and, where `error` is not
 * null, sets `*error` to what happened, for the caller to read and free, or to null where all went well. Errors belong
 * to the call that made them: threads that share a context do not see each other's.
 *
 * Structures that may grow begin with their `size` in bytes, as the caller's compiler knows it; fields that are zero
 * have their default, so programs built with an older header run with a newer library. A library that is older than the
 * program refuses fields that it does not know unless they are zero. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define DEEP_GEMM_NOEXCEPT noexcept
extern "C" {
#else
#define DEEP_GEMM_NOEXCEPT
#endif

typedef enum deep_gemm_status {
  DEEP_GEMM_OK = 0,
  DEEP_GEMM_INVALID_ARGUMENT = 1, /**< shape, dtype, stride, alignment, device or option: nothing was written */
  DEEP_GEMM_UNAVAILABLE = 2,      /**< something this machine lacks: driver, GPU, compiler */
  DEEP_GEMM_CUDA = 3,             /**< the CUDA driver refused a call */
  DEEP_GEMM_COMPILER = 4,         /**< a kernel did not compile */
  DEEP_GEMM_IO = 5,               /**< a file could not be read or written */
  DEEP_GEMM_OUT_OF_MEMORY = 6,    /**< of the host */
  DEEP_GEMM_INTERNAL = 7          /**< a defect of the library */
} deep_gemm_status;

/** What went wrong, in words: one line with function, argument, given, expected and rule, or a compiler's log. */
typedef struct deep_gemm_error deep_gemm_error;
/** Never null; valid until the error is freed. "" for null. */
const char* deep_gemm_error_message(const deep_gemm_error* error) DEEP_GEMM_NOEXCEPT;
/** Null is allowed. */
void deep_gemm_error_free(deep_gemm_error* error) DEEP_GEMM_NOEXCEPT;

/** "0.1.0" */
const char* deep_gemm_version(void) DEEP_GEMM_NOEXCEPT;
/** Frees a text that the library returned. Null is allowed. */
void deep_gemm_text_free(char* text) DEEP_GEMM_NOEXCEPT;

/** Initialisers of deep_gemm_data_type, with DLPack's codes. */
/* clang-format off */
#define DEEP_GEMM_E4M3 {10, 8, 1}
#define DEEP_GEMM_E5M2 {12, 8, 1}
#define DEEP_GEMM_BF16 {4, 16, 1}
#define DEEP_GEMM_F16 {2, 16, 1}
#define DEEP_GEMM_F32 {2, 32, 1}
#define DEEP_GEMM_I32 {0, 32, 1}
/* clang-format on */
/** DLDataType */
typedef struct deep_gemm_data_type {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes; /**< 1 */
} deep_gemm_data_type;

/** Values of deep_gemm_device.type, DLPack's. */
enum { DEEP_GEMM_CPU = 1, DEEP_GEMM_CUDA_DEVICE = 2 };
/** DLDevice */
typedef struct deep_gemm_device {
  int32_t type;
  int32_t index; /**< the CUDA ordinal; 0 on the CPU */
} deep_gemm_device;

/** A view of memory that the caller owns. Layout and fields are those of DLPack's DLTensor, so a pointer to one may be
 * passed. One to three dimensions; nothing is read through it after the call that it was given to. Zeroed it stands for
 * no tensor, as a null pointer to one does. */
typedef struct deep_gemm_tensor {
  void* data;
  deep_gemm_device device;
  int32_t ndim;
  deep_gemm_data_type dtype;
  const int64_t* shape;   /**< [ndim], elements */
  const int64_t* strides; /**< [ndim], elements (not bytes); null: row-major without gaps */
  uint64_t byte_offset;   /**< from `data` to the first element */
} deep_gemm_tensor;

/** FP8 values and their FP32 scales; a null `scale` stands for unit scales. */
typedef struct deep_gemm_fp8_tensor {
  const deep_gemm_tensor* data;
  const deep_gemm_tensor* scale;
} deep_gemm_fp8_tensor;

enum { DEEP_GEMM_COMPILER_AUTOMATIC = 0, DEEP_GEMM_COMPILER_NVRTC = 1, DEEP_GEMM_COMPILER_NVCC = 2 };
enum { DEEP_GEMM_LOG_DEBUG = 0, DEEP_GEMM_LOG_INFO = 1, DEEP_GEMM_LOG_WARNING = 2 };

typedef struct deep_gemm_context_options {
  size_t size;
  /** Directories of the kernel cache in order of search, ended by a null pointer; null: as the environment says. */
  const char* const* cache_dirs;
  int32_t compiler; /**< DEEP_GEMM_COMPILER_… */
  int32_t reserved; /**< 0 */
  /** Receives what the library has to say; may be called from several threads at once. Null: nothing is said. */
  void (*log)(void* user, int32_t level, const char* text);
  void* log_user;
} deep_gemm_context_options;
/* clang-format off */
#define DEEP_GEMM_CONTEXT_OPTIONS_INIT {sizeof(deep_gemm_context_options), 0, 0, 0, 0, 0}
/* clang-format on */

/** deep_gemm::Context: a device with its kernels. Any number of threads may use one at once. */
typedef struct deep_gemm_context deep_gemm_context;
/** `options` may be null. */
deep_gemm_status deep_gemm_context_create(deep_gemm_device device, const deep_gemm_context_options* options,
                                          deep_gemm_context** context, deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;
/** No call may be using it; null is allowed. Work that was enqueued on a stream goes on. */
void deep_gemm_context_destroy(deep_gemm_context* context) DEEP_GEMM_NOEXCEPT;

/** deep_gemm::Recipe: how many rows of A and of B, and how many columns of both, share a scale: {1, 128, 128}, which
 * {0, 0, 0} stands for, or {1, 1, 128}. */
typedef struct deep_gemm_recipe {
  int32_t rows_a;
  int32_t rows_b;
  int32_t cols;
} deep_gemm_recipe;

typedef struct deep_gemm_gemm_options {
  size_t size;
  void* stream;                /**< CUstream or cudaStream_t; null: the default stream */
  const deep_gemm_tensor* c;   /**< D = C + A·Bᵀ; D's dtype and shape, may be D itself. Null: D = A·Bᵀ */
  int32_t num_sms;             /**< at most so many; 0: all */
  int32_t programmatic_launch; /**< 1: the kernel may start before the stream's previous one ends */
  const char* config;          /**< run this kernel: JSON as deep_gemm_plan gives it. Null: the plan's choice */
  /** Scratch memory of at least deep_gemm_workspace_bytes(), not used by other calls until this one has run: rank 1, any
   * dtype, 16-byte aligned, on the context's device. Null: stream-ordered allocation. */
  const deep_gemm_tensor* workspace;
  deep_gemm_recipe recipe;
  int32_t batch_invariant;      /**< 1: a row's bits depend neither on m and other rows nor on the number of SMs */
  int32_t weights_are_constant; /**< 1, with programmatic_launch: nothing that may still run writes B or its scales */
  int32_t reserved;             /**< 0 */
} deep_gemm_gemm_options;
/* clang-format off */
#define DEEP_GEMM_GEMM_OPTIONS_INIT {sizeof(deep_gemm_gemm_options), 0, 0, 0, 0, 0, 0, {0, 0, 0}, 0, 0, 0}
/* clang-format on */

/** deep_gemm::fp8_gemm_nt: D = A·Bᵀ (+ C). A is [m, k], B [n, k], D [m, n]; what they may be stands in gemm.h. `options`
 * may be null. */
deep_gemm_status deep_gemm_fp8_gemm_nt(deep_gemm_context* context, const deep_gemm_fp8_tensor* a,
                                       const deep_gemm_fp8_tensor* b, const deep_gemm_tensor* d,
                                       const deep_gemm_gemm_options* options,
                                       deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;

typedef struct deep_gemm_grouped_options {
  size_t size;
  void* stream;
  const deep_gemm_tensor* workspace; /**< this and the next five: as in deep_gemm_gemm_options */
  const char* config;
  int32_t num_sms;
  int32_t programmatic_launch;
  int32_t batch_invariant;
  int32_t weights_are_constant;
  int32_t alignment;    /**< offsets: groups start at multiples of this, 1 to 2^20; 0: 1 */
  int32_t zero_padding; /**< 1, offsets: rows of D between a group's end and that multiple become zeros */
} deep_gemm_grouped_options;
/* clang-format off */
#define DEEP_GEMM_GROUPED_OPTIONS_INIT {sizeof(deep_gemm_grouped_options), 0, 0, 0, 0, 0, 0, 0, 0, 0}
/* clang-format on */

/** deep_gemm::get_m_alignment_for_contiguous_layout: groups of the contiguous layout start at multiples of this many
 * rows. */
int64_t deep_gemm_get_m_alignment_for_contiguous_layout(void) DEEP_GEMM_NOEXCEPT;

/** The calls for a mixture of experts: for each group g, the rows of A that belong to it times B[g]ᵀ, in one launch. B is
 * [groups, n, k]. The last tensor before the options is int32 with stride 1, on the context's device; where that is a GPU
 * the host never reads it. `options` may be null.
 *
 * deep_gemm::m_grouped_fp8_gemm_nt_contiguous: A [m, k], D [m, n]; `m_indices` [m] has each row's group, -1 for padding. */
deep_gemm_status deep_gemm_m_grouped_fp8_gemm_nt_contiguous(deep_gemm_context* context, const deep_gemm_fp8_tensor* a,
                                                            const deep_gemm_fp8_tensor* b, const deep_gemm_tensor* d,
                                                            const deep_gemm_tensor* m_indices,
                                                            const deep_gemm_grouped_options* options,
                                                            deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;
/** deep_gemm::m_grouped_fp8_gemm_nt_offsets: A [m, k], D [m, n]; `ends` [groups] has the row after each group's last. */
deep_gemm_status deep_gemm_m_grouped_fp8_gemm_nt_offsets(deep_gemm_context* context, const deep_gemm_fp8_tensor* a,
                                                         const deep_gemm_fp8_tensor* b, const deep_gemm_tensor* d,
                                                         const deep_gemm_tensor* ends,
                                                         const deep_gemm_grouped_options* options,
                                                         deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;
/** deep_gemm::m_grouped_fp8_gemm_nt_masked: A [groups, m_max, k], D [groups, m_max, n]; the first `masked_m[g]` rows of
 * each group are valid. `expected_m` ≥ 0 is a hint. */
deep_gemm_status deep_gemm_m_grouped_fp8_gemm_nt_masked(deep_gemm_context* context, const deep_gemm_fp8_tensor* a,
                                                        const deep_gemm_fp8_tensor* b, const deep_gemm_tensor* d,
                                                        const deep_gemm_tensor* masked_m, int64_t expected_m,
                                                        const deep_gemm_grouped_options* options,
                                                        deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;

/** deep_gemm::k_grouped_fp8_gemm_nt, for weight gradients: D[g] = C[g] + A_g·B_gᵀ, D and C [groups, m, n] FP32, where `ks`
 * [groups] on the host has each group's k. A and B are flat or strided, their scales 1×128: see gemm.h. `options` may be
 * null; its `c` left out: D itself. */
deep_gemm_status deep_gemm_k_grouped_fp8_gemm_nt(deep_gemm_context* context, const deep_gemm_fp8_tensor* a,
                                                 const deep_gemm_fp8_tensor* b, const deep_gemm_tensor* d,
                                                 const int32_t* ks, size_t groups,
                                                 const deep_gemm_gemm_options* options,
                                                 deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;

/** deep_gemm::workspace_bytes: `*bytes` receives how much scratch memory a call with these operands needs, 0 where none.
 * `recipe` may be null. */
deep_gemm_status deep_gemm_workspace_bytes(const deep_gemm_fp8_tensor* a, const deep_gemm_fp8_tensor* b,
                                           const deep_gemm_recipe* recipe, int64_t* bytes,
                                           deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;

typedef struct deep_gemm_quantize_options {
  size_t size;
  void* stream;
  int32_t rows_per_scale;      /**< 0 or 1: quantize_1x128; 128: quantize_128x128, or quantize_128x1 */
  int32_t power_of_two_scales; /**< 1: round scales up to powers of two */
  int32_t cols_per_scale;      /**< 0 or 128; with rows_per_scale = 128 also 1: quantize_128x1 */
  int32_t reserved;            /**< 0 */
} deep_gemm_quantize_options;
/* clang-format off */
#define DEEP_GEMM_QUANTIZE_OPTIONS_INIT {sizeof(deep_gemm_quantize_options), 0, 0, 0, 0, 0}
/* clang-format on */

/** deep_gemm::quantize_1x128, quantize_128x128 or quantize_128x1: writes x [rows, cols] as FP8 and FP32 scales to `out`,
 * whose scale may not be null. `options` may be null. */
deep_gemm_status deep_gemm_quantize(deep_gemm_context* context, const deep_gemm_tensor* x,
                                    const deep_gemm_fp8_tensor* out, const deep_gemm_quantize_options* options,
                                    deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;

/** deep_gemm::tma_aligned_rows: elements between two columns of the scales of `mn` rows that TMA can read. */
int64_t deep_gemm_tma_aligned_rows(int64_t mn) DEEP_GEMM_NOEXCEPT;
/** deep_gemm::to_mn_major_aligned: copies FP32 scales [mn, blocks] into the layout that fp8_gemm_nt takes for A as it
 * is: `out` [mn, blocks] with strides [1, pitch]. Both may have a first dimension more for groups. */
deep_gemm_status deep_gemm_to_mn_major_aligned(deep_gemm_context* context, const deep_gemm_tensor* scale,
                                               const deep_gemm_tensor* out, void* stream,
                                               deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;

/** deep_gemm::plan, which needs no GPU. `problem` is JSON, {"m": 64, "n": 2112, "k": 7168}, and may have any other field
 * of deep_gemm::Problem; `device` is "h100", "h200" or "h800". `*plan` receives JSON: config, launch, estimate_us, reason
 * and runners_up; free it with deep_gemm_text_free. */
deep_gemm_status deep_gemm_plan(const char* problem, const char* device, char** plan,
                                deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;

/** deep_gemm::compile: puts the kernel of `config`, JSON as in a plan, into the context's cache. Needs no GPU. `report`,
 * if not null, receives JSON: name, compiler, cached, seconds, registers, spill_bytes. */
deep_gemm_status deep_gemm_compile(deep_gemm_context* context, const char* config, char** report,
                                   deep_gemm_error** error) DEEP_GEMM_NOEXCEPT;

#ifdef __cplusplus
}
#endif
