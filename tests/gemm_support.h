// What the tests of the product share: random operands in guarded memory on either backend, and a check of everything
// that a call must and must not write.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include <deep_gemm/gemm.h>
#include <deep_gemm/core/fp8.cuh>

#include "context_impl.h"
#include "gemm/kernel_source.h"
#include "text.h"
#include "verify/verify.h"

namespace deep_gemm {
/// Lets GoogleTest print the suite's parameter.
inline void PrintTo(DeviceType type, std::ostream* out) { *out << (type == DeviceType::cuda ? "cuda" : "cpu"); }
}  // namespace deep_gemm

namespace deep_gemm::test {

struct LayerShape {
  int64_t n, k;
};
/// The dense layers of DeepSeek-V3 that the benchmark covers.
inline constexpr std::array<LayerShape, 6> kDeepSeekLayers = {
    {{2112, 7168}, {24576, 1536}, {32768, 512}, {7168, 16384}, {4096, 7168}, {7168, 2048}}};

/// How a matrix lies in its memory.
struct Placement {
  int64_t pitch = 0;        ///< elements between rows (columns, if `transposed`); 0: the least multiple of 16 bytes
  int64_t offset = 0;       ///< elements between a 256-byte boundary and the first one
  int64_t spread = 1;       ///< elements from one to the next within a row (column, if `transposed`)
  bool transposed = false;  ///< dimension 0 is the inner one
};

/// A matrix in memory of its own on the CPU or the GPU, edited through a mirror on the CPU. Every byte around and
/// between its elements is `guard`.
class Matrix {
 public:
  Matrix(Device device, DType dtype, int64_t rows, int64_t cols, unsigned char guard, const Placement& at = {})
      : guard_(std::byte{guard}) {
    const int64_t element = size_of(dtype), inner = at.transposed ? rows : cols, outer = at.transposed ? cols : rows;
    const int64_t aligned = 16 / element, least = inner * at.spread;
    const int64_t pitch = at.pitch > 0 ? at.pitch : (least + aligned - 1) / aligned * aligned;
    first_ = kGuardBytes + at.offset * element;
    bytes_.resize(static_cast<std::size_t>(first_ + (outer * pitch + least) * element + kGuardBytes), guard_);
    if (device.type == DeviceType::cuda) memory_ = cuda::DeviceBuffer(bytes_.size());
    view_ = {data() + first_, dtype, 2, {rows, cols}, {pitch, at.spread}, device};
    if (at.transposed) std::swap(view_.strides[0], view_.strides[1]);
    upload();
  }

  const TensorView& view() const { return view_; }
  int64_t rows() const { return view_.shape[0]; }
  int64_t cols() const { return view_.shape[1]; }

  /// An element of the mirror.
  template <class T>
  T get(int64_t row, int64_t col) const {
    T value;
    std::memcpy(&value, bytes_.data() + position(row, col), sizeof(T));
    return value;
  }
  template <class T>
  void set(int64_t row, int64_t col, T value) {
    std::memcpy(bytes_.data() + position(row, col), &value, sizeof(T));
  }
  /// An element of a bf16 or f32 matrix as a number.
  float number(int64_t row, int64_t col) const {
    return view_.dtype == DType::bf16 ? decode_bf16(get<uint16_t>(row, col)) : get<float>(row, col);
  }
  void set_number(int64_t row, int64_t col, float value) {
    view_.dtype == DType::bf16 ? set(row, col, encode_bf16(value)) : set(row, col, value);
  }
  /// An element's bits, for comparisons that NaN must not disturb.
  uint32_t bits(int64_t row, int64_t col) const {
    return view_.dtype == DType::bf16 ? get<uint16_t>(row, col) : get<uint32_t>(row, col);
  }

