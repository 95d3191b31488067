/* The C API as a C program uses it: products checked element by element against a plain loop, errors that are read and
 * freed, threads that share a context. Prints what is wrong and ends with 1. */
#define _POSIX_C_SOURCE 200809L
#include <deep_gemm/c_api.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failures = 0;

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                     \
    }                                                                 \
  } while (0)

static const deep_gemm_device kCpu = {DEEP_GEMM_CPU, 0};
static const deep_gemm_data_type kE4m3 = DEEP_GEMM_E4M3, kE5m2 = DEEP_GEMM_E5M2, kBf16 = DEEP_GEMM_BF16,
                                 kF32 = DEEP_GEMM_F32, kI32 = DEEP_GEMM_I32;

/* The call succeeded and left no error. */
static void expect_ok(int line, deep_gemm_status status, deep_gemm_error* error) {
  if (status != DEEP_GEMM_OK || error != NULL) {
    fprintf(stderr, "line %d: status %d: %s\n", line, (int)status, deep_gemm_error_message(error));
    ++failures;
  }
  deep_gemm_error_free(error);
}
#define EXPECT_OK(call)                      \
  do {                                       \
    const deep_gemm_status status_ = (call); \
    expect_ok(__LINE__, status_, error);     \
    error = NULL;                            \
  } while (0)

/* The call failed with `expected`, and its text has all of `part` in it. */
static int is_error(int line, deep_gemm_status status, deep_gemm_error* error, deep_gemm_status expected,
                    const char* part) {
  const int good = status == expected && error != NULL && strstr(deep_gemm_error_message(error), part) != NULL;
  if (!good)
    fprintf(stderr, "line %d: status %d, expected %d: '%s' should contain '%s'\n", line, (int)status, (int)expected,
            deep_gemm_error_message(error), part);
  deep_gemm_error_free(error);
  return good;
}
#define EXPECT_ERROR(call, expected, part)                               \
  do {                                                                   \
    const deep_gemm_status status_ = (call);                             \
    failures += !is_error(__LINE__, status_, error, (expected), (part)); \
    error = NULL;                                                        \
  } while (0)

static uint32_t random_bits(uint32_t* state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 8;
}

static float e4m3_values[256], e5m2_values[256];

