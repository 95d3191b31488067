#include "verify/workload.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>

#include "text.h"

namespace deep_gemm {
namespace {

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

int64_t alignment_of(const Shape& shape) {
  return shape.layout == Layout::contiguous ? get_m_alignment_for_contiguous_layout() : shape.alignment;
}

int64_t room_of_group(const Shape& shape) {
  const std::vector<int> loads = loads_of(shape);
  const int64_t largest = loads.empty() ? 0 : *std::max_element(loads.begin(), loads.end());
  return std::max(shape.m_max, largest);
}

int64_t rows_of_a(const Shape& shape) {
  if (shape.layout == Layout::dense || shape.layout == Layout::k_grouped) return shape.m;
  if (shape.layout == Layout::masked) return room_of_group(shape);
  int64_t end = 0;
  for (const int load : loads_of(shape)) end = load > 0 ? round_up(end, alignment_of(shape)) + load : end;
  return shape.layout == Layout::contiguous ? round_up(end, alignment_of(shape)) : end;
}

int64_t sum_of_loads(const Shape& shape) {
  const std::vector<int> loads = loads_of(shape);
  return std::accumulate(loads.begin(), loads.end(), int64_t{0});
}

}  // namespace

std::vector<int> loads_of(const Shape& shape) {
  if (!shape.loads.empty()) return shape.loads;
  return std::vector<int>(static_cast<std::size_t>(shape.groups),
                          static_cast<int>(shape.layout == Layout::k_grouped ? shape.k : shape.m));
}

int64_t rows_of(const Shape& shape) {
  return shape.layout == Layout::dense || shape.layout == Layout::k_grouped ? shape.m : sum_of_loads(shape);
}

int64_t depth_of(const Shape& shape) { return shape.layout == Layout::k_grouped ? sum_of_loads(shape) : shape.k; }

std::string layout_text(Layout layout) { return layout == Layout::k_grouped ? "k-grouped" : name_of(layout); }

std::string text(const Shape& shape) {
  if (shape.layout == Layout::dense) return fmt::format("{}x{}x{}", shape.m, shape.n, shape.k);
  if (shape.layout == Layout::k_grouped)
    return fmt::format("k-grouped {}x {}x{}x ({})", shape.groups, shape.m, shape.n, depth_of(shape));
  return fmt::format("{} {}x ({}) x{}x{}", name_of(shape.layout), shape.groups, rows_of(shape), shape.n, shape.k);
}

std::string recipe_text(const Problem& form) { return fmt::format("1,{},128", form.scale_rows_b); }

std::string form_text(const Problem& form) {
  std::string text;
  if (form.a_type != DType::e4m3 || form.b_type != DType::e4m3)
    text += fmt::format("A {}, B {}, ", name_of(form.a_type), name_of(form.b_type));
  if (form.scale_rows_b != 128) text += fmt::format("recipe {}, ", recipe_text(form));
  return text + "D " + name_of(form.d_type);
}

Problem problem_of(const Shape& shape, const Problem& form) {
  Problem problem = form;
  problem.m = rows_of_a(shape), problem.n = shape.n, problem.k = shape.k;
  problem.layout = shape.layout;
  problem.groups = shape.groups;
  problem.expected_m = shape.layout == Layout::masked ? shape.m : 0;
  if (shape.layout == Layout::k_grouped) {
    const std::vector<int> ks = loads_of(shape);
    problem.k = ks.empty() ? 0 : *std::max_element(ks.begin(), ks.end());
    problem.d_type = DType::f32;
    problem.accumulate = true;
    problem.scale_rows_b = 1;
  }
  if (!problem.scaled_b) problem.scale_rows_b = 128;  // no kernel differs
  return problem;
}

Workload::Memory Workload::allocate(int64_t rows, int64_t row_bytes, unsigned char fill, Stream stream) const {
  Memory memory;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(rows, row_bytes, &bytes) || bytes > std::numeric_limits<int64_t>::max() - 16)
    throw std::bad_alloc();
  const auto size = static_cast<std::size_t>(std::max<int64_t>(round_up(bytes, 16), 16));
  if (context_.device().type == DeviceType::cpu) {
    memory.host.assign(size, std::byte{fill});
  } else {
    memory.device = cuda::DeviceBuffer(size);
    cuda::fill(memory.device.data(), fill, size, stream);
  }
  return memory;
}

Workload::Workload(Context& context, const Shape& shape, const Problem& problem, uint64_t seed, Stream stream)
    : context_(context), shape_(shape), problem_(problem), seed_(seed), loads_(loads_of(shape)) {
  make_operands(stream);
  make_groups(stream);
}