  /// The mirror to the GPU. Waits, so that no stream can be ahead of the copy.
  void upload() {
    if (!memory_) return;
    cuda::copy_to_device(memory_->data(), bytes_.data(), bytes_.size());
    cuda::synchronize({});
  }
  void download() {
    if (memory_) cuda::copy_to_host(bytes_.data(), memory_->data(), bytes_.size());
  }
  /// Elements too become `guard`.
  void poison() {
    std::fill(bytes_.begin(), bytes_.end(), guard_);
    if (!memory_) return;
    cuda::fill(memory_->data(), std::to_integer<unsigned char>(guard_), bytes_.size());
    cuda::synchronize({});
  }
  /// The same elements; placement and guard may differ.
  void copy_elements(const Matrix& from) {
    const std::size_t element = static_cast<std::size_t>(size_of(view_.dtype));
    for (int64_t i = 0; i < rows(); ++i)
      for (int64_t j = 0; j < cols(); ++j)
        std::memcpy(bytes_.data() + position(i, j), from.bytes_.data() + from.position(i, j), element);
    upload();
  }
  /// Bytes of the mirror that differ from `guard` but belong to no element.
  int64_t changed_guard_bytes() const {
    std::vector<std::byte> rest = bytes_;
    for (int64_t i = 0; i < rows(); ++i)
      for (int64_t j = 0; j < cols(); ++j)
        std::fill_n(rest.begin() + static_cast<std::ptrdiff_t>(position(i, j)), size_of(view_.dtype), guard_);
    return std::count_if(rest.begin(), rest.end(), [&](std::byte byte) { return byte != guard_; });
  }
  bool is_poison() const {
    return std::all_of(bytes_.begin(), bytes_.end(), [&](std::byte byte) { return byte == guard_; });
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  static constexpr int64_t kGuardBytes = 256;

  std::byte* data() { return memory_ ? static_cast<std::byte*>(memory_->data()) : bytes_.data(); }
  std::size_t position(int64_t row, int64_t col) const {
    return static_cast<std::size_t>(first_ + (row * view_.strides[0] + col * view_.strides[1]) * size_of(view_.dtype));
  }

  std::byte guard_;
  int64_t first_ = 0;
  std::vector<std::byte> bytes_;
  std::optional<cuda::DeviceBuffer> memory_;
  TensorView view_;
};

using Random = std::mt19937_64;

/// FP8 values of a bell curve with all its neighbours: ±448, zeros and denormals among them, no NaN.
inline void fill_fp8(Matrix& matrix, Random& random) {
  const auto codes_of = [](DType type) {
    std::array<uint8_t, 256> codes{};
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const float x = (static_cast<float>(i) - 127.5f) / 128;  // 1 - x² is the density's rough shape
      codes[i] = encode_fp8(type, 80 * x / std::sqrt(1.01f - x * x));
    }
    codes[0] = encode_fp8(type, -448), codes[255] = static_cast<uint8_t>(codes[0] & 0x7f);
    codes[127] = 0x00, codes[128] = 0x80;                               // ±0
    codes[126] = 0x01, codes[129] = type == DType::e4m3 ? 0x85 : 0x83;  // denormals
    return codes;
  };
  static const std::array<uint8_t, 256> kE4m3 = codes_of(DType::e4m3), kE5m2 = codes_of(DType::e5m2);
  const std::array<uint8_t, 256>& codes = matrix.view().dtype == DType::e4m3 ? kE4m3 : kE5m2;
  uint64_t bits = 0;
  for (int64_t i = 0; i < matrix.rows(); ++i)
    for (int64_t j = 0; j < matrix.cols(); ++j, bits >>= 8) {
      if (j % 8 == 0) bits = random();
      matrix.set(i, j, codes[bits & 0xff]);
    }
  matrix.upload();
}

/// ±1 and ±2: sums of 128 products of such values are exact in tensor cores too, zeros and signs included.
inline void fill_exact_fp8(Matrix& matrix, Random& random) {
  constexpr std::array<float, 4> kValues = {1, -1, 2, -2};
  for (int64_t i = 0; i < matrix.rows(); ++i)
    for (int64_t j = 0; j < matrix.cols(); ++j)
      matrix.set(i, j, encode_fp8(matrix.view().dtype, kValues[random() % kValues.size()]));
  matrix.upload();
}

/// Positive scales, log-uniform over four powers of two around `magnitude`.
inline void fill_scales(Matrix& matrix, float magnitude, Random& random) {
  std::uniform_real_distribution<float> exponent(-2, 2);
  for (int64_t i = 0; i < matrix.rows(); ++i)
    for (int64_t j = 0; j < matrix.cols(); ++j) matrix.set(i, j, magnitude * std::exp2(exponent(random)));
  matrix.upload();
}

inline void fill_numbers(Matrix& matrix, float magnitude, Random& random) {
  std::normal_distribution<float> normal(0, magnitude);
  for (int64_t i = 0; i < matrix.rows(); ++i)
    for (int64_t j = 0; j < matrix.cols(); ++j) matrix.set_number(i, j, normal(random));
  matrix.upload();
}

enum class ScaleLayout {
  none,
  k_major,
  mn_major,    ///< columns one after the other, at a pitch that is no multiple of 16 bytes
  mn_aligned,  ///< what TMA reads as it is
  spread,      ///< no unit stride
};
inline constexpr std::array kScaleLayouts = {ScaleLayout::none, ScaleLayout::k_major, ScaleLayout::mn_major,
                                             ScaleLayout::mn_aligned, ScaleLayout::spread};

inline const char* name_of(ScaleLayout layout) {
  constexpr std::array kNames = {"none", "k_major", "mn_major", "mn_aligned", "spread"};
  return kNames[static_cast<std::size_t>(layout)];
}

enum class Accumulate { no, in_place, out_of_place };

/// Which types the operands have.
struct OperandTypes {
  DType a = DType::e4m3, b = DType::e4m3;
};
inline constexpr OperandTypes kOperandTypes[] = {
    {DType::e4m3, DType::e4m3}, {DType::e4m3, DType::e5m2}, {DType::e5m2, DType::e4m3}, {DType::e5m2, DType::e5m2}};

/// One call: shapes and how everything lies in memory.
struct Case {
  int64_t m = 0, n = 0, k = 0;
  DType d_type = DType::bf16;
  OperandTypes types{};
  int scale_rows_b = 128;  ///< 1: recipe (1, 1, 128)
  ScaleLayout scale_a = ScaleLayout::mn_aligned, scale_b = ScaleLayout::k_major;
  Accumulate accumulate = Accumulate::no;
  int64_t pad_a = 0, pad_b = 0;  ///< bytes of NaN after each row beyond the least pitch, multiples of 16
  Placement d{}, c{};
  float magnitude_a = 0x1p-7f, magnitude_b = 0x1p-7f;  ///< of the scales
  uint64_t seed = 1;