static float e4m3_by_definition(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float magnitude = exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf((float)(8 + mantissa), exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

/* Without infinities and NaNs, codes from 0x7c on. */
static float e5m2_by_definition(int code) {
  const int exponent = code >> 2 & 31, mantissa = code & 3;
  const float magnitude = exponent == 0 ? ldexpf((float)mantissa, -16) : ldexpf((float)(4 + mantissa), exponent - 17);
  return code & 0x80 ? -magnitude : magnitude;
}

static float e4m3_value(uint8_t code) { return e4m3_values[code]; }

static float bf16_value(uint16_t code) {
  const uint32_t bits = (uint32_t)code << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static deep_gemm_tensor matrix(void* data, deep_gemm_data_type dtype, const int64_t* shape, const int64_t* strides) {
  deep_gemm_tensor t = {data, {DEEP_GEMM_CPU, 0}, 2, {0, 0, 0}, shape, strides, 0};
  t.dtype = dtype;
  return t;
}

enum { kM = 37, kN = 150, kK = 300, kBlocks = 3, kPitch = 160 };

/* Operands of one product; their addresses are in the tensors, so it stays where it is. */
typedef struct Product {
  uint8_t a[kM * kK], b[kN * kK];
  float scale_a[kM * kBlocks], scale_b[kN * kBlocks], c[kM * kPitch];
  const float* values_a; /* what A's codes stand for */
  int rows_b;            /* rows of B that share a scale */
  int64_t shape_a[2], shape_b[2], shape_scale_a[2], shape_scale_b[2], shape_d[2], strides_d[2];
  deep_gemm_tensor data_a, data_b, tensor_scale_a, tensor_scale_b, tensor_c;
  deep_gemm_fp8_tensor fp8_a, fp8_b;
} Product;

static Product* new_product(uint32_t seed) {
  Product* p = calloc(1, sizeof *p);
  int i;
  if (p == NULL) abort();
  /* Every code but the two NaNs. */
  for (i = 0; i < kM * kK; ++i) p->a[i] = (uint8_t)((random_bits(&seed) % 127) | (random_bits(&seed) & 0x80));
  for (i = 0; i < kN * kK; ++i) p->b[i] = (uint8_t)((random_bits(&seed) % 127) | (random_bits(&seed) & 0x80));
  for (i = 0; i < kM * kBlocks; ++i) p->scale_a[i] = ldexpf(1 + (float)(random_bits(&seed) % 100) / 100, -9);
  for (i = 0; i < kN * kBlocks; ++i) p->scale_b[i] = ldexpf(1 + (float)(random_bits(&seed) % 100) / 100, -8);
  for (i = 0; i < kM * kPitch; ++i) p->c[i] = (float)(random_bits(&seed) % 1000) - 500;
  p->values_a = e4m3_values, p->rows_b = 128;
  p->shape_a[0] = kM, p->shape_a[1] = kK, p->shape_b[0] = kN, p->shape_b[1] = kK;
  p->shape_scale_a[0] = kM, p->shape_scale_a[1] = kBlocks, p->shape_scale_b[0] = 2, p->shape_scale_b[1] = kBlocks;
  p->shape_d[0] = kM, p->shape_d[1] = kN, p->strides_d[0] = kPitch, p->strides_d[1] = 1;
  p->data_a = matrix(p->a, kE4m3, p->shape_a, NULL);
  p->data_b = matrix(p->b, kE4m3, p->shape_b, NULL);
  p->tensor_scale_a = matrix(p->scale_a, kF32, p->shape_scale_a, NULL);
  p->tensor_scale_b = matrix(p->scale_b, kF32, p->shape_scale_b, NULL);
  p->tensor_c = matrix(p->c, kF32, p->shape_d, p->strides_d);
  p->fp8_a.data = &p->data_a, p->fp8_a.scale = &p->tensor_scale_a;
  p->fp8_b.data = &p->data_b, p->fp8_b.scale = &p->tensor_scale_b;
  return p;
}

/* How many of D's elements are not the product, or lie beyond it and were written. `d_f32` or `d_bf16` is [kM, kPitch],
 * filled with 0xee bytes before the call. */
static int wrong_elements(const Product* p, const float* d_f32, const uint16_t* d_bf16, int with_c) {
  int i, j, q, wrong = 0;
  for (i = 0; i < kM; ++i) {
    for (j = 0; j < kPitch; ++j) {
      const float got = d_f32 != NULL ? d_f32[i * kPitch + j] : bf16_value(d_bf16[i * kPitch + j]);
      double expected = with_c ? (double)p->c[i * kPitch + j] : 0, magnitude = fabs(expected), bound;
      if (j >= kN) {
        wrong += d_f32 != NULL ? memcmp(&d_f32[i * kPitch + j], "\xee\xee\xee\xee", 4) != 0
                               : d_bf16[i * kPitch + j] != 0xeeee;
        continue;
      }
      for (q = 0; q < kK; ++q) {
        const float x = p->values_a[p->a[i * kK + q]] *
                        (p->fp8_a.scale != NULL ? p->scale_a[i * kBlocks + q / 128] : 1),
                    y = e4m3_value(p->b[j * kK + q]) *
                        (p->fp8_b.scale != NULL ? p->scale_b[j / p->rows_b * kBlocks + q / 128] : 1);
        expected += (double)x * y, magnitude += fabs((double)x * y);
      }
      bound = magnitude * 1e-5 + (d_bf16 != NULL ? fabs(expected) / 256 : 0);
      wrong += !(fabs((double)got - expected) <= bound);
    }
  }
  return wrong;
}

static const deep_gemm_recipe kOneD1D = {1, 1, 128};

static void multiply(deep_gemm_context* context) {
  Product* p = new_product(1);
  float* d = malloc(sizeof(float) * kM * kPitch);
  uint16_t* d_bf16 = malloc(sizeof(uint16_t) * kM * kPitch);
  deep_gemm_tensor tensor_d = matrix(d, kF32, p->shape_d, p->strides_d);
  deep_gemm_gemm_options options = DEEP_GEMM_GEMM_OPTIONS_INIT;
  deep_gemm_error* error = NULL;
  int i;

  memset(d, 0xee, sizeof(float) * kM * kPitch);
  EXPECT_OK(deep_gemm_fp8_gemm_nt(context, &p->fp8_a, &p->fp8_b, &tensor_d, NULL, &error));
  CHECK(wrong_elements(p, d, NULL, 0) == 0);

  /* The judge is awake. */
  d[36 * kPitch + 149] *= 1.001f;
  CHECK(wrong_elements(p, d, NULL, 0) == 1);

  memset(d, 0xee, sizeof(float) * kM * kPitch);
  options.c = &p->tensor_c;
  EXPECT_OK(deep_gemm_fp8_gemm_nt(context, &p->fp8_a, &p->fp8_b, &tensor_d, &options, &error));
  CHECK(wrong_elements(p, d, NULL, 1) == 0);

  /* Older programs: one knows no more than the stream, one ends before the recipe. */
  options.recipe.rows_a = 77;
  memset(d, 0xee, sizeof(float) * kM * kPitch);
  options.size = offsetof(deep_gemm_gemm_options, c);
  EXPECT_OK(deep_gemm_fp8_gemm_nt(context, &p->fp8_a, &p->fp8_b, &tensor_d, &options, &error));
  CHECK(wrong_elements(p, d, NULL, 0) == 0);
  memset(d, 0xee, sizeof(float) * kM * kPitch);
  options.size = offsetof(deep_gemm_gemm_options, workspace);
  EXPECT_OK(deep_gemm_fp8_gemm_nt(context, &p->fp8_a, &p->fp8_b, &tensor_d, &options, &error));
  CHECK(wrong_elements(p, d, NULL, 1) == 0);

  /* A scale for each row of B, A in e5m2, and all that changes no result. */
  options.size = sizeof options, options.c = NULL;
  options.recipe = kOneD1D;
  options.batch_invariant = options.programmatic_launch = options.weights_are_constant = 1;
  options.num_sms = 7;
  p->rows_b = 1, p->shape_scale_b[0] = kN;
  p->values_a = e5m2_values, p->data_a.dtype = kE5m2;
  for (i = 0; i < kM * kK; ++i) p->a[i] = (uint8_t)(p->a[i] & 0x80) | (uint8_t)((p->a[i] & 0x7f) % 0x7c);
  memset(d, 0xee, sizeof(float) * kM * kPitch);
  EXPECT_OK(deep_gemm_fp8_gemm_nt(context, &p->fp8_a, &p->fp8_b, &tensor_d, &options, &error));
  CHECK(wrong_elements(p, d, NULL, 0) == 0);

  /* BF16, an offset to the first element, and no scales. */
  memset(d_bf16, 0xee, sizeof(uint16_t) * kM * kPitch);
  tensor_d = matrix((char*)d_bf16 - 64, kBf16, p->shape_d, p->strides_d);
  tensor_d.byte_offset = 64;
  p->fp8_a.scale = p->fp8_b.scale = NULL;
  EXPECT_OK(deep_gemm_fp8_gemm_nt(context, &p->fp8_a, &p->fp8_b, &tensor_d, NULL, &error));
  CHECK(wrong_elements(p, NULL, d_bf16, 0) == 0);
  free(d_bf16), free(d), free(p);
}

static void refuse(deep_gemm_context* context) {
  enum { kBytes = 4 * kM * kPitch };
  Product* p = new_product(2);
  unsigned char *d = malloc(kBytes), *untouched = malloc(kBytes);
  const int64_t wrong_shape[2] = {kM, kN + 1}, four[4] = {1, 1, 1, 1};
  const deep_gemm_tensor good = matrix(d, kF32, p->shape_d, p->strides_d);
  deep_gemm_tensor bad;
  deep_gemm_gemm_options options = DEEP_GEMM_GEMM_OPTIONS_INIT;
  struct {
    deep_gemm_gemm_options known;
    int newer;
  } future;
  deep_gemm_context_options context_options = DEEP_GEMM_CONTEXT_OPTIONS_INIT;
  deep_gemm_context* none = context;
  deep_gemm_error* error = NULL;
  const deep_gemm_device nowhere = {DEEP_GEMM_CUDA_DEVICE, 4321}, strange = {9, 0};
  memset(d, 0xee, kBytes), memset(untouched, 0xee, kBytes);

#define REFUSED(a, b, d, options, part) \
  EXPECT_ERROR(deep_gemm_fp8_gemm_nt(context, a, b, d, options, &error), DEEP_GEMM_INVALID_ARGUMENT, part)
  bad = good, bad.shape = wrong_shape;
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "fp8_gemm_nt: d is [37, 151], expected [37, 150]");
  bad = good, bad.ndim = 4, bad.shape = four, bad.strides = NULL;
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "fp8_gemm_nt: d has 4 dimensions, expected 1 to 3");
  bad = good, bad.ndim = -1;
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "d has -1 dimensions");
  bad = good, bad.ndim = 0;
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "d has 0 dimensions, expected 1 to 3");
  memset(&bad, 0, sizeof bad);
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "d has 0 dimensions, expected 2");
  bad = good, bad.shape = NULL;
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "d.shape is null");
  bad = good, bad.data = NULL;
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "d is a null pointer");
  bad = good, bad.dtype.lanes = 4;
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "d has DLPack's type code 2 with 32 bits and 4 lanes");
  bad = good, bad.device.type = 9;
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "d has DLPack's device type 9");
  bad = good, bad.device = nowhere;
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "d lies on cuda:4321, expected cpu");
  REFUSED(&p->fp8_a, &p->fp8_b, NULL, NULL, "d has 0 dimensions, expected 2");
  REFUSED(NULL, &p->fp8_b, &good, NULL, "fp8_gemm_nt: a is null");
  options.num_sms = -1;
  REFUSED(&p->fp8_a, &p->fp8_b, &good, &options, "num_sms is -1");
  options.num_sms = 0, options.config = "{\"tile_m\": }";
  REFUSED(&p->fp8_a, &p->fp8_b, &good, &options, "config: not JSON");
  options.config = "[]";
  REFUSED(&p->fp8_a, &p->fp8_b, &good, &options, "config");
  options.config = NULL, options.recipe.cols = 128;
  REFUSED(&p->fp8_a, &p->fp8_b, &good, &options, "recipe");
  options.recipe = kOneD1D;
  REFUSED(&p->fp8_a, &p->fp8_b, &good, &options, "scale_b is [2, 3], expected [150, 3]");
  options.recipe.rows_a = options.recipe.rows_b = options.recipe.cols = 0, options.workspace = &bad;
  bad.ndim = 4;
  REFUSED(&p->fp8_a, &p->fp8_b, &good, &options, "workspace has 4 dimensions, expected 1 to 3");
  options.workspace = NULL, options.reserved = 1;
  REFUSED(&p->fp8_a, &p->fp8_b, &good, &options, "options.reserved is 1, expected 0");
  options.reserved = 0, options.size = 0;
  REFUSED(&p->fp8_a, &p->fp8_b, &good, &options, "options.size is 0");
  /* A newer program: fields that the library does not know must be zero. */
  memset(&future, 0, sizeof future);
  future.known.size = sizeof future, future.newer = 1;
  REFUSED(&p->fp8_a, &p->fp8_b, &good, &future.known, "options has fields that are set");
  EXPECT_ERROR(deep_gemm_fp8_gemm_nt(NULL, &p->fp8_a, &p->fp8_b, &good, NULL, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "context is null");
  CHECK(memcmp(d, untouched, kBytes) == 0);
  future.newer = 0;
  EXPECT_OK(deep_gemm_fp8_gemm_nt(context, &p->fp8_a, &p->fp8_b, &good, &future.known, &error));

  /* Who does not want to know need not. */
  CHECK(deep_gemm_fp8_gemm_nt(context, &p->fp8_a, &p->fp8_b, NULL, NULL, NULL) == DEEP_GEMM_INVALID_ARGUMENT);
  CHECK(strcmp(deep_gemm_error_message(NULL), "") == 0);
  deep_gemm_error_free(NULL), deep_gemm_text_free(NULL), deep_gemm_context_destroy(NULL);

  EXPECT_ERROR(deep_gemm_context_create(nowhere, NULL, &none, &error), DEEP_GEMM_UNAVAILABLE, "");
  CHECK(none == NULL);
  EXPECT_ERROR(deep_gemm_context_create(strange, NULL, &none, &error), DEEP_GEMM_INVALID_ARGUMENT, "device type 9");
  context_options.compiler = 3;
  EXPECT_ERROR(deep_gemm_context_create(kCpu, &context_options, &none, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "options.compiler is 3");
  EXPECT_ERROR(deep_gemm_context_create(kCpu, NULL, NULL, &error), DEEP_GEMM_INVALID_ARGUMENT, "context is null");
  free(d), free(untouched), free(p);
}

enum { kGroups = 3, kMMax = 128, kRows = kGroups * kMMax, kGroupedN = 140, kGroupedK = 200, kGroupedBlocks = 2 };

/* Operands of a mixture of experts: [kRows, kGroupedK], or [kGroups, kMMax, kGroupedK], times [kGroups, kGroupedN,
 * kGroupedK]. `owner` is what a row of D is to be: a group's product, or untouched, or anything. */
enum { kUntouched = -1, kAnything = -2, kZeros = -3 };
typedef struct Experts {
  uint8_t a[kRows * kGroupedK], b[kGroups * kGroupedN * kGroupedK];
  float scale_a[kRows * kGroupedBlocks], scale_b[kGroups * 2 * kGroupedBlocks], d[kRows * kGroupedN];
  int32_t owner[kRows];
} Experts;

static Experts* new_experts(uint32_t seed) {
  Experts* e = calloc(1, sizeof *e);
  size_t i;
  if (e == NULL) abort();
  for (i = 0; i < sizeof e->a; ++i) e->a[i] = (uint8_t)((random_bits(&seed) % 127) | (random_bits(&seed) & 0x80));
  for (i = 0; i < sizeof e->b; ++i) e->b[i] = (uint8_t)((random_bits(&seed) % 127) | (random_bits(&seed) & 0x80));
  for (i = 0; i < kRows * kGroupedBlocks; ++i) e->scale_a[i] = ldexpf(1 + (float)(random_bits(&seed) % 100) / 100, -9);
  for (i = 0; i < kGroups * 2 * kGroupedBlocks; ++i)
    e->scale_b[i] = ldexpf(1 + (float)(random_bits(&seed) % 100) / 100, -8);
  memset(e->d, 0xee, sizeof e->d);
  for (i = 0; i < kRows; ++i) e->owner[i] = kUntouched;
  return e;
}

static void give(Experts* e, int32_t owner, int first, int count) {
  int i;
  for (i = first; i < first + count; ++i) e->owner[i] = owner;
}

/* How many elements of D are not what their row's owner makes them. D is forgotten for the next call. */
static int wrong_rows(Experts* e) {
  int i, j, q, wrong = 0;
  for (i = 0; i < kRows; ++i)
    for (j = 0; j < kGroupedN; ++j) {
      const float got = e->d[i * kGroupedN + j];
      const int32_t g = e->owner[i];
      double expected = 0, magnitude = 0;
      if (g == kUntouched) wrong += memcmp(&got, "\xee\xee\xee\xee", 4) != 0;
      for (q = 0; g >= 0 && q < kGroupedK; ++q) {
        const double product =
            (double)(e4m3_value(e->a[i * kGroupedK + q]) * e->scale_a[i * 2 + q / 128]) *
            (e4m3_value(e->b[(g * kGroupedN + j) * kGroupedK + q]) * e->scale_b[(g * 2 + j / 128) * 2 + q / 128]);
        expected += product, magnitude += fabs(product);
      }
      if (g >= 0 || g == kZeros) wrong += !(fabs((double)got - expected) <= magnitude * 1e-5);
    }
  memset(e->d, 0xee, sizeof e->d);
  for (i = 0; i < kRows; ++i) e->owner[i] = kUntouched;
  return wrong;
}

static deep_gemm_tensor tensor(void* data, deep_gemm_data_type dtype, int ndim, const int64_t* shape) {
  deep_gemm_tensor t = matrix(data, dtype, shape, NULL);
  t.ndim = ndim;
  return t;
}

static void multiply_experts(deep_gemm_context* context) {
  static const int64_t shape_a[] = {kRows, kGroupedK}, shape_scale_a[] = {kRows, kGroupedBlocks},
                       shape_b[] = {kGroups, kGroupedN, kGroupedK}, shape_scale_b[] = {kGroups, 2, kGroupedBlocks},
                       shape_d[] = {kRows, kGroupedN}, masked_a[] = {kGroups, kMMax, kGroupedK},
                       masked_scale_a[] = {kGroups, kMMax, kGroupedBlocks}, masked_d[] = {kGroups, kMMax, kGroupedN},
                       all_rows[] = {kRows}, all_groups[] = {kGroups}, four[] = {4};
  Experts* e = new_experts(4);
  int32_t indices[kRows], ends[kGroups] = {7, 7, 150}, counts[kGroups] = {65, 0, 128};
  deep_gemm_tensor data_a = tensor(e->a, kE4m3, 2, shape_a), scale_a = tensor(e->scale_a, kF32, 2, shape_scale_a),
                   data_b = tensor(e->b, kE4m3, 3, shape_b), scale_b = tensor(e->scale_b, kF32, 3, shape_scale_b),
                   d = tensor(e->d, kF32, 2, shape_d), rows = tensor(indices, kI32, 1, all_rows),
                   groups = tensor(ends, kI32, 1, all_groups), bad = groups;
  const deep_gemm_fp8_tensor a = {&data_a, &scale_a}, b = {&data_b, &scale_b};
  deep_gemm_grouped_options options = DEEP_GEMM_GROUPED_OPTIONS_INIT;
  deep_gemm_error* error = NULL;
  int i;

  /* Group 1 has no rows, group 2 begins at the next multiple of 128 after the 5 of group 0. */
  CHECK(deep_gemm_get_m_alignment_for_contiguous_layout() == kMMax);
  for (i = 0; i < kRows; ++i) indices[i] = i < 5 ? 0 : i >= 128 && i < 300 ? 2 : -1;
  for (i = 0; i < kRows; ++i) give(e, indices[i] >= 0 ? indices[i] : kAnything, i, 1);
  EXPECT_OK(deep_gemm_m_grouped_fp8_gemm_nt_contiguous(context, &a, &b, &d, &rows, NULL, &error));
  CHECK(wrong_rows(e) == 0);

  give(e, 0, 0, 7), give(e, 2, 7, 143);
  EXPECT_OK(deep_gemm_m_grouped_fp8_gemm_nt_offsets(context, &a, &b, &d, &groups, NULL, &error));
  /* The judge is awake. */
  e->d[149 * kGroupedN] *= 1.001f, e->d[150 * kGroupedN] = 0;
  CHECK(wrong_rows(e) == 2);
  options.alignment = 64, options.zero_padding = 1;
  options.batch_invariant = options.programmatic_launch = options.weights_are_constant = 1, options.num_sms = 3;
  give(e, 0, 0, 7), give(e, kZeros, 7, 57), give(e, 2, 64, 86), give(e, kZeros, 150, 42);
  EXPECT_OK(deep_gemm_m_grouped_fp8_gemm_nt_offsets(context, &a, &b, &d, &groups, &options, &error));
  CHECK(wrong_rows(e) == 0);
  /* An older program, which ends before the padding. */
  options.size = offsetof(deep_gemm_grouped_options, zero_padding);
  give(e, 0, 0, 7), give(e, 2, 64, 86);
  EXPECT_OK(deep_gemm_m_grouped_fp8_gemm_nt_offsets(context, &a, &b, &d, &groups, &options, &error));
  CHECK(wrong_rows(e) == 0);
  options.size = sizeof options;

#define OFFSETS_REFUSED(indices, options, part)                                                        \
  EXPECT_ERROR(deep_gemm_m_grouped_fp8_gemm_nt_offsets(context, &a, &b, &d, indices, options, &error), \
               DEEP_GEMM_INVALID_ARGUMENT, part)
  OFFSETS_REFUSED(NULL, NULL, "m_grouped_fp8_gemm_nt_offsets: ends has 0 dimensions, expected 1");
  groups.shape = four;
  OFFSETS_REFUSED(&groups, NULL, "ends is [4], expected [3] = [groups]");
  groups.shape = all_groups, groups.dtype = kF32;
  OFFSETS_REFUSED(&groups, NULL, "ends is f32, expected i32");
  groups.dtype = kI32, options.alignment = -1;
  OFFSETS_REFUSED(&groups, &options, "alignment is -1, expected 1 to 2^20");
  options.alignment = 1, options.config = "{";
  OFFSETS_REFUSED(&groups, &options, "config: not JSON");
  options.config = NULL, options.workspace = &bad, bad.ndim = 4;
  OFFSETS_REFUSED(&groups, &options, "workspace has 4 dimensions, expected 1 to 3");
  options.workspace = NULL, options.size = 7;
  OFFSETS_REFUSED(&groups, &options, "m_grouped_fp8_gemm_nt_offsets: options.size is 7");
  EXPECT_ERROR(deep_gemm_m_grouped_fp8_gemm_nt_contiguous(NULL, &a, &b, &d, &rows, NULL, &error),
               DEEP_GEMM_INVALID_ARGUMENT, "m_grouped_fp8_gemm_nt_contiguous: context is null");
  EXPECT_ERROR(deep_gemm_m_grouped_fp8_gemm_nt_contiguous(context, &a, &b, &d, &groups, NULL, &error),
               DEEP_GEMM_INVALID_ARGUMENT, "m_indices is [3], expected [384] = [m]");
  CHECK(wrong_rows(e) == 0);

  data_a = tensor(e->a, kE4m3, 3, masked_a), scale_a = tensor(e->scale_a, kF32, 3, masked_scale_a);
  d = tensor(e->d, kF32, 3, masked_d), groups.data = counts;
  give(e, 0, 0, 65), give(e, 2, 256, 128);
  EXPECT_OK(deep_gemm_m_grouped_fp8_gemm_nt_masked(context, &a, &b, &d, &groups, 10, NULL, &error));
  CHECK(wrong_rows(e) == 0);
  EXPECT_ERROR(deep_gemm_m_grouped_fp8_gemm_nt_masked(context, &a, &b, &d, &groups, -1, NULL, &error),
               DEEP_GEMM_INVALID_ARGUMENT, "m_grouped_fp8_gemm_nt_masked: expected_m is -1");
  {
    /* Groups without room for a row, whose strides the library computes. */
    static const int64_t no_a[] = {kGroups, 0, kGroupedK}, no_scale_a[] = {kGroups, 0, kGroupedBlocks},
                         no_d[] = {kGroups, 0, kGroupedN};
    const deep_gemm_tensor empty_a = tensor(NULL, kE4m3, 3, no_a), empty_scale_a = tensor(NULL, kF32, 3, no_scale_a),
                           empty_d = tensor(NULL, kF32, 3, no_d);
    const deep_gemm_fp8_tensor empty = {&empty_a, &empty_scale_a};
    EXPECT_OK(deep_gemm_m_grouped_fp8_gemm_nt_masked(context, &empty, &b, &empty_d, &groups, 10, NULL, &error));
  }
  d.ndim = 2, d.shape = shape_d;
  EXPECT_ERROR(deep_gemm_m_grouped_fp8_gemm_nt_masked(context, &a, &b, &d, &groups, 10, NULL, &error),
               DEEP_GEMM_INVALID_ARGUMENT, "d has 2 dimensions, expected 3");
  CHECK(wrong_rows(e) == 0);
  free(e);
}

/* Weight gradients: D[g] = C[g] + A_g·B_gᵀ with a k for each group. */
static void multiply_k_groups(deep_gemm_context* context) {
  enum { kSize = 33, kTotal = 384, kScales = 3 };
  static const int32_t flat[kGroups] = {128, 0, 256}, strided[kGroups] = {128, 240, 16},
                       negative[kGroups] = {128, -1, 9};
  static const int64_t shape_flat[] = {kSize * kTotal}, shape[] = {kSize, kTotal}, shape_d[] = {kGroups, kSize, kSize};
  uint8_t a[kSize * kTotal], b[kSize * kTotal];
  float scale_a[kSize * 4], scale_b[kSize * 4], c[kGroups * kSize * kSize], d[kGroups * kSize * kSize];
  int64_t shape_scale[] = {kSize, kScales};
  deep_gemm_tensor data_a = tensor(a, kE4m3, 1, shape_flat), data_b = tensor(b, kE4m3, 1, shape_flat),
                   tensor_scale_a = tensor(scale_a, kF32, 2, shape_scale),
                   tensor_scale_b = tensor(scale_b, kF32, 2, shape_scale), tensor_c = tensor(c, kF32, 3, shape_d),
                   tensor_d = tensor(d, kF32, 3, shape_d);
  const deep_gemm_fp8_tensor fp8_a = {&data_a, &tensor_scale_a}, fp8_b = {&data_b, &tensor_scale_b};
  deep_gemm_gemm_options options = DEEP_GEMM_GEMM_OPTIONS_INIT;
  deep_gemm_error* error = NULL;
  uint32_t state = 5;
  int form, in_place, g, i, j, q, wrong;
  for (i = 0; i < kSize * kTotal; ++i) {
    a[i] = (uint8_t)((random_bits(&state) % 127) | (random_bits(&state) & 0x80));
    b[i] = (uint8_t)((random_bits(&state) % 127) | (random_bits(&state) & 0x80));
  }
  for (i = 0; i < kSize * 4; ++i) {
    scale_a[i] = ldexpf(1 + (float)(random_bits(&state) % 100) / 100, -9);
    scale_b[i] = ldexpf(1 + (float)(random_bits(&state) % 100) / 100, -8);
  }
  for (i = 0; i < kGroups * kSize * kSize; ++i) c[i] = (float)(random_bits(&state) % 1000) - 500;

  for (form = 0; form < 2; ++form) {
    const int32_t* ks = form == 0 ? flat : strided;
    const int scales = form == 0 ? 3 : 4;
    shape_scale[1] = scales;
    data_a = tensor(a, kE4m3, form + 1, form == 0 ? shape_flat : shape);
    data_b = tensor(b, kE4m3, form + 1, form == 0 ? shape_flat : shape);
    for (in_place = 0; in_place < 2; ++in_place) {
      int start = 0, first_scale = 0;
      options.c = in_place ? NULL : &tensor_c;
      memcpy(d, c, sizeof d);
      if (!in_place) memset(d, 0xee, sizeof d);
      EXPECT_OK(deep_gemm_k_grouped_fp8_gemm_nt(context, &fp8_a, &fp8_b, &tensor_d, ks, kGroups,
                                                in_place ? NULL : &options, &error));
      for (g = wrong = 0; g < kGroups; ++g) {
        for (i = 0; i < kSize; ++i)
          for (j = 0; j < kSize; ++j) {
            const int at = (g * kSize + i) * kSize + j;
            double expected = c[at], magnitude = fabs(expected);
            for (q = 0; q < ks[g]; ++q) {
              const int at_a = form == 0 ? start * kSize + i * ks[g] + q : i * kTotal + start + q,
                        at_b = form == 0 ? start * kSize + j * ks[g] + q : j * kTotal + start + q;
              const double product = (double)(e4m3_value(a[at_a]) * scale_a[i * scales + first_scale + q / 128]) *
                                     (e4m3_value(b[at_b]) * scale_b[j * scales + first_scale + q / 128]);
              expected += product, magnitude += fabs(product);
            }
            wrong += !(fabs(d[at] - expected) <= magnitude * 1e-5);
          }
        start += ks[g], first_scale += (ks[g] + 127) / 128;
      }
      CHECK(wrong == 0);
    }
  }

#define K_REFUSED(ks, groups, part)                                                                           \
  EXPECT_ERROR(deep_gemm_k_grouped_fp8_gemm_nt(context, &fp8_a, &fp8_b, &tensor_d, ks, groups, NULL, &error), \
               DEEP_GEMM_INVALID_ARGUMENT, part)
  K_REFUSED(NULL, kGroups, "k_grouped_fp8_gemm_nt: ks is null");
  K_REFUSED(strided, kGroups - 1, "k_grouped_fp8_gemm_nt: ");
  K_REFUSED(negative, kGroups, "k_grouped_fp8_gemm_nt: ");
}

/* Scales that TMA cannot read as they lie need room for a copy, where there is TMA. Nothing is read or written. */
static void workspaces(void) {
  Product* p = new_product(6);
  const int64_t columns[2] = {1, 40};
  deep_gemm_recipe recipe = {0, 0, 0};
  deep_gemm_error* error = NULL;
  int64_t bytes = -1, both = -1;
  EXPECT_OK(deep_gemm_workspace_bytes(&p->fp8_a, &p->fp8_b, NULL, &bytes, &error));
  CHECK(bytes == 0);
  p->data_a.device.type = p->data_b.device.type = p->tensor_scale_a.device.type = p->tensor_scale_b.device.type =
      DEEP_GEMM_CUDA_DEVICE;
  EXPECT_OK(deep_gemm_workspace_bytes(&p->fp8_a, &p->fp8_b, NULL, &bytes, &error));
  CHECK(bytes >= 40 * kBlocks * 4 && bytes < 40 * kBlocks * 4 + 256);
  EXPECT_OK(deep_gemm_workspace_bytes(&p->fp8_a, &p->fp8_b, &recipe, &both, &error));
  CHECK(both == bytes);
  p->shape_scale_b[0] = kN;
  EXPECT_OK(deep_gemm_workspace_bytes(&p->fp8_a, &p->fp8_b, &kOneD1D, &both, &error));
  CHECK(both >= bytes + 152 * kBlocks * 4 && both < bytes + 152 * kBlocks * 4 + 256);
  p->tensor_scale_a.strides = columns, p->tensor_scale_a.data = p; /* a multiple of 16 */
  EXPECT_OK(deep_gemm_workspace_bytes(&p->fp8_a, &p->fp8_b, NULL, &bytes, &error));
  CHECK(bytes == 0);
  EXPECT_ERROR(deep_gemm_workspace_bytes(&p->fp8_a, &p->fp8_b, NULL, NULL, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "workspace_bytes: bytes is null");
  EXPECT_ERROR(deep_gemm_workspace_bytes(NULL, &p->fp8_b, NULL, &bytes, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "workspace_bytes: a is null");
  free(p);
}

static void quantize(deep_gemm_context* context) {
  enum { kRowsX = 130, kCols = 200 };
  const int64_t shape[2] = {kRowsX, kCols}, shape_rows[2] = {kRowsX, 2}, shape_blocks[2] = {2, 2},
                shape_columns[2] = {2, kCols}, shape_wrong[2] = {kRowsX, 3}, aligned[2] = {1, 132};
  float *x = malloc(sizeof(float) * kRowsX * kCols), scale[2 * kCols], out[2 * 132];
  uint8_t* codes = malloc(kRowsX * kCols);
  deep_gemm_tensor tensor_x = matrix(x, kF32, shape, NULL), data = matrix(codes, kE4m3, shape, NULL),
                   scales = matrix(scale, kF32, shape_rows, NULL), columns = matrix(out, kF32, shape_rows, aligned);
  const deep_gemm_fp8_tensor pair = {&data, &scales}, half = {&data, NULL};
  deep_gemm_quantize_options options = DEEP_GEMM_QUANTIZE_OPTIONS_INIT;
  deep_gemm_error* error = NULL;
  uint32_t state = 3;
  static const int kShares[3][2] = {{1, 128}, {128, 128}, {128, 1}};
  const int64_t* const kScaleShapes[3] = {shape_rows, shape_blocks, shape_columns};
  int i, j, form, wrong;
  for (i = 0; i < kRowsX * kCols; ++i) x[i] = (float)(random_bits(&state) % 20001) / 100 - 100;
  for (form = 0; form < 3; ++form) {
    const int rows = kShares[form][0], cols = kShares[form][1];
    options.rows_per_scale = rows, options.cols_per_scale = cols;
    scales.shape = kScaleShapes[form];
    memset(codes, 0x7f, kRowsX * kCols);
    EXPECT_OK(deep_gemm_quantize(context, &tensor_x, &pair, &options, &error));
    for (i = wrong = 0; i < kRowsX; ++i)
      for (j = 0; j < kCols; ++j) {
        const float unit = scale[i / rows * (int)scales.shape[1] + j / cols],
                    value = e4m3_value(codes[i * kCols + j]) * unit, error_of = fabsf(value - x[i * kCols + j]);
        wrong += (codes[i * kCols + j] & 0x7f) == 0x7f || !(error_of <= fabsf(x[i * kCols + j]) / 16 + unit / 512);
      }
    CHECK(wrong == 0);
  }
  EXPECT_ERROR(deep_gemm_quantize(NULL, &tensor_x, &pair, &options, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "quantize_128x1: context is null");
  /* An older program, which knows no scales of single columns. */
  options.size = offsetof(deep_gemm_quantize_options, cols_per_scale), scales.shape = shape_blocks;
  EXPECT_OK(deep_gemm_quantize(context, &tensor_x, &pair, &options, &error));
  options.size = sizeof options, options.rows_per_scale = 0;
  EXPECT_ERROR(deep_gemm_quantize(context, &tensor_x, &pair, &options, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "options.rows_per_scale is 1 and cols_per_scale 1");
  options.rows_per_scale = 64, options.cols_per_scale = 0;
  EXPECT_ERROR(deep_gemm_quantize(context, &tensor_x, &pair, &options, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "options.rows_per_scale is 64 and cols_per_scale 128");
  scales.shape = shape_wrong;
  EXPECT_ERROR(deep_gemm_quantize(context, &tensor_x, &pair, NULL, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "quantize_1x128: out.scale is [130, 3], expected [130, 2]");
  EXPECT_ERROR(deep_gemm_quantize(context, &tensor_x, &half, NULL, &error), DEEP_GEMM_INVALID_ARGUMENT, "out.scale");

  scales.shape = shape_rows;
  CHECK(deep_gemm_tma_aligned_rows(kRowsX) == 132);
  for (i = 0; i < kRowsX * 2; ++i) scale[i] = (float)i;
  EXPECT_OK(deep_gemm_to_mn_major_aligned(context, &scales, &columns, NULL, &error));
  for (i = wrong = 0; i < kRowsX; ++i)
    for (j = 0; j < 2; ++j) wrong += out[j * 132 + i] != (float)(2 * i + j);
  CHECK(wrong == 0);
  columns.strides = NULL;
  EXPECT_ERROR(deep_gemm_to_mn_major_aligned(context, &scales, &columns, NULL, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "to_mn_major_aligned: out has strides [2, 1]");
  free(x), free(codes);
}

static void count_log(void* user, int32_t level, const char* text) {
  if (level == DEEP_GEMM_LOG_INFO && strstr(text, "compiled by nvcc 12.3") != NULL) ++*(int*)user;
}

/* A stand-in for nvcc: what the plan names is compiled into a cache, and read from there. */
static void plan_and_compile(void) {
  char root[] = "/tmp/deep_gemm_c_api.XXXXXX", compiler[64], cache[64], config[1024], command[128];
  const char* dirs[2] = {NULL, NULL};
  deep_gemm_context_options options = DEEP_GEMM_CONTEXT_OPTIONS_INIT;
  deep_gemm_context* context = NULL;
  deep_gemm_error* error = NULL;
  char *plan = NULL, *again = NULL, *report = NULL, *begin, *end;
  int compiled = 0;
  FILE* script;

  EXPECT_OK(deep_gemm_plan("{\"m\": 64, \"n\": 2112, \"k\": 7168}", "h100", &plan, &error));
  EXPECT_OK(deep_gemm_plan("{\"m\":64,\"n\":2112,\"k\":7168,\"d_type\":\"bf16\"}", "h100", &again, &error));
  CHECK(plan != NULL && again != NULL && strcmp(plan, again) == 0);
  CHECK(strstr(plan, "\"runners_up\":[{") != NULL && strstr(plan, "\"reason\":\"") != NULL);
#define NO_PLAN(problem, device, part) \
  EXPECT_ERROR(deep_gemm_plan(problem, device, &again, &error), DEEP_GEMM_INVALID_ARGUMENT, part)
  deep_gemm_text_free(again);
  NO_PLAN("{\"m\":64,\"n\":64,\"k\":64}", "b200", "device is 'b200', expected h100, h200 or h800");
  NO_PLAN("{\"m\":64,\"n\":64}", "h100", "problem: k is missing");
  NO_PLAN("{\"m\":64,\"n\":64,\"k\":64,\"q\":1}", "h100", "that is not one of m, n, k");
  NO_PLAN("{\"m\":-1,\"n\":64,\"k\":64}", "h100", "problem: m is -1, expected a whole number below 2^31");
  NO_PLAN("[]", "h100", "problem: expected a JSON object");
  NO_PLAN("{", "h100", "problem: not JSON");
  NO_PLAN(NULL, "h100", "problem is null");
  CHECK(again == NULL);

  begin = strstr(plan, "\"config\":") + strlen("\"config\":"), end = strchr(begin, '}') + 1;
  CHECK((size_t)(end - begin) < sizeof config);
  snprintf(config, sizeof config, "%.*s", (int)(end - begin), begin);
  deep_gemm_text_free(plan);

  CHECK(mkdtemp(root) != NULL);
  snprintf(compiler, sizeof compiler, "%s/nvcc", root), snprintf(cache, sizeof cache, "%s/cache", root);
  dirs[0] = cache, options.cache_dirs = dirs;
  options.compiler = DEEP_GEMM_COMPILER_NVCC, options.log = count_log, options.log_user = &compiled;
  setenv("DG_JIT_NVCC_COMPILER", compiler, 1);
  EXPECT_OK(deep_gemm_context_create(kCpu, &options, &context, &error));
  EXPECT_ERROR(deep_gemm_compile(context, config, &report, &error), DEEP_GEMM_UNAVAILABLE, "nvcc");
  CHECK(report == NULL);
  script = fopen(compiler, "w");
  fputs(
      "#!/bin/sh\n[ $1 = --version ] && echo 'release 12.3, V12.3.0' && exit\n"
      "while [ $# -gt 1 ]; do [ $1 = -o ] && echo cubin > $2; shift; done\nexit 0\n",
      script);
  fclose(script);
  chmod(compiler, 0755);
  EXPECT_OK(deep_gemm_compile(context, config, &report, &error));
  CHECK(report != NULL && strstr(report, "\"compiler\":\"nvcc 12.3\",\"cached\":false") != NULL);
  deep_gemm_text_free(report);
  EXPECT_OK(deep_gemm_compile(context, config, NULL, &error));
  EXPECT_OK(deep_gemm_compile(context, config, &report, &error));
  CHECK(report != NULL && strstr(report, "\"cached\":true") != NULL);
  deep_gemm_text_free(report);
  CHECK(compiled == 1);
  EXPECT_ERROR(deep_gemm_compile(context, "{\"tile\": 64}", &report, &error), DEEP_GEMM_INVALID_ARGUMENT, "not one of");
  EXPECT_ERROR(deep_gemm_compile(context, NULL, &report, &error), DEEP_GEMM_INVALID_ARGUMENT, "config is null");
  deep_gemm_context_destroy(context);
  snprintf(command, sizeof command, "rm -rf %s", root);
  CHECK(system(command) == 0);
}

typedef struct Worker {
  deep_gemm_context* context;
  uint32_t index;
  int wrong;
} Worker;

/* Each thread its own product and its own error, in the same context. */
static void* work(void* argument) {
  Worker* w = argument;
  Product* p = new_product(100 + w->index);
  float* d = malloc(sizeof(float) * kM * kPitch);
  deep_gemm_tensor tensor_d = matrix(d, kF32, p->shape_d, p->strides_d), bad = tensor_d;
  const int64_t shape[2] = {kM, 1000 + w->index};
  char part[32];
  int repeat;
  bad.shape = shape, bad.strides = NULL;
  snprintf(part, sizeof part, "[%d, %d]", (int)kM, 1000 + (int)w->index);
  for (repeat = 0; repeat < 3; ++repeat) {
    deep_gemm_error* error = NULL;
    deep_gemm_status status = deep_gemm_fp8_gemm_nt(w->context, &p->fp8_a, &p->fp8_b, &bad, NULL, &error);
    w->wrong += !is_error(__LINE__, status, error, DEEP_GEMM_INVALID_ARGUMENT, part);
    memset(d, 0xee, sizeof(float) * kM * kPitch);
    status = deep_gemm_fp8_gemm_nt(w->context, &p->fp8_a, &p->fp8_b, &tensor_d, NULL, NULL);
    w->wrong += status != DEEP_GEMM_OK || wrong_elements(p, d, NULL, 0) != 0;
  }
  free(d), free(p);
  return NULL;
}

static void share(deep_gemm_context* context) {
  enum { kThreads = 8 };
  Worker workers[kThreads];
  pthread_t threads[kThreads];
  uint32_t i;
  for (i = 0; i < kThreads; ++i) {
    workers[i].context = context, workers[i].index = i, workers[i].wrong = 0;
    CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
  }
  for (i = 0; i < kThreads; ++i) {
    pthread_join(threads[i], NULL);
    CHECK(workers[i].wrong == 0);
  }
}

int main(void) {
  deep_gemm_context* context = NULL;
  deep_gemm_error* error = NULL;
  int code;
  for (code = 0; code < 256; ++code)
    e4m3_values[code] = e4m3_by_definition(code), e5m2_values[code] = e5m2_by_definition(code);
  EXPECT_OK(deep_gemm_context_create(kCpu, NULL, &context, &error));
  if (context == NULL) return 1;
  CHECK(strlen(deep_gemm_version()) >= 5);
  multiply(context);
  refuse(context);
  multiply_experts(context);
  multiply_k_groups(context);
  workspaces();
  quantize(context);
  plan_and_compile();
  share(context);
  deep_gemm_context_destroy(context);
  if (failures == 0) puts("the C API works");
  return failures != 0;
}
