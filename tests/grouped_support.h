// Random grouped products in guarded memory on either backend, and a check of all that a call must and must not write.
#pragma once

#include <numeric>
#include <span>

#include "gemm_support.h"

namespace deep_gemm::test {

struct GroupedCase {
  Layout layout = Layout::contiguous;
  std::vector<int> rows;  ///< of each group
  int64_t n = 0, k = 0;
  DType d_type = DType::bf16;
  OperandTypes types{};
  ScaleLayout scale_a = ScaleLayout::mn_aligned, scale_b = ScaleLayout::k_major;
  int alignment = 1;          ///< offsets
  bool zero_padding = false;  ///< offsets
  int64_t m_max = 0;          ///< masked; 0: the longest group's rows and some
  int64_t spare_rows = 0;     ///< contiguous, offsets: after the last group
  Placement d{};
  uint64_t seed = 1;
};

inline std::string text(const GroupedCase& c) {
  std::string text = fmt::format("{}, {} groups of {} rows, {}x{} {}, scales {} {}", deep_gemm::name_of(c.layout),
                                 c.rows.size(), std::accumulate(c.rows.begin(), c.rows.end(), 0), c.n, c.k,
                                 deep_gemm::name_of(c.d_type), name_of(c.scale_a), name_of(c.scale_b));
  if (c.types.a != DType::e4m3 || c.types.b != DType::e4m3)
    text += fmt::format(", {} · {}", deep_gemm::name_of(c.types.a), deep_gemm::name_of(c.types.b));
  if (c.layout == Layout::offsets)
    text += fmt::format(", alignment {}{}", c.alignment, c.zero_padding ? " with zeros" : "");
  if (c.d.pitch || c.d.offset) text += fmt::format(", D pitch {} offset {}", c.d.pitch, c.d.offset);
  return text;
}

/// Operands and result of a call. A and D are held flat; masked, group g's rows begin at g · m_max.
class GroupedProduct {
 public:
  /// Rows of A and D, flat, and what D must hold there.
  struct Range {
    int64_t begin = 0, valid_end = 0, end = 0;
  };

  GroupedProduct(Context& context, const GroupedCase& description)
      : case_(description),
        context_(context),
        groups_(static_cast<int64_t>(case_.rows.size())),
        m_max_(case_.m_max ? case_.m_max : *std::max_element(case_.rows.begin(), case_.rows.end()) + 3),
        numbers_(layout_numbers()),
        m_(case_.layout == Layout::masked ? groups_ * m_max_ : ranges_.back().end + case_.spare_rows),
        a_(context.device(), case_.types.a, m_, case_.k, 0x7f, {.pitch = (case_.k + 15) / 16 * 16 + 16}),
        b_(context.device(), case_.types.b, groups_ * case_.n, case_.k, 0x7f, {.pitch = (case_.k + 15) / 16 * 16}),
        d_(context.device(), case_.d_type, m_, case_.n, 0xff, case_.d),
        groups_of_(context.device(), DType::i32, 1, std::max<int64_t>(std::ssize(numbers_), m_), 0xff) {
    Random random(case_.seed);
    const int64_t blocks = (case_.k + 127) / 128;
    fill_fp8(a_, random);
    fill_fp8(b_, random);
    scale_a_ = scales(case_.scale_a, m_, blocks, random);
    scale_b_ = scales(case_.scale_b, groups_ * ((case_.n + 127) / 128), blocks, random);
    spoil_rows_of_nobody();
    set_numbers(numbers_);
  }

  const GroupedCase& description() const { return case_; }
  const std::vector<Range>& ranges() const { return ranges_; }
  const std::vector<int32_t>& numbers() const { return numbers_; }
  int64_t m_max() const { return m_max_; }
  Matrix& a() { return a_; }
  Matrix& b() { return b_; }
  Matrix& d() { return d_; }

  /// The layout's tensor gets other numbers.
  void set_numbers(std::span<const int32_t> numbers) {
    for (std::size_t i = 0; i < numbers.size(); ++i) groups_of_.set(0, static_cast<int64_t>(i), numbers[i]);
    groups_of_.upload();
  }
  /// Masked: other row counts from now on, also for what is expected.
  void change_counts(const std::vector<int>& rows) {
    case_.rows = rows;
    numbers_ = layout_numbers();
    set_numbers(numbers_);
  }

