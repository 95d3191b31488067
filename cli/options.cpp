#include "options.h"

#include "backend.h"
#include "gemm/plan.h"

namespace deep_gemm::cli {

void LayoutOptions::add_to(CLI::App& app) {
  app.add_option("--layout", name, "Of a mixture of experts: M is then the rows of one group")
      ->check(CLI::IsMember({"dense", "contiguous", "offsets", "masked"}))
      ->capture_default_str();
  app.add_option("--groups", groups, "Experts, each with an N x K matrix B")
      ->check(CLI::Range(int64_t{1}, kMaxGroups))
      ->capture_default_str();
  app.add_option("--alignment", alignment, "offsets: a group starts at a multiple of this")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
}

Shape LayoutOptions::shape(int64_t m, int64_t n, int64_t k) const {
  const Layout layout = layout_of(name).value();
  if (layout == Layout::dense && groups != 1)
    throw CLI::ValidationError("--groups needs --layout contiguous, offsets or masked");
  return {.m = m, .n = n, .k = k, .layout = layout, .groups = groups, .alignment = alignment};
}

void ShapeOptions::add_to(CLI::App& app) {
  const CLI::Range extent(int64_t{0}, kMaxExtent);
  app.add_option("M", m, "Rows of A and D")->check(extent);
  app.add_option("N", n, "Rows of B, columns of D")->check(extent);
  app.add_option("K", k, "Columns of A and B")->check(extent);
  app.add_option("--shapes", file,
                 "CSV file with the columns m, n, k and, for groups, layout, groups, loads instead of M N K");
  layout.add_to(app);
}

std::vector<Shape> ShapeOptions::shapes() const {
  if (!file.empty() && m) throw CLI::ValidationError("M N K and --shapes exclude each other");
  if (!file.empty()) return read_shapes(file);
  if (!k) throw CLI::ValidationError("expected M N K or --shapes FILE");
  return {layout.shape(*m, *n, *k)};
}

void ProblemOptions::add_to(CLI::App& app) {
  app.add_option("--d-type", d_type, "Type of D")->check(CLI::IsMember({"bf16", "f32"}))->capture_default_str();
  app.add_flag("--accumulate", accumulate, "D = C + A*B^T instead of D = A*B^T");
  app.add_flag("--unscaled-a", unscaled_a, "A without scales");
  app.add_flag("--unscaled-b", unscaled_b, "B without scales");
}

Problem ProblemOptions::problem(const Shape& shape) const {
  Problem p = problem_of(shape, d_type == "f32" ? DType::f32 : DType::bf16);
  if (accumulate && shape.layout != Layout::dense) throw CLI::ValidationError("--accumulate needs --layout dense");
  p.scaled_a = !unscaled_a, p.scaled_b = !unscaled_b;
  p.accumulate = accumulate;
  return p;
}

void DeviceOptions::add_to(CLI::App& app) {
  app.add_option("--device", name, "GPU to plan for; default: this machine's Hopper GPU, else h100")
      ->check(CLI::IsMember({"h100", "h200", "h800"}));
}

DeviceInfo DeviceOptions::device() const {
  if (name == "h200") return DeviceInfo::h200();
  if (name == "h800") return DeviceInfo::h800();
  if (name.empty() && has_hopper_gpu()) return known_device(cuda::device_properties(0).info);
  return DeviceInfo::h100();
}

void add_json(CLI::App& app, bool& json) { app.add_flag("--json", json, "Print JSON for programs"); }

}  // namespace deep_gemm::cli
