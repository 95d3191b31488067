// The judge on both backends: on the CPU in blocks of Eigen's double products, on CUDA with the kernel of
// device/deep_gemm/verify/reference.cuh.
#include "verify/verify.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include <Eigen/Core>

#include <deep_gemm/core/fp8.cuh>
#include <deep_gemm/verify/judge.cuh>
#include <deep_gemm/verify/reference.cuh>

#include "context_impl.h"
#include "cpu/parallel.h"
#include "gemm/check.h"
#include "verify/kernels.h"

namespace deep_gemm::verify {
namespace {

constexpr std::size_t kFirst = 16;
constexpr int64_t kBlock = 128;

bool comes_before(const Mismatch& x, const Mismatch& y) { return x.row != y.row ? x.row < y.row : x.col < y.col; }

/// 1 - 2<x,y> / (<x,x> + <y,y>) = |x - y|² / (|x|² + |y|²); 0 for two zeros.
double score(double squared_difference, double squared_values) {
  return squared_values > 0 ? squared_difference / squared_values : 0;
}

// ---- CPU -----------------------------------------------------------------------------------------------------------

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct Findings {
  Report report;
  double squared_difference = 0, squared_values = 0;

  void merge(Findings&& other) {
    report.mismatches += other.report.mismatches;
    report.worst_ratio = std::max(report.worst_ratio, other.report.worst_ratio);
    squared_difference += other.squared_difference;
    squared_values += other.squared_values;
    auto& first = report.first;
    first.insert(first.end(), other.report.first.begin(), other.report.first.end());
    std::sort(first.begin(), first.end(), comes_before);
    first.resize(std::min(first.size(), kFirst));
  }
};

double load(const TensorView& t, int64_t i, int64_t j) {
  const int64_t at = i * t.strides[0] + j * t.strides[1];
  return t.dtype == DType::f32 ? static_cast<const float*>(t.data)[at]
                               : decode_bf16(static_cast<const uint16_t*>(t.data)[at]);
}

/// Elements [row, row + rows) × [first, first + depth) as doubles.
Matrix decode(const TensorView& codes, int64_t row, int64_t rows, int64_t first, int64_t depth) {
  Matrix values(rows, depth);
  for (int64_t i = 0; i < rows; ++i) {
    const uint8_t* from = static_cast<const uint8_t*>(codes.data) + (row + i) * codes.strides[0] + first;
    for (int64_t p = 0; p < depth; ++p) values(i, p) = decode_fp8(codes.dtype, from[p]);
  }
  return values;
}

struct Tile {
  int64_t row, col, rows, cols;
};

Findings verify_tile(const Fp8Tensor& a, const Fp8Tensor& b, const std::optional<TensorView>& c, const TensorView& d,
                     const Recipe& recipe, const Tile& tile) {
  const int64_t k = a.data.shape[1], blocks = (k + kBlock - 1) / kBlock;
  Matrix sum = Matrix::Zero(tile.rows, tile.cols), magnitude = sum, block_sum = sum, block_magnitude = sum;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = block * kBlock, depth = std::min(kBlock, k - first);
    const Matrix x = decode(a.data, tile.row, tile.rows, first, depth);
    const Matrix y = decode(b.data, tile.col, tile.cols, first, depth);
    // Exact whatever the order for e4m3: the products are multiples of 2^-18 and 128 of them stay below 2^25. Those of e5m2
    // span more bits, and what a double drops of them is nothing beside the bound.
    block_sum.noalias() = x * y.transpose();
    block_magnitude.noalias() = x.cwiseAbs() * y.cwiseAbs().transpose();
    for (int64_t i = 0; i < tile.rows; ++i) {
      const auto scale_a = static_cast<float>(a.scale ? load(a.scale, tile.row + i, block) : 1);
      for (int64_t j = 0; j < tile.cols; ++j) {
        const auto scale_b = static_cast<float>(b.scale ? load(b.scale, (tile.col + j) / recipe.rows_b, block) : 1);
        const double scale = scale_a * scale_b;
        sum(i, j) += scale * block_sum(i, j);
        magnitude(i, j) += std::abs(scale) * block_magnitude(i, j);
      }
    }
  }

