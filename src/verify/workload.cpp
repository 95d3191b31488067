#include "verify/workload.h"

#include <algorithm>
#include <cstring>
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
  if (shape.layout == Layout::dense) return shape.m;
  if (shape.layout == Layout::masked) return room_of_group(shape);
  int64_t end = 0;
  for (const int load : loads_of(shape)) end = load > 0 ? round_up(end, alignment_of(shape)) + load : end;
  return shape.layout == Layout::contiguous ? round_up(end, alignment_of(shape)) : end;
}

}  // namespace

std::vector<int> loads_of(const Shape& shape) {
  if (!shape.loads.empty()) return shape.loads;
  return std::vector<int>(static_cast<std::size_t>(shape.groups), static_cast<int>(shape.m));
}

int64_t rows_of(const Shape& shape) {
  if (shape.layout == Layout::dense) return shape.m;
  const std::vector<int> loads = loads_of(shape);
  return std::accumulate(loads.begin(), loads.end(), int64_t{0});
}

std::string text(const Shape& shape) {
  if (shape.layout == Layout::dense) return fmt::format("{}x{}x{}", shape.m, shape.n, shape.k);
  return fmt::format("{} {}x ({}) x{}x{}", name_of(shape.layout), shape.groups, rows_of(shape), shape.n, shape.k);
}

Problem problem_of(const Shape& shape, DType d_type) {
  Problem problem{.m = rows_of_a(shape), .n = shape.n, .k = shape.k, .d_type = d_type};
  problem.layout = shape.layout;
  problem.groups = shape.groups;
  if (shape.layout == Layout::masked) problem.expected_m = shape.m;
  return problem;
}

Workload::Memory Workload::allocate(int64_t bytes, unsigned char fill, Stream stream) const {
  Memory memory;
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
    : context_(context), shape_(shape), expected_m_(problem.expected_m) {
  const Device device = context.device();
  const bool masked = shape.layout == Layout::masked;
  const int64_t rows = masked ? problem.m * shape.groups : problem.m, n = shape.n, k = shape.k;
  const int64_t pitch = round_up(k, 16), blocks = (k + 127) / 128, n_blocks = (n + 127) / 128;
  const int64_t group_rows = tma_aligned_rows(problem.m), scale_groups = masked ? shape.groups : 1;
  const int64_t b_pitch = round_up(blocks, 4);  // cuBLASLt wants it so
  a_data_ = allocate(rows * pitch, 0, stream);
  b_data_ = allocate(shape.groups * n * pitch, 0, stream);
  d_data_ = allocate(rows * n * size_of(problem.d_type), 0xff, stream);
  a_.data = {a_data_.data(), DType::e4m3, 2, {rows, k}, {pitch, 1}, device};
  b_.data = {b_data_.data(), DType::e4m3, 2, {shape.groups * n, k}, {pitch, 1}, device};
  d_ = TensorView::contiguous(d_data_.data(), problem.d_type, {rows, n}, device);
  if (problem.scaled_a) {
    a_scale_ = allocate(group_rows * scale_groups * blocks * 4, 0, stream);
    // Masked: [groups, blocks, rows], filled as the matrix of rows · blocks that it is in memory.
    a_.scale = {a_scale_.data(), DType::f32, 2, {problem.m, blocks * scale_groups}, {1, group_rows}, device};
  }
  if (problem.scaled_b) {
    b_scale_ = allocate(shape.groups * n_blocks * b_pitch * 4, 0, stream);
    b_.scale = {b_scale_.data(), DType::f32, 2, {shape.groups * n_blocks, blocks}, {b_pitch, 1}, device};
  }
  verify::fill_random(context, a_, {.seed = 2 * seed}, stream);
  verify::fill_random(context, b_, {.seed = 2 * seed + 1}, stream);

  std::vector<int32_t> numbers;
  int64_t end = 0, group = 0;
  for (const int load : shape.layout == Layout::dense ? std::vector<int>{} : loads_of(shape)) {
    if (masked) {
      ranges_.push_back({group * problem.m, group * problem.m + load});
      numbers.push_back(load);
    } else {
      const int64_t begin = load > 0 ? round_up(end, alignment_of(shape)) : end;
      end = begin + load;
      ranges_.push_back({begin, end});
      if (shape.layout == Layout::offsets) {
        numbers.push_back(static_cast<int32_t>(end));
      } else {
        numbers.resize(static_cast<std::size_t>(begin), -1);
        numbers.resize(static_cast<std::size_t>(end), static_cast<int32_t>(group));
      }
    }
    ++group;
  }
  if (shape.layout == Layout::dense) ranges_.push_back({0, rows});
  if (shape.layout == Layout::contiguous) numbers.resize(static_cast<std::size_t>(rows), -1);
  const std::size_t bytes = numbers.size() * sizeof(int32_t);
  numbers_data_ = allocate(static_cast<int64_t>(bytes), 0, stream);
  numbers_ = TensorView::contiguous(numbers_data_.data(), DType::i32, {static_cast<int64_t>(numbers.size())}, device);
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
  view.strides = {rows * flat.strides[0], flat.strides[0], flat.strides[1]};
  return view;
}

Fp8Tensor Workload::split(const Fp8Tensor& flat, bool into_groups) const {
  return {split(flat.data, into_groups), split(flat.scale, into_groups)};
}

void Workload::poison(Stream stream) {
  if (!d_data_.host.empty()) {
    std::fill(d_data_.host.begin(), d_data_.host.end(), std::byte{0xff});
  } else {
    cuda::fill(d_data_.device.data(), 0xff, d_data_.device.bytes(), stream);
  }
}

void Workload::call(Stream stream, const std::optional<GemmConfig>& config) {
  if (shape_.layout == Layout::dense) return fp8_gemm_nt(context_, a_, b_, d_, {.stream = stream, .config = config});
  const GroupedOptions options{.stream = stream, .alignment = shape_.alignment, .config = config};
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
  m_grouped_fp8_gemm_nt_masked(context_, a, b, split(d_, true), numbers_, expected_m_, options);
}

verify::Report Workload::verify(Stream stream) {
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
    verify::Report report = verify::verify(context_, a, own_b, {}, d_.rows(begin, end), stream);
    all.elements += report.elements;
    all.mismatches += report.mismatches;
    all.worst_ratio = std::max(all.worst_ratio, report.worst_ratio);
    all.global_score = std::max(all.global_score, report.global_score);
    for (verify::Mismatch& one : report.first) {
      one.row += begin;
      if (all.first.size() < 16) all.first.push_back(one);
    }
  }
  return all;
}

}  // namespace deep_gemm