  Problem problem() const {
    return {.m = m,
            .n = n,
            .k = k,
            .d_type = d_type,
            .scaled_a = scale_a != ScaleLayout::none,
            .scaled_b = scale_b != ScaleLayout::none,
            .accumulate = accumulate != Accumulate::no,
            .a_type = types.a,
            .b_type = types.b,
            .scale_rows_b = scale_b == ScaleLayout::none ? 128 : scale_rows_b};
  }
  Recipe recipe() const { return {1, scale_rows_b, 128}; }
};

inline std::string text(const Case& c) {
  std::string text = fmt::format("{}x{}x{} {}, scales {} {}", c.m, c.n, c.k, deep_gemm::name_of(c.d_type),
                                 name_of(c.scale_a), name_of(c.scale_b));
  if (c.types.a != DType::e4m3 || c.types.b != DType::e4m3)
    text += fmt::format(", {} · {}", deep_gemm::name_of(c.types.a), deep_gemm::name_of(c.types.b));
  if (c.scale_rows_b != 128) text += ", recipe 1,1,128";
  if (c.accumulate != Accumulate::no)
    text += c.accumulate == Accumulate::in_place ? ", D += in place" : ", D = C + out of place";
  if (c.pad_a || c.pad_b) text += fmt::format(", pads of A and B {} {} bytes", c.pad_a, c.pad_b);
  if (c.d.pitch || c.d.offset) text += fmt::format(", D pitch {} offset {}", c.d.pitch, c.d.offset);
  if (c.c.pitch || c.c.offset) text += fmt::format(", C pitch {} offset {}", c.c.pitch, c.c.offset);
  if (c.magnitude_a != c.magnitude_b) text += fmt::format(", scales around {} {}", c.magnitude_a, c.magnitude_b);
  return text;
}

inline std::string text(const GemmOptions& o) {
  std::string text;
  if (o.config) text += ", config " + kernel_name(*o.config);
  if (o.num_sms) text += fmt::format(", num_sms {}", o.num_sms);
  if (o.programmatic_launch) text += ", programmatic launch";
  return text;
}

/// Operands and result of a call, random, on the context's device, which is current.
class Product {
 public:
  Product(Context& context, const Case& description)
      : case_(description),
        context_(context),
        a_(operand(case_.types.a, case_.m, case_.pad_a)),
        b_(operand(case_.types.b, case_.n, case_.pad_b)),
        d_(context.device(), case_.d_type, case_.m, case_.n, 0xff, case_.d) {
    Random random(case_.seed);
    const int64_t blocks = (case_.k + 127) / 128;
    fill_fp8(a_, random);
    fill_fp8(b_, random);
    make_scales(scale_a_, case_.scale_a, case_.m, blocks, case_.magnitude_a, random);
    make_scales(scale_b_, case_.scale_b, (case_.n + case_.scale_rows_b - 1) / case_.scale_rows_b, blocks,
                case_.magnitude_b, random);
    if (case_.accumulate == Accumulate::no) return;
    c_.emplace(context.device(), case_.d_type, case_.m, case_.n, 0xff, case_.c);
    // As large as the product, so that either would be missed.
    const float sigma = 60 * (scale_a_ ? case_.magnitude_a : 1.0f) * 60 * (scale_b_ ? case_.magnitude_b : 1.0f);
    fill_numbers(*c_, sigma * std::sqrt(static_cast<float>(case_.k + 1)), random);
  }