  Fp8Tensor tensor_a() const {
    return {split(a_.view(), case_.layout == Layout::masked), scale_a_ ? split(scale_a_->view(), is_masked()) : none()};
  }
  Fp8Tensor tensor_b() const { return {split(b_.view(), true), scale_b_ ? split(scale_b_->view(), true) : none()}; }
  TensorView tensor_d() const { return split(d_.view(), is_masked()); }
  TensorView groups_of() const {
    TensorView view = groups_of_.view();
    view.rank = 1;
    view.shape = {case_.layout == Layout::contiguous ? m_ : groups_};
    view.strides = {1};
    return view;
  }

  void call(GroupedOptions options = {}, int64_t expected_m = 0) {
    options.alignment = case_.alignment, options.zero_padding = case_.zero_padding;
    const auto run =
        case_.layout == Layout::contiguous ? m_grouped_fp8_gemm_nt_contiguous : m_grouped_fp8_gemm_nt_offsets;
    if (is_masked()) {
      m_grouped_fp8_gemm_nt_masked(context_, tensor_a(), tensor_b(), tensor_d(), groups_of(), expected_m, options);
    } else {
      run(context_, tensor_a(), tensor_b(), tensor_d(), groups_of(), options);
    }
  }
  void finish(Stream stream = {}) {
    if (context_.device().type == DeviceType::cuda) cuda::synchronize(stream);
    d_.download();
  }
  void run(const GroupedOptions& options = {}, int64_t expected_m = 0) {
    d_.poison();
    call(options, expected_m);
    finish(options.stream);
  }

  /// D, fetched before: every group's rows are right, padding is what the layout says, nothing else was written.
  void expect_right(const std::string& what = {}, Stream stream = {}) {
    const std::string where = text(case_) + what;
    EXPECT_EQ(d_.changed_guard_bytes(), 0) << where << ": wrote outside of D";
    std::vector<char> covered(static_cast<std::size_t>(m_), false);
    for (int64_t g = 0; g < groups_; ++g) {
      const Range& range = ranges_[static_cast<std::size_t>(g)];
      if (range.valid_end > range.begin) expect_product(where, g, range.begin, range.valid_end, stream);
      std::fill(covered.begin() + range.begin, covered.begin() + range.end, true);
      const bool is_product_or_zeros = case_.layout == Layout::contiguous;
      for (int64_t row = range.valid_end; row < range.end; ++row) {
        if (is_zero(row)) continue;
        ASSERT_TRUE(is_product_or_zeros) << where << ": padding row " << row << " of group " << g << " is not zero";
        expect_product(where + ", padding", g, row, row + 1, stream);
      }
    }
    for (int64_t row = 0; row < m_; ++row) {
      if (covered[static_cast<std::size_t>(row)]) continue;
      if (case_.layout == Layout::contiguous) {
        ASSERT_TRUE(is_zero(row)) << where << ": row " << row << ", of no group, is not zero";
      } else {
        ASSERT_TRUE(is_untouched(row)) << where << ": row " << row << ", of no group, was written";
      }
    }
  }
  void check(const GroupedOptions& options = {}, int64_t expected_m = 0) {
    const std::string what = options.config ? ", config " + kernel_name(*options.config) : "";
    try {
      run(options, expected_m);
      expect_right(what, options.stream);
    } catch (const std::exception& error) {
      ADD_FAILURE() << text(case_) << what << ": " << error.what();
    }
  }

  Problem problem(int64_t expected_m = 0) const {
    return {.m = is_masked() ? m_max_ : m_,
            .n = case_.n,
            .k = case_.k,
            .d_type = case_.d_type,
            .scaled_a = scale_a_.has_value(),
            .scaled_b = scale_b_.has_value(),
            .a_type = case_.types.a,
            .b_type = case_.types.b,
            .layout = case_.layout,
            .groups = groups_,
            .expected_m = expected_m};
  }

 private:
  static TensorView none() { return {}; }
  bool is_masked() const { return case_.layout == Layout::masked; }

  /// [groups · rows, cols] as [groups, rows, cols].
  TensorView split(const TensorView& flat, bool into_groups) const {
    if (!into_groups) return flat;
    TensorView view = flat;
    const int64_t rows = flat.shape[0] / groups_;
    view.rank = 3;
    view.shape = {groups_, rows, flat.shape[1]};
    view.strides = {rows * flat.strides[0], flat.strides[0], flat.strides[1]};
    return view;
  }