void Workload::make_operands(Stream stream) {
  constexpr unsigned char kNan =
      0xff;  // as e4m3, e5m2, bf16 and f32: what is read from between elements spoils results
  const Device device = context_.device();
  const bool masked = shape_.layout == Layout::masked, k_grouped = shape_.layout == Layout::k_grouped;
  const int64_t groups = shape_.groups, n = shape_.n, k = depth_of(shape_);
  const int64_t rows = masked ? problem_.m * groups : problem_.m, rows_b = k_grouped ? n : groups * n;
  int64_t blocks = (k + 127) / 128;
  if (k_grouped)
    blocks = std::accumulate(loads_.begin(), loads_.end(), int64_t{0},
                             [](int64_t sum, int load) { return sum + (load + 127) / 128; });
  const bool flat = k_grouped && std::all_of(loads_.begin(), loads_.end(), [](int load) { return load % 128 == 0; });
  const auto operand = [&](Memory& memory, DType dtype, int64_t extent) -> TensorView {
    const int64_t pitch = flat ? k : round_up(k, 16);
    memory = allocate(extent, pitch, kNan, stream);
    if (flat) return TensorView::contiguous(memory.data(), dtype, {extent * k}, device);
    return {memory.data(), dtype, 2, {extent, k}, {pitch, 1}, device};
  };
  const auto mn_major = [&](Memory& memory, int64_t mn, int64_t columns) -> TensorView {
    memory = allocate(columns, tma_aligned_rows(mn) * 4, kNan, stream);
    return {memory.data(), DType::f32, 2, {mn, columns}, {1, tma_aligned_rows(mn)}, device};
  };
  a_.data = operand(a_data_, problem_.a_type, rows);
  b_.data = operand(b_data_, problem_.b_type, rows_b);
  // Masked: [groups, blocks, rows], filled as the matrix of rows · blocks that it is in memory.
  if (problem_.scaled_a) a_.scale = mn_major(a_scale_, problem_.m, blocks * (masked ? groups : 1));
  if (problem_.scaled_b && problem_.scale_rows_b == 1) {
    b_.scale = mn_major(b_scale_, n, blocks);
  } else if (problem_.scaled_b) {
    const int64_t scale_rows = groups * ((n + 127) / 128), pitch = round_up(blocks, 4);  // cuBLASLt wants it so
    b_scale_ = allocate(scale_rows, pitch * 4, 0, stream);
    b_.scale = {b_scale_.data(), DType::f32, 2, {scale_rows, blocks}, {pitch, 1}, device};
  }
  verify::fill_random(context_, a_, {.seed = 3 * seed_}, stream);
  verify::fill_random(context_, b_, {.seed = 3 * seed_ + 1}, stream);

  const int64_t rows_d = k_grouped ? groups * rows : rows, row_bytes = n * size_of(problem_.d_type);
  d_data_ = allocate(rows_d, row_bytes, kNan, stream);
  d_ = TensorView::contiguous(d_data_.data(), problem_.d_type, {rows_d, n}, device);
  if (!problem_.accumulate) return;
  c_data_ = allocate(rows_d, row_bytes, kNan, stream);
  c_ = TensorView::contiguous(c_data_.data(), problem_.d_type, {rows_d, n}, device);
  verify::fill_random(context_, c_, {.seed = 3 * seed_ + 2}, stream);
  if (k_grouped) poison(stream);
}

void Workload::make_groups(Stream stream) {
  const Device device = context_.device();
  const int64_t rows = d_.shape[0];
  std::vector<int32_t> numbers;
  if (shape_.layout == Layout::dense) ranges_.push_back({0, rows});
  if (shape_.layout == Layout::dense || shape_.layout == Layout::k_grouped) return;
  int64_t end = 0, group = 0;
  for (const int load : loads_) {
    if (shape_.layout == Layout::masked) {
      ranges_.push_back({group * problem_.m, group * problem_.m + load});
      numbers.push_back(load);
    } else {
      const int64_t begin = load > 0 ? round_up(end, alignment_of(shape_)) : end;
      end = begin + load;
      ranges_.push_back({begin, end});
      if (shape_.layout == Layout::offsets) {
        numbers.push_back(static_cast<int32_t>(end));
      } else {
        numbers.resize(static_cast<std::size_t>(begin), -1);
        numbers.resize(static_cast<std::size_t>(end), static_cast<int32_t>(group));
      }
    }
    ++group;
  }
  if (shape_.layout == Layout::contiguous) numbers.resize(static_cast<std::size_t>(rows), -1);
  const std::size_t bytes = numbers.size() * sizeof(int32_t);
  numbers_data_ = allocate(std::ssize(numbers), sizeof(int32_t), 0, stream);
  numbers_ = TensorView::contiguous(numbers_data_.data(), DType::i32, {static_cast<int64_t>(numbers.size())}, device);
  if (numbers.empty()) return;
  if (device.type == DeviceType::cpu) {
    std::memcpy(numbers_.data, numbers.data(), bytes);
  } else {
    cuda::synchronize(stream);
    cuda::copy_to_device(numbers_.data, numbers.data(), bytes);
  }
}