  Findings found;
  for (int64_t i = 0; i < tile.rows; ++i) {
    for (int64_t j = 0; j < tile.cols; ++j) {
      const int64_t row = tile.row + i, col = tile.col + j;
      const double added = c ? load(*c, row, col) : 0, exact = sum(i, j) + added, got = load(d, row, col);
      const Judgement verdict = judge({exact, magnitude(i, j), added}, blocks, d.dtype, got);
      found.report.worst_ratio = std::max(found.report.worst_ratio, verdict.ratio);
      if (is_finite(got) && is_finite(exact)) {
        found.squared_difference += (got - exact) * (got - exact);
        found.squared_values += got * got + exact * exact;
      }
      if (!verdict.wrong) continue;
      ++found.report.mismatches;
      if (found.report.first.size() < kFirst) found.report.first.push_back({row, col, got, exact, verdict.bound});
    }
  }
  return found;
}

Report verify_on_cpu(const Fp8Tensor& a, const Fp8Tensor& b, const std::optional<TensorView>& c, const TensorView& d,
                     const Recipe& recipe) {
  constexpr int64_t kTileM = 64, kTileN = 128;
  const int64_t m = d.shape[0], n = d.shape[1], k = a.data.shape[1];
  const int64_t tiles_n = (n + kTileN - 1) / kTileN, tiles = (m + kTileM - 1) / kTileM * tiles_n;
  std::mutex mutex;
  Findings all;
  const double operations = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k + 1);
  cpu::parallel_for(tiles, operations, [&](int64_t i) {
    Tile tile{.row = i / tiles_n * kTileM, .col = i % tiles_n * kTileN, .rows = 0, .cols = 0};
    tile.rows = std::min(kTileM, m - tile.row);
    tile.cols = std::min(kTileN, n - tile.col);
    Findings found = verify_tile(a, b, c, d, recipe, tile);
    const std::scoped_lock lock(mutex);
    all.merge(std::move(found));
  });
  all.report.global_score = score(all.squared_difference, all.squared_values);
  return all.report;
}

// ---- CUDA ----------------------------------------------------------------------------------------------------------

VerifyMatrix matrix_of(const TensorView& t) {
  if (!t) return {nullptr, 0, 0};
  return {t.data, t.strides[0], t.strides[1]};
}

/// What one launch found, on the host.
struct LaunchResult {
  VerifyTotals totals{};
  std::vector<uint32_t> row_mismatches;
  std::vector<VerifySlot> slots;
};

LaunchResult launch_reference(Context::Impl& impl, VerifyArgs args, uint64_t slot_count, Stream stream) {
  const jit::KernelSource source = reference_kernel();
  const cuda::Kernel& kernel = impl.kernel(source.entry, source.text);
  LaunchResult result;
  result.row_mismatches.resize(static_cast<std::size_t>(args.m));
  const std::size_t row_bytes = result.row_mismatches.size() * sizeof(uint32_t);
  const cuda::ScratchBuffer totals(sizeof(VerifyTotals), stream), rows(row_bytes, stream);
  const cuda::ScratchBuffer slots(std::max<std::size_t>(1, slot_count) * sizeof(VerifySlot), stream);
  cuda::fill(totals.data(), 0, sizeof(VerifyTotals), stream);
  cuda::fill(rows.data(), 0, row_bytes, stream);
  args.totals = static_cast<VerifyTotals*>(totals.data());
  args.row_mismatches = static_cast<uint32_t*>(rows.data());
  args.slots = static_cast<VerifySlot*>(slots.data());
  args.slot_count = slot_count;
  const int64_t tiles = (args.m + kVerifyTile - 1) / kVerifyTile * ((args.n + kVerifyTile - 1) / kVerifyTile);
  void* params[] = {&args};
  cuda::launch(kernel, {.grid = {static_cast<unsigned>(tiles), 1, 1}, .block_threads = kVerifyThreads}, stream, params);
  cuda::synchronize(stream);
  cuda::copy_to_host(&result.totals, totals.data(), sizeof(VerifyTotals));
  cuda::copy_to_host(result.row_mismatches.data(), rows.data(), row_bytes);
  result.slots.resize(std::min(slot_count, result.totals.slots_used));
  if (!result.slots.empty())
    cuda::copy_to_host(result.slots.data(), slots.data(), result.slots.size() * sizeof(VerifySlot));
  return result;
}

const void* row_address(const TensorView& t, int64_t row) {
  return t && t.data ? static_cast<const std::byte*>(t.data) + row * t.strides[0] * size_of(t.dtype) : nullptr;
}