  /// The numbers of the layout's tensor; sets ranges_ too.
  std::vector<int32_t> layout_numbers() {
    std::vector<int32_t> numbers;
    ranges_.clear();
    const int64_t alignment =
        case_.layout == Layout::contiguous ? get_m_alignment_for_contiguous_layout() : case_.alignment;
    const auto aligned = [&](int64_t row) { return (row + alignment - 1) / alignment * alignment; };
    int64_t at = 0;
    for (int64_t g = 0; g < groups_; ++g) {
      const int64_t rows = case_.rows[static_cast<std::size_t>(g)];
      if (is_masked()) {
        numbers.push_back(static_cast<int32_t>(rows));
        ranges_.push_back({g * m_max_, g * m_max_ + rows, g * m_max_ + rows});
        continue;
      }
      const int64_t begin = aligned(at), end = begin + rows;
      const bool padded = rows > 0 && (case_.layout == Layout::contiguous || case_.zero_padding);
      ranges_.push_back({begin, end, padded ? aligned(end) : end});
      if (rows > 0) at = end;
      if (case_.layout == Layout::offsets) numbers.push_back(static_cast<int32_t>(at));
      if (case_.layout != Layout::contiguous || rows == 0) continue;
      numbers.insert(numbers.end(), static_cast<std::size_t>(rows), static_cast<int32_t>(g));
      numbers.insert(numbers.end(), static_cast<std::size_t>(aligned(end) - end), -1);
    }
    if (case_.layout == Layout::contiguous)
      numbers.insert(numbers.end(), static_cast<std::size_t>(case_.spare_rows), -1);
    return numbers;
  }

  std::optional<Matrix> scales(ScaleLayout layout, int64_t rows, int64_t blocks, Random& random) const {
    if (layout == ScaleLayout::none) return std::nullopt;
    Placement at{};
    if (layout == ScaleLayout::k_major) at.pitch = blocks + 1;
    if (layout == ScaleLayout::mn_major) at.transposed = true, at.pitch = rows + (rows % 4 == 0 ? 1 : 4);
    if (layout == ScaleLayout::mn_aligned) at.transposed = true;
    if (layout == ScaleLayout::spread) at.spread = 3;
    std::optional<Matrix> scale(std::in_place, context_.device(), DType::f32, rows, blocks, 0xff, at);
    fill_scales(*scale, 0x1p-7f, random);
    return scale;
  }

  /// What lies in rows of A that no group owns must reach no result: NaN. The contiguous layout multiplies it.
  void spoil_rows_of_nobody() {
    if (case_.layout == Layout::contiguous) return;
    std::vector<char> owned(static_cast<std::size_t>(m_), false);
    for (const Range& range : ranges_) std::fill(owned.begin() + range.begin, owned.begin() + range.valid_end, true);
    for (int64_t row = 0; row < m_; ++row) {
      if (owned[static_cast<std::size_t>(row)]) continue;
      for (int64_t p = 0; p < case_.k; ++p) a_.set<uint8_t>(row, p, 0x7f);
      for (int64_t block = 0; scale_a_ && block < scale_a_->cols(); ++block) scale_a_->set(row, block, std::nanf(""));
    }
    a_.upload();
    if (scale_a_) scale_a_->upload();
  }

  static TensorView rows_of(const Matrix& matrix, int64_t begin, int64_t end) { return matrix.view().rows(begin, end); }

  void expect_product(const std::string& where, int64_t group, int64_t begin, int64_t end, Stream stream) {
    if (case_.n == 0) return;
    const Fp8Tensor b = tensor_b();
    const verify::Report report = verify::verify(
        context_, {rows_of(a_, begin, end), scale_a_ ? rows_of(*scale_a_, begin, end) : none()},
        {b.data.at(group), b.scale ? b.scale.at(group) : none()}, std::nullopt, rows_of(d_, begin, end), stream);
    EXPECT_EQ(report.elements, (end - begin) * case_.n) << where;
    if (report.mismatches == 0) return;
    const verify::Mismatch& x = report.first.front();
    ADD_FAILURE() << where << ": " << report.mismatches << " of " << report.elements << " elements of group " << group
                  << " are wrong, the first at row " << x.row << " of it, column " << x.col << ": " << x.got
                  << ", expected " << x.expected << " ± " << x.bound;
  }
  bool is_zero(int64_t row) const {
    for (int64_t j = 0; j < case_.n; ++j)
      if (d_.bits(row, j) != 0) return false;
    return true;
  }
  bool is_untouched(int64_t row) const {
    const uint32_t poison = case_.d_type == DType::bf16 ? 0xffff : 0xffffffff;
    for (int64_t j = 0; j < case_.n; ++j)
      if (d_.bits(row, j) != poison) return false;
    return true;
  }

