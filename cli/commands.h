// The subcommands of `deep_gemm`, one file each. Each adds itself to the app; its callback throws ExitCode for an exit
// status other than 0, and deep_gemm::Error or CLI::Error for what main() prints on one line.
#pragma once

#include <CLI/CLI.hpp>

namespace deep_gemm::cli {

struct ExitCode {
  int code;
};

void add_info(CLI::App& app);
void add_plan(CLI::App& app);
void add_compile(CLI::App& app);
void add_check(CLI::App& app);
void add_run(CLI::App& app);
void add_quantize(CLI::App& app);
void add_bench(CLI::App& app);
void add_cache(CLI::App& app);

}  // namespace deep_gemm::cli
