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
static const deep_gemm_data_type kE4m3 = DEEP_GEMM_E4M3, kBf16 = DEEP_GEMM_BF16, kF32 = DEEP_GEMM_F32;

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

static float e4m3_values[256];

static float e4m3_by_definition(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float magnitude = exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf((float)(8 + mantissa), exponent - 10);
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
  float scale_a[kM * kBlocks], scale_b[2 * kBlocks], c[kM * kPitch];
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
  for (i = 0; i < 2 * kBlocks; ++i) p->scale_b[i] = ldexpf(1 + (float)(random_bits(&seed) % 100) / 100, -8);
  for (i = 0; i < kM * kPitch; ++i) p->c[i] = (float)(random_bits(&seed) % 1000) - 500;
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
        const float x = e4m3_value(p->a[i * kK + q]) * (p->fp8_a.scale != NULL ? p->scale_a[i * kBlocks + q / 128] : 1),
                    y = e4m3_value(p->b[j * kK + q]) *
                        (p->fp8_b.scale != NULL ? p->scale_b[j / 128 * kBlocks + q / 128] : 1);
        expected += (double)x * y, magnitude += fabs((double)x * y);
      }
      bound = magnitude * 1e-5 + (d_bf16 != NULL ? fabs(expected) / 256 : 0);
      wrong += !(fabs((double)got - expected) <= bound);
    }
  }
  return wrong;
}

static void multiply(deep_gemm_context* context) {
  Product* p = new_product(1);
  float* d = malloc(sizeof(float) * kM * kPitch);
  uint16_t* d_bf16 = malloc(sizeof(uint16_t) * kM * kPitch);
  deep_gemm_tensor tensor_d = matrix(d, kF32, p->shape_d, p->strides_d);
  deep_gemm_gemm_options options = DEEP_GEMM_GEMM_OPTIONS_INIT;
  deep_gemm_error* error = NULL;

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

  /* An older program: it knows no more than the stream. */
  memset(d, 0xee, sizeof(float) * kM * kPitch);
  options.size = offsetof(deep_gemm_gemm_options, c);
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
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "fp8_gemm_nt: d has 4 dimensions, expected at most 3");
  bad = good, bad.ndim = -1;
  REFUSED(&p->fp8_a, &p->fp8_b, &bad, NULL, "d has -1 dimensions");
  bad = good, bad.ndim = 0;
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
  options.config = NULL, options.size = 0;
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

static void quantize(deep_gemm_context* context) {
  enum { kRows = 130, kCols = 200 };
  const int64_t shape[2] = {kRows, kCols}, shape_rows[2] = {kRows, 2}, shape_blocks[2] = {2, 2},
                shape_wrong[2] = {kRows, 3}, aligned[2] = {1, 132};
  float *x = malloc(sizeof(float) * kRows * kCols), scale[kRows * 2], out[2 * 132];
  uint8_t* codes = malloc(kRows * kCols);
  deep_gemm_tensor tensor_x = matrix(x, kF32, shape, NULL), data = matrix(codes, kE4m3, shape, NULL),
                   scales = matrix(scale, kF32, shape_rows, NULL), columns = matrix(out, kF32, shape_rows, aligned);
  const deep_gemm_fp8_tensor pair = {&data, &scales}, half = {&data, NULL};
  deep_gemm_quantize_options options = DEEP_GEMM_QUANTIZE_OPTIONS_INIT;
  deep_gemm_error* error = NULL;
  uint32_t state = 3;
  int i, j, rows, wrong;
  for (i = 0; i < kRows * kCols; ++i) x[i] = (float)(random_bits(&state) % 20001) / 100 - 100;
  for (rows = 1; rows <= 128; rows *= 128) {
    options.rows_per_scale = rows;
    scales.shape = rows == 1 ? shape_rows : shape_blocks;
    memset(codes, 0x7f, kRows * kCols);
    EXPECT_OK(deep_gemm_quantize(context, &tensor_x, &pair, &options, &error));
    for (i = wrong = 0; i < kRows; ++i)
      for (j = 0; j < kCols; ++j) {
        const float unit = scale[i / rows * 2 + j / 128], value = e4m3_value(codes[i * kCols + j]) * unit,
                    error_of = fabsf(value - x[i * kCols + j]);
        wrong += (codes[i * kCols + j] & 0x7f) == 0x7f || !(error_of <= fabsf(x[i * kCols + j]) / 16 + unit / 512);
      }
    CHECK(wrong == 0);
  }
  options.rows_per_scale = 64;
  EXPECT_ERROR(deep_gemm_quantize(context, &tensor_x, &pair, &options, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "options.rows_per_scale is 64");
  scales.shape = shape_wrong;
  EXPECT_ERROR(deep_gemm_quantize(context, &tensor_x, &pair, NULL, &error), DEEP_GEMM_INVALID_ARGUMENT,
               "quantize_1x128: out.scale is [130, 3], expected [130, 2]");
  EXPECT_ERROR(deep_gemm_quantize(context, &tensor_x, &half, NULL, &error), DEEP_GEMM_INVALID_ARGUMENT, "out.scale");

  scales.shape = shape_rows;
  CHECK(deep_gemm_tma_aligned_rows(kRows) == 132);
  for (i = 0; i < kRows * 2; ++i) scale[i] = (float)i;
  EXPECT_OK(deep_gemm_to_mn_major_aligned(context, &scales, &columns, NULL, &error));
  for (i = wrong = 0; i < kRows; ++i)
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
  for (code = 0; code < 256; ++code) e4m3_values[code] = e4m3_by_definition(code);
  EXPECT_OK(deep_gemm_context_create(kCpu, NULL, &context, &error));
  if (context == NULL) return 1;
  CHECK(strlen(deep_gemm_version()) >= 5);
  multiply(context);
  refuse(context);
  quantize(context);
  plan_and_compile();
  share(context);
  deep_gemm_context_destroy(context);
  if (failures == 0) puts("the C API works");
  return failures != 0;
}
