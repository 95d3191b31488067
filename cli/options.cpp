#include "options.h"

#include <charconv>

#include "backend.h"
#include "gemm/plan.h"

namespace deep_gemm::cli {

void LayoutOptions::add_to(CLI::App& app) {
  app.add_option("--layout", name, "Of a mixture of experts: M is then the rows of one group; k-grouped: K its depth")
      ->check(CLI::IsMember(layout_names()))
      ->capture_default_str();
  app.add_option("--groups", groups, "Experts, each with an N x K matrix B of its own")
      ->check(CLI::Range(int64_t{1}, kMaxGroups))
      ->capture_default_str();
  app.add_option("--alignment", alignment, "offsets: a group starts at a multiple of this")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
}

Shape LayoutOptions::shape(int64_t m, int64_t n, int64_t k) const {
  const Layout layout = layout_of(name).value();
  if (layout == Layout::dense && groups != 1)
    throw CLI::ValidationError("--groups needs --layout contiguous, offsets, masked or k-grouped");
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
  if (!file.empty() && layout != LayoutOptions{})
    throw CLI::ValidationError(
        "--layout, --groups and --alignment are of M N K; a file given by --shapes has columns for them");
  if (!file.empty()) return read_shapes(file);
  if (!k) throw CLI::ValidationError("expected M N K or --shapes FILE");
  return {layout.shape(*m, *n, *k)};
}

void FormOptions::add_to(CLI::App& app) {
  const CLI::IsMember fp8({"e4m3", "e5m2"});
  app.add_option("--a-type", a_type, "Type of A")->check(fp8)->capture_default_str();
  app.add_option("--b-type", b_type, "Type of B")->check(fp8)->capture_default_str();
  app.add_option("--d-type", d_type, "Type of D; k-grouped: always f32")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  app.add_option("--recipe", recipe, "Rows of A, rows of B and columns that share a scale; k-grouped: always 1,1,128")
      ->check(CLI::IsMember({"1,128,128", "1,1,128"}).description("1,128,128 or 1,1,128"))
      ->capture_default_str();
}

Problem FormOptions::form() const {
  const auto fp8 = [](const std::string& name) { return name == "e5m2" ? DType::e5m2 : DType::e4m3; };
  Problem form;
  form.a_type = fp8(a_type), form.b_type = fp8(b_type);
  form.d_type = d_type == "f32" ? DType::f32 : DType::bf16;
  form.scale_rows_b = recipe == "1,1,128" ? 1 : 128;
  return form;
}

void FormOptions::check(const Shape& shape) const {
  if (recipe == "1,1,128" && shape.layout != Layout::dense && shape.layout != Layout::k_grouped)
    throw CLI::ValidationError("--recipe 1,1,128 needs --layout dense or k-grouped");
}

void ProblemOptions::add_to(CLI::App& app) {
  form.add_to(app);
  app.add_flag("--accumulate", accumulate, "D = C + A*B^T instead of D = A*B^T; k-grouped: always");
  app.add_flag("--unscaled-a", unscaled_a, "A without scales");
  app.add_flag("--unscaled-b", unscaled_b, "B without scales");
}

Problem ProblemOptions::problem(const Shape& shape) const {
  form.check(shape);
  if (accumulate && shape.layout != Layout::dense && shape.layout != Layout::k_grouped)
    throw CLI::ValidationError("--accumulate needs --layout dense or k-grouped");
  Problem problem = form.form();
  problem.scaled_a = !unscaled_a, problem.scaled_b = !unscaled_b;
  problem.accumulate = accumulate;
  return problem_of(shape, problem);
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

CLI::Option* add_seed(CLI::App& app, uint64_t& seed) {
  const auto rule = [](const std::string& text) -> std::string {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size() ? "" : text + " is no whole number below 2^64";
  };
  return app.add_option("--seed", seed, "Of the random numbers")
      ->check(CLI::Validator(rule, ""))
      ->capture_default_str();
}

void add_cache_directory(CLI::App& app, std::string& directory, const std::string& description) {
  app.add_option("--cache", directory, description)->check([](const std::string& name) {
    return std::string(name.empty() ? "expected a directory, got nothing" : "");
  });
}

void add_json(CLI::App& app, bool& json) { app.add_flag("--json", json, "Print JSON for programs"); }

}  // namespace deep_gemm::cli