  GroupedCase case_;
  Context& context_;
  int64_t groups_, m_max_;
  std::vector<Range> ranges_;
  std::vector<int32_t> numbers_;
  int64_t m_;
  Matrix a_, b_, d_, groups_of_;
  std::optional<Matrix> scale_a_, scale_b_;
};

struct KGroupedCase {
  int64_t m = 0, n = 0;
  std::vector<int> ks;
  bool flat = false;  ///< the form of A and B: each of ks a multiple of 128
  OperandTypes types{};
  ScaleLayout scale_a = ScaleLayout::mn_aligned, scale_b = ScaleLayout::mn_aligned;
  bool in_place = true;  ///< C is D
  Placement d{};         ///< of the rows, all groups' one after the other
  int64_t pad = 0;       ///< strided: bytes of NaN after each row of A and B, a multiple of 16
  uint64_t seed = 1;
};

inline std::string text(const KGroupedCase& c) {
  std::string text =
      fmt::format("k-grouped, {}, {} groups of {}x{}, k {} in all, {} · {}, scales {} {}, {}",
                  c.flat ? "flat" : "strided", c.ks.size(), c.m, c.n, std::accumulate(c.ks.begin(), c.ks.end(), 0),
                  deep_gemm::name_of(c.types.a), deep_gemm::name_of(c.types.b), name_of(c.scale_a), name_of(c.scale_b),
                  c.in_place ? "D += in place" : "D = C + out of place");
  if (c.d.pitch || c.d.offset) text += fmt::format(", D pitch {} offset {}", c.d.pitch, c.d.offset);
  return text;
}

/// Operands and result of a k-grouped call. A and B are held by their columns of all groups, as the strided form has them,
/// and copied for the flat one.
class KGroupedProduct {
 public:
  KGroupedProduct(Context& context, const KGroupedCase& description)
      : case_(description),
        context_(context),
        groups_(static_cast<int64_t>(case_.ks.size())),
        depth_(std::accumulate(case_.ks.begin(), case_.ks.end(), int64_t{0})),
        a_(operand(case_.types.a, case_.m)),
        b_(operand(case_.types.b, case_.n)),
        c_(context.device(), DType::f32, groups_ * case_.m, case_.n, 0xff, case_.d),
        d_(context.device(), DType::f32, groups_ * case_.m, case_.n, 0xff, case_.d) {
    Random random(case_.seed);
    fill_fp8(a_, random);
    fill_fp8(b_, random);
    int64_t blocks = 0;
    for (const int k : case_.ks) blocks += (k + 127) / 128;
    make_scales(scale_a_, case_.scale_a, case_.m, blocks, random);
    make_scales(scale_b_, case_.scale_b, case_.n, blocks, random);
    fill_numbers(c_, 10, random);
    copy_operands();
  }

  const KGroupedCase& description() const { return case_; }
  Matrix& a() { return a_; }
  Matrix& b() { return b_; }
  Matrix& c() { return c_; }
  Matrix& d() { return d_; }
  Matrix& scale_a() { return *scale_a_; }
  Matrix& scale_b() { return *scale_b_; }
  Fp8Tensor tensor_a() const { return {data(a_, flat_a_), scale_a_ ? scale_a_->view() : TensorView{}}; }
  Fp8Tensor tensor_b() const { return {data(b_, flat_b_), scale_b_ ? scale_b_->view() : TensorView{}}; }
  TensorView tensor_c() const { return split(c_); }
  TensorView tensor_d() const { return split(d_); }
  /// The first row, in c() and d(), of a group; its first column in a() and b(), and in the scales.
  int64_t row_of(int64_t group) const { return group * case_.m; }
  int64_t col_of(int64_t group) const {
    return std::accumulate(case_.ks.begin(), case_.ks.begin() + group, int64_t{0});
  }
  int64_t block_of(int64_t group) const {
    int64_t block = 0;
    for (int64_t g = 0; g < group; ++g) block += (case_.ks[static_cast<std::size_t>(g)] + 127) / 128;
    return block;
  }