TensorView Workload::split(const TensorView& flat, bool into_groups) const {
  if (!into_groups || !flat) return flat;
  TensorView view = flat;
  const int64_t rows = shape_.groups > 0 ? flat.shape[0] / shape_.groups : 0;
  view.rank = 3;
  view.shape = {shape_.groups, rows, flat.shape[1]};
  view.strides = {std::max<int64_t>(rows, 1) * flat.strides[0], flat.strides[0], flat.strides[1]};
  return view;
}

Fp8Tensor Workload::split(const Fp8Tensor& flat, bool into_groups) const {
  return {split(flat.data, into_groups), split(flat.scale, into_groups)};
}

void Workload::poison(Stream stream) {
  if (shape_.layout == Layout::k_grouped) {
    verify::fill_random(context_, d_, {.seed = 3 * seed_ + 2}, stream);  // the same as C
  } else if (!d_data_.host.empty()) {
    std::fill(d_data_.host.begin(), d_data_.host.end(), std::byte{0xff});
  } else {
    cuda::fill(d_data_.device.data(), 0xff, d_data_.device.bytes(), stream);
  }
}

void Workload::call(Stream stream, const std::optional<GemmConfig>& config) {
  GemmOptions dense{.stream = stream};
  dense.config = config;
  if (shape_.layout == Layout::k_grouped)
    return k_grouped_fp8_gemm_nt(context_, a_, b_, split(d_, true), loads_, dense);
  if (shape_.layout == Layout::dense) {
    dense.recipe.rows_b = problem_.scale_rows_b;
    if (c_) dense.c = c_;
    return fp8_gemm_nt(context_, a_, b_, d_, dense);
  }
  GroupedOptions options{.stream = stream};
  options.alignment = shape_.alignment;
  options.config = config;
  const Fp8Tensor b = split(b_, true);
  if (shape_.layout == Layout::contiguous)
    return m_grouped_fp8_gemm_nt_contiguous(context_, a_, b, d_, numbers_, options);
  if (shape_.layout == Layout::offsets) return m_grouped_fp8_gemm_nt_offsets(context_, a_, b, d_, numbers_, options);
  Fp8Tensor a{split(a_.data, true), a_.scale};
  if (a.scale) {
    const int64_t blocks = (shape_.k + 127) / 128, pitch = a_.scale.strides[1];
    a.scale.rank = 3;
    a.scale.shape = {shape_.groups, a_.scale.shape[0], blocks};
    a.scale.strides = {pitch * blocks, 1, pitch};
  }
  m_grouped_fp8_gemm_nt_masked(context_, a, b, split(d_, true), numbers_, problem_.expected_m, options);
}

verify::Report Workload::verify(Stream stream) {
  if (shape_.layout == Layout::k_grouped)
    return verify::verify_k_grouped(context_, a_, b_, split(c_, true), split(d_, true), loads_, stream);
  verify::Report all;
  const Fp8Tensor b = split(b_, true);
  const int64_t blocks = (shape_.k + 127) / 128;
  for (std::size_t group = 0; group < ranges_.size(); ++group) {
    const auto [begin, end] = ranges_[group];
    if (begin == end) continue;
    const auto g = static_cast<int64_t>(group);
    Fp8Tensor a{a_.data.rows(begin, end), a_.scale};
    if (a.scale && shape_.layout == Layout::masked) {
      a.scale.data = static_cast<float*>(a.scale.data) + g * blocks * a.scale.strides[1];
      a.scale.shape = {end - begin, blocks};
    } else if (a.scale) {
      a.scale = a.scale.rows(begin, end);
    }
    const Fp8Tensor own_b{b.data.at(g), b.scale ? b.scale.at(g) : TensorView{}};
    const std::optional<TensorView> c = c_ ? std::optional(c_) : std::nullopt;
    const Recipe recipe{1, problem_.scale_rows_b, 128};
    verify::merge(all, verify::verify(context_, a, own_b, c, d_.rows(begin, end), stream, recipe), begin);
  }
  return all;
}

}  // namespace deep_gemm