  Matrix& a() { return a_; }
  Matrix& b() { return b_; }
  Matrix& scale_a() { return *scale_a_; }
  Matrix& scale_b() { return *scale_b_; }
  Matrix& c() { return *c_; }
  Matrix& d() { return d_; }
  const Case& description() const { return case_; }
  Fp8Tensor tensor_a() const { return {a_.view(), scale_a_ ? scale_a_->view() : TensorView{}}; }
  Fp8Tensor tensor_b() const { return {b_.view(), scale_b_ ? scale_b_->view() : TensorView{}}; }

  /// `options` with C and the recipe.
  GemmOptions with_c(GemmOptions options) const {
    options.recipe = case_.recipe();
    if (c_) options.c = case_.accumulate == Accumulate::in_place ? d_.view() : c_->view();
    return options;
  }
  /// D as it must be before a call: poison, or C where the call accumulates in place.
  void prepare() {
    d_.poison();
    if (case_.accumulate == Accumulate::in_place) d_.copy_elements(*c_);
  }
  /// Enqueues the call as it stands.
  void call(const GemmOptions& options = {}) {
    fp8_gemm_nt(context_, tensor_a(), tensor_b(), d_.view(), with_c(options));
  }
  /// Waits and fetches D.
  void finish(Stream stream = {}) {
    if (context_.device().type == DeviceType::cuda) cuda::synchronize(stream);
    d_.download();
  }
  void run(const GemmOptions& options = {}) {
    prepare();
    call(options);
    finish(options.stream);
  }

  /// D, fetched before, is right everywhere and nothing around it was written.
  void expect_right(const std::string& what = {}, Stream stream = {}) {
    const std::string where = text(case_) + what;
    EXPECT_EQ(d_.changed_guard_bytes(), 0) << where << ": wrote outside of D";
    if (case_.m == 0 || case_.n == 0) return;
    const std::optional<TensorView> c = c_ ? std::optional(c_->view()) : std::nullopt;
    const verify::Report report =
        verify::verify(context_, tensor_a(), tensor_b(), c, d_.view(), stream, case_.recipe());
    EXPECT_EQ(report.elements, case_.m * case_.n) << where;
    if (report.mismatches == 0) return;
    std::string first;
    for (const verify::Mismatch& x : report.first)
      first += fmt::format("\n  [{}, {}] is {}, expected {} ± {}", x.row, x.col, x.got, x.expected, x.bound);
    ADD_FAILURE() << where << ": " << report.mismatches << " of " << report.elements << " elements are wrong" << first;
  }
  /// Runs and checks; an exception is a failure that names the case.
  void check(const GemmOptions& options = {}) {
    try {
      run(options);
      expect_right(text(options), options.stream);
    } catch (const std::exception& error) {
      ADD_FAILURE() << text(case_) << text(options) << ": " << error.what();
    }
  }