  /// To be called after a change of a() or b().
  void copy_operands() {
    a_.upload(), b_.upload();
    if (!case_.flat) return;
    flatten(a_, flat_a_);
    flatten(b_, flat_b_);
  }
  void prepare() {
    d_.poison();
    if (case_.in_place) d_.copy_elements(c_);
  }
  void call(GemmOptions options = {}) {
    if (!case_.in_place) options.c = tensor_c();
    k_grouped_fp8_gemm_nt(context_, tensor_a(), tensor_b(), tensor_d(), case_.ks, options);
  }
  void finish(Stream stream = {}) {
    if (context_.device().type == DeviceType::cuda) cuda::synchronize(stream);
    d_.download();
  }
  void run(const GemmOptions& options = {}) {
    prepare();
    call(options);
    finish(options.stream);
  }
  /// Every group's D, fetched before, is right, and nothing around it was written.
  void expect_right(const std::string& what = {}, Stream stream = {}) {
    const std::string where = text(case_) + what;
    EXPECT_EQ(d_.changed_guard_bytes(), 0) << where << ": wrote outside of D";
    const verify::Report report =
        verify::verify_k_grouped(context_, tensor_a(), tensor_b(), tensor_c(), tensor_d(), case_.ks, stream);
    EXPECT_EQ(report.elements, groups_ * case_.m * case_.n) << where;
    if (report.mismatches == 0) return;
    const verify::Mismatch& x = report.first.front();
    ADD_FAILURE() << where << ": " << report.mismatches << " of " << report.elements
                  << " elements are wrong, the first in group " << x.row / case_.m << " at row " << x.row % case_.m
                  << ", column " << x.col << ": " << x.got << ", expected " << x.expected << " ± " << x.bound;
  }
  void check(const GemmOptions& options = {}) {
    const std::string what = options.config ? ", config " + kernel_name(*options.config) : "";
    try {
      run(options);
      expect_right(what, options.stream);
    } catch (const std::exception& error) {
      ADD_FAILURE() << text(case_) << what << ": " << error.what();
    }
  }

  Problem problem() const {
    return {.m = case_.m,
            .n = case_.n,
            .k = case_.ks.empty() ? 0 : *std::max_element(case_.ks.begin(), case_.ks.end()),
            .d_type = DType::f32,
            .scaled_a = scale_a_.has_value(),
            .scaled_b = scale_b_.has_value(),
            .accumulate = true,
            .a_type = case_.types.a,
            .b_type = case_.types.b,
            .scale_rows_b = scale_b_ ? 1 : 128,
            .layout = Layout::k_grouped,
            .groups = groups_};
  }

 private:
  Matrix operand(DType type, int64_t rows) const {
    return Matrix(context_.device(), type, rows, depth_, 0x7f, {.pitch = (depth_ + 15) / 16 * 16 + case_.pad});
  }
  void make_scales(std::optional<Matrix>& scale, ScaleLayout layout, int64_t rows, int64_t blocks,
                   Random& random) const {
    if (layout == ScaleLayout::none) return;
    Placement at{};
    if (layout == ScaleLayout::k_major) at.pitch = blocks + 1;
    if (layout == ScaleLayout::mn_major) at.transposed = true, at.pitch = rows + (rows % 4 == 0 ? 1 : 4);
    if (layout == ScaleLayout::mn_aligned) at.transposed = true;
    if (layout == ScaleLayout::spread) at.spread = 3;
    scale.emplace(context_.device(), DType::f32, rows, blocks, 0xff, at);
    fill_scales(*scale, 0x1p-7f, random);
  }
  void flatten(const Matrix& from, std::optional<Matrix>& to) const {
    to.emplace(context_.device(), from.view().dtype, 1, from.rows() * depth_, 0x7f);
    int64_t at = 0;
    for (int64_t g = 0; g < groups_; ++g)
      for (int64_t i = 0; i < from.rows(); ++i)
        for (int64_t p = col_of(g); p < col_of(g + 1); ++p) to->set(0, at++, from.get<uint8_t>(i, p));
    to->upload();
  }
  TensorView data(const Matrix& strided, const std::optional<Matrix>& flat) const {
    if (!flat) return strided.view();
    TensorView view = flat->view();
    view.rank = 1;
    view.shape = {view.shape[1]};
    view.strides = {1};
    return view;
  }
  /// [groups · m, n] as [groups, m, n].
  TensorView split(const Matrix& rows) const {
    TensorView view = rows.view();
    view.rank = 3;
    view.shape = {groups_, case_.m, case_.n};
    view.strides = {std::max<int64_t>(case_.m, 1) * rows.view().strides[0], rows.view().strides[0], 1};
    return view;
  }

  KGroupedCase case_;
  Context& context_;
  int64_t groups_, depth_;
  Matrix a_, b_, c_, d_;
  std::optional<Matrix> scale_a_, scale_b_, flat_a_, flat_b_;
};

}  // namespace deep_gemm::test
