// Options that several commands share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <deep_gemm/gemm.h>

#include "shapes.h"

namespace deep_gemm::cli {

/// How M N K are shared out among experts.
struct LayoutOptions {
  std::string name = "dense";
  int64_t groups = 1;
  int alignment = 1;
  void add_to(CLI::App& app);
  /// Throws CLI::ValidationError where dense has groups.
  Shape shape(int64_t m, int64_t n, int64_t k) const;
  bool operator==(const LayoutOptions&) const = default;
};

/// M N K on the command line, or a shape file.
struct ShapeOptions {
  std::optional<int64_t> m, n, k;
  std::string file;
  LayoutOptions layout;
  void add_to(CLI::App& app);
  /// Throws CLI::ValidationError where there is neither, or both.
  std::vector<Shape> shapes() const;
};

/// Types and scales.
struct FormOptions {
  std::string a_type = "e4m3", b_type = "e4m3", d_type = "bf16", recipe = "1,128,128";
  void add_to(CLI::App& app);
  /// Without a shape.
  Problem form() const;
  /// Throws CLI::ValidationError where the shape's layout has no such form.
  void check(const Shape& shape) const;
};

/// All of a problem but its shape.
struct ProblemOptions {
  FormOptions form;
  bool accumulate = false, unscaled_a = false, unscaled_b = false;
  void add_to(CLI::App& app);
  Problem problem(const Shape& shape) const;
};

/// A GPU to plan for.
struct DeviceOptions {
  std::string name;
  void add_to(CLI::App& app);
  /// The named one; unnamed: the first of this machine where it is a Hopper GPU, else the H100.
  DeviceInfo device() const;
};

/// Adds `--cache`, which takes no empty name.
void add_cache_directory(CLI::App& app, std::string& directory, const std::string& description);

/// Adds `--json`.
void add_json(CLI::App& app, bool& json);
/// --seed, of the random numbers: a whole number below 2^64.
CLI::Option* add_seed(CLI::App& app, uint64_t& seed);

}  // namespace deep_gemm::cli
