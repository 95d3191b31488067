#include "backend.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "output.h"
#include "text.h"

namespace deep_gemm::cli {
namespace {

std::size_t to_size(int64_t value) { return static_cast<std::size_t>(value); }

/// Copies rows of `row_bytes` between buffers of different pitch.
void copy_rows(std::byte* to, int64_t to_pitch, const std::byte* from, int64_t from_pitch, int64_t row_bytes,
               int64_t rows) {
  for (int64_t row = 0; row < rows && row_bytes > 0; ++row)
    std::memcpy(to + row * to_pitch, from + row * from_pitch, to_size(row_bytes));
}

Device device_of(const std::string& name) {
  const bool gpu = name.empty() ? has_hopper_gpu() : name == "cuda";
  return {gpu ? DeviceType::cuda : DeviceType::cpu, 0};
}

}  // namespace

bool has_hopper_gpu() { return cuda::device_count() > 0 && cuda::device_properties(0).compute_capability == 90; }

ContextOptions context_options() {
  ContextOptions options;
  const char* debug = std::getenv("DG_JIT_DEBUG");
  const bool all = debug != nullptr && *debug != '\0' && std::string_view(debug) != "0";
  options.log = [all](LogLevel level, const std::string& text) {
    if (all || level == LogLevel::warning) say(fmt::format("deep_gemm: {}\n", one_line(text)));
  };
  return options;
}

void add_backend(CLI::App& app, std::string& name) {
  app.add_option("--backend", name, "Where to compute; default: cuda where there is a Hopper GPU, else cpu")
      ->check(CLI::IsMember({"cpu", "cuda"}));
}

Backend::Backend(const std::string& name) : context_(device_of(name), context_options()) {
  if (on_gpu()) scope_.emplace(*context_.impl().cuda);
}

std::string Backend::description() const {
  if (on_gpu()) return context_.impl().cuda->properties().info.name;
  return fmt::format("cpu ({} threads)", std::max(1u, std::thread::hardware_concurrency()));
}

DeviceInfo Backend::device_info() const { return context_.impl().plan_device; }

Matrix Backend::allocate(DType dtype, int64_t outer, int64_t pitch) const {
  Matrix matrix;
  int64_t product = 0;
  if (__builtin_mul_overflow(outer, pitch * size_of(dtype), &product)) throw std::bad_alloc();
  const std::size_t bytes = to_size(product);
  if (on_gpu())
    matrix.device_ = cuda::DeviceBuffer(std::max<std::size_t>(bytes, 16));
  else
    matrix.host_.resize(std::max<std::size_t>(bytes, 16));
  matrix.view_.data = on_gpu() ? matrix.device_.data() : matrix.host_.data();
  matrix.view_.dtype = dtype;
  matrix.view_.rank = 2;
  matrix.view_.device = context_.device();
  return matrix;
}

Matrix Backend::matrix(DType dtype, int64_t rows, int64_t cols) const {
  const int64_t per_16_bytes = 16 / size_of(dtype);
  const int64_t pitch = (cols + per_16_bytes - 1) / per_16_bytes * per_16_bytes;
  Matrix matrix = allocate(dtype, rows, pitch);
  matrix.view_.shape = {rows, cols};
  matrix.view_.strides = {pitch, 1};
  return matrix;
}

Matrix Backend::mn_major(int64_t mn, int64_t blocks) const {
  const int64_t pitch = tma_aligned_rows(mn);
  Matrix matrix = allocate(DType::f32, blocks, pitch);
  matrix.view_.shape = {mn, blocks};
  matrix.view_.strides = {1, pitch};
  return matrix;
}

void Backend::fill(const Matrix& matrix, unsigned char value) const {
  if (on_gpu())
    cuda::fill(matrix.view_.data, value, matrix.device_.bytes());
  else
    std::memset(matrix.view_.data, value, matrix.host_.size());
}

Matrix Backend::upload(const TensorView& host) const {
  Matrix matrix = this->matrix(host.dtype, host.shape[0], host.shape[1]);
  const int64_t element = size_of(host.dtype);
  std::vector<std::byte> staging;
  auto* target = static_cast<std::byte*>(matrix.view_.data);
  if (on_gpu()) {
    staging.resize(matrix.device_.bytes());
    target = staging.data();
  }
  copy_rows(target, matrix.view_.strides[0] * element, static_cast<const std::byte*>(host.data),
            host.strides[0] * element, host.shape[1] * element, host.shape[0]);
  if (on_gpu()) cuda::copy_to_device(matrix.view_.data, staging.data(), staging.size());
  return matrix;
}

std::vector<std::byte> Backend::download(const Matrix& matrix) const {
  const TensorView& view = matrix.view_;
  const int64_t element = size_of(view.dtype);
  std::vector<std::byte> staging;
  const auto* source = static_cast<const std::byte*>(view.data);
  if (on_gpu()) {
    cuda::synchronize({});
    staging.resize(matrix.device_.bytes());
    cuda::copy_to_host(staging.data(), view.data, staging.size());
    source = staging.data();
  }
  std::vector<std::byte> dense(to_size(view.shape[0] * view.shape[1] * element));
  copy_rows(dense.data(), view.shape[1] * element, source, view.strides[0] * element, view.shape[1] * element,
            view.shape[0]);
  return dense;
}

double Backend::time_us(const std::function<void()>& call) const {
  std::vector<double> times;
  if (on_gpu()) {
    call();
    constexpr int kCalls = 20;
    for (int i = 0; i < kCalls; ++i) {
      cuda::Event start, end;
      start.record({});
      call();
      end.record({});
      times.push_back(cuda::Event::elapsed_ms(start, end) * 1e3);
    }
    return median(times);
  }
  // As often as fits a second, so that neither short calls are noisy nor long ones take forever.
  double total_us = 0;
  while (times.empty() || (total_us < 1e6 && times.size() < 20)) {
    const auto start = std::chrono::steady_clock::now();
    call();
    times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    total_us += times.back();
  }
  return median(times);
}

}  // namespace deep_gemm::cli