 private:
  Matrix operand(DType type, int64_t rows, int64_t pad) const {
    // 0x7f is NaN: a byte read as a value from beyond a row's end spoils the result.
    return Matrix(context_.device(), type, rows, case_.k, 0x7f, {.pitch = (case_.k + 15) / 16 * 16 + pad});
  }
  void make_scales(std::optional<Matrix>& scale, ScaleLayout layout, int64_t rows, int64_t blocks, float magnitude,
                   Random& random) const {
    if (layout == ScaleLayout::none) return;
    Placement at{.pitch = 0};
    if (layout == ScaleLayout::k_major) at.pitch = blocks + 1;
    if (layout == ScaleLayout::mn_major) at.transposed = true, at.pitch = rows + (rows % 4 == 0 ? 1 : 4);
    if (layout == ScaleLayout::mn_aligned) at.transposed = true;
    if (layout == ScaleLayout::spread) at.spread = 3;
    scale.emplace(context_.device(), DType::f32, rows, blocks, 0xff, at);
    fill_scales(*scale, magnitude, random);
  }

  Case case_;
  Context& context_;
  Matrix a_, b_, d_;
  std::optional<Matrix> scale_a_, scale_b_, c_;
};

/// Calls `work(i)` for i in [0, count) on several threads; an exception of any of them is a failure of the test.
template <class Work>
void in_parallel(std::size_t count, unsigned threads, Work&& work) {
  std::atomic<std::size_t> next = 0;
  std::vector<std::thread> workers;
  for (unsigned t = 0; t < threads; ++t)
    workers.emplace_back([&] {
      for (std::size_t i = next++; i < count; i = next++) {
        try {
          work(i);
        } catch (const std::exception& error) {
          ADD_FAILURE() << "item " << i << ": " << error.what();
        }
      }
    });
  for (std::thread& worker : workers) worker.join();
}

/// Compiles what calls are about to need on all cores, since a call compiles on its own thread.
inline void compile_ahead(Context& context, std::vector<GemmConfig> configs) {
  if (context.device().type == DeviceType::cpu) return;
  std::vector<GemmConfig> unique;
  for (const GemmConfig& config : configs)
    if (std::find(unique.begin(), unique.end(), config) == unique.end()) unique.push_back(config);
  in_parallel(unique.size(), std::clamp(std::thread::hardware_concurrency(), 1u, 16u),
              [&](std::size_t i) { compile(context, unique[i]); });
}
inline void compile_ahead(Context& context, const std::vector<Case>& cases) {
  if (context.device().type == DeviceType::cpu) return;
  std::vector<GemmConfig> configs;
  for (const Case& c : cases)
    if (c.m > 0 && c.n > 0) configs.push_back(plan(c.problem(), context.impl().plan_device).config);
  compile_ahead(context, std::move(configs));
}

/// Whether the context's GPU is that of emulator/.
inline bool is_emulated(Context& context) { return context.impl().plan_device.name == "emulated Hopper"; }

/// Makes the context's device current on a thread while it lives.
class OnDevice {
 public:
  explicit OnDevice(Context& context) {
    if (context.impl().cuda) scope_.emplace(*context.impl().cuda);
  }

 private:
  std::optional<cuda::DeviceContext::Scope> scope_;
};

/// A test on one backend: one context for the whole suite, current on the test's thread. Skips where there is no GPU.
class BackendTest : public testing::Test {
 protected:
  explicit BackendTest(DeviceType type) : type_(type) {}

  static void TearDownTestSuite() { shared_.reset(); }
  void SetUp() override {
    if (type_ == DeviceType::cuda) {
      if (cuda::device_count() == 0)
        GTEST_SKIP() << "NOT TESTED: there is no CUDA device here, and this test needs a Hopper GPU";
      if (const int cc = cuda::device_properties(0).compute_capability; cc != 90)
        GTEST_SKIP() << "NOT TESTED: device 0 has compute capability " << cc
                     << ", and this test needs a Hopper GPU (90)";
    }
    if (!shared_ || shared_->device().type != type_) shared_ = std::make_unique<Context>(Device{type_, 0});
    current_.emplace(*shared_);
  }
  void TearDown() override { current_.reset(); }

  Context& context() { return *shared_; }
  bool on_gpu() const { return type_ == DeviceType::cuda; }
  /// A real GPU; on the CPU and the emulator large products take too long.
  bool is_fast() { return on_gpu() && !is_emulated(context()); }
  /// Compiles all kernels at once, then checks case after case.
  void check(const std::vector<Case>& cases) {
    compile_ahead(context(), cases);
    for (const Case& c : cases) Product(context(), c).check();
  }

 private:
  static inline std::unique_ptr<Context> shared_;
  DeviceType type_;
  std::optional<OnDevice> current_;
};

}  // namespace deep_gemm::test