Report verify_on_cuda(Context::Impl& impl, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& c,
                      const TensorView& d, const Recipe& recipe, Stream stream) {
  const cuda::DeviceContext::Scope scope(*impl.cuda);
  VerifyArgs args{.a = matrix_of(a.data),
                  .b = matrix_of(b.data),
                  .scale_a = matrix_of(a.scale),
                  .scale_b = matrix_of(b.scale),
                  .c = matrix_of(c),
                  .d = matrix_of(d),
                  .m = d.shape[0],
                  .n = d.shape[1],
                  .k = a.data.shape[1],
                  .a_type = a.data.dtype,
                  .b_type = b.data.dtype,
                  .d_type = d.dtype,
                  .scale_rows_b = recipe.rows_b,
                  .slot_count = 0,
                  .totals = nullptr,
                  .row_mismatches = nullptr,
                  .slots = nullptr};
  const LaunchResult all = launch_reference(impl, args, 0, stream);
  Report report{.elements = 0,
                .mismatches = static_cast<int64_t>(all.totals.mismatches),
                .worst_ratio = all.totals.worst_ratio,
                .global_score = score(all.totals.squared_difference, all.totals.squared_values),
                .first = {}};
  if (report.mismatches == 0) return report;

  // Once more over the rows that hold the first mismatches: all of theirs fit into so many slots.
  const auto& rows = all.row_mismatches;
  const auto begin = std::find_if(rows.begin(), rows.end(), [](uint32_t count) { return count > 0; });
  auto end = begin;
  uint64_t found = 0;
  while (end != rows.end() && found < kFirst) found += *end++;
  const int64_t first_row = begin - rows.begin();
  args.m = end - begin;
  args.a.data = row_address(a.data, first_row);
  args.scale_a.data = row_address(a.scale, first_row);
  args.c.data = row_address(c, first_row);
  args.d.data = row_address(d, first_row);
  for (const VerifySlot& slot : launch_reference(impl, args, found, stream).slots)
    report.first.push_back({slot.row + first_row, slot.col, slot.got, slot.expected, slot.bound});
  std::sort(report.first.begin(), report.first.end(), comes_before);
  report.first.resize(std::min(report.first.size(), kFirst));
  return report;
}

}  // namespace

jit::KernelSource reference_kernel() {
  return {"verify_product",
          "#include <deep_gemm/verify/reference.cuh>\n"
          "extern \"C\" __global__ void __launch_bounds__(deep_gemm::kVerifyThreads) "
          "verify_product(const __grid_constant__ deep_gemm::VerifyArgs args) { "
          "deep_gemm::verify_product(args); }\n"};
}

Report verify(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const std::optional<TensorView>& c,
              const TensorView& d, Stream stream, const Recipe& recipe) {
  Context::Impl& impl = context.impl();
  const Problem problem = check("verify", impl.device, a, b, d, {.c = c, .recipe = recipe});
  if (problem.m == 0 || problem.n == 0) return {};
  Report report = impl.cuda ? verify_on_cuda(impl, a, b, c.value_or(TensorView{}), d, recipe, stream)
                            : verify_on_cpu(a, b, c, d, recipe);
  report.elements = problem.m * problem.n;
  return report;
}

Report verify_k_grouped(Context& context, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& c,
                        const TensorView& d, std::span<const int> ks, Stream stream) {
  constexpr Recipe k1d1d{1, 1, 128};
  const int64_t m = d.shape[1], n = d.shape[2];
  Report all;
  int64_t begin = 0, block = 0;
  for (std::size_t group = 0; group < ks.size(); ++group) {
    const int64_t k = ks[group], blocks = (k + kBlock - 1) / kBlock, g = static_cast<int64_t>(group);
    const auto operand = [&](const Fp8Tensor& whole, int64_t rows) {
      Fp8Tensor part = whole;
      const bool flat = whole.data.rank == 1;
      part.data.data = static_cast<uint8_t*>(whole.data.data) + begin * (flat ? rows : 1);
      part.data.rank = 2;
      part.data.shape = {rows, k};
      part.data.strides = {flat ? k : whole.data.strides[0], 1};
      if (whole.scale) {
        part.scale.data = static_cast<float*>(whole.scale.data) + block * whole.scale.strides[1];
        part.scale.shape[1] = blocks;
      }
      return part;
    };
    merge(all, verify(context, operand(a, m), operand(b, n), c.at(g), d.at(g), stream, k1d1d), g * m);
    begin += k;
    block += blocks;
  }
  return all;
}

void merge(Report& all, const Report& part, int64_t row) {
  all.elements += part.elements;
  all.mismatches += part.mismatches;
  all.worst_ratio = std::max(all.worst_ratio, part.worst_ratio);
  all.global_score = std::max(all.global_score, part.global_score);
  for (Mismatch one : part.first) {
    one.row += row;
    if (all.first.size() < kFirst) all.first.push_back(one);
  }
}

}  // namespace deep_gemm::verify
