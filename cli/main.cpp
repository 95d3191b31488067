// deep_gemm: the library from the command line. Exit status: 0 good, 1 the work itself failed (a mismatch, a spill), 2
// wrong usage or an error, which is said on one line.
#include <cstdio>
#include <iostream>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <deep_gemm/error.h>

#include "commands.h"
#include "output.h"

namespace {

using namespace deep_gemm::cli;

int complain(std::string_view what) {
  say(fmt::format("deep_gemm: {}\n", one_line(what)));
  return 2;
}

int run(int argc, char** argv) {
  CLI::App app{"FP8 matrix multiplication with fine-grained scales for NVIDIA Hopper GPUs, and on the CPU."};
  app.set_version_flag("--version", "deep_gemm " DG_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Examples:\n"
      "  deep_gemm info                                  what this machine has, and what is missing\n"
      "  deep_gemm run --weights model.safetensors --layer encoder.layer.0.output.dense --tokens 64\n"
      "  deep_gemm check 4096 7168 2048                  compare every element with a reference\n"
      "  deep_gemm plan 4096 7168 2048                   which kernel is chosen, and why\n"
      "  deep_gemm compile --shapes shapes.csv           fill the kernel cache ahead of time, no GPU needed\n"
      "  deep_gemm COMMAND --help                        all options of a command\n");
  add_info(app);
  add_run(app);
  add_quantize(app);
  add_check(app);
  add_plan(app);
  add_compile(app);
  add_bench(app);
  add_cache(app);
  try {
    app.parse(argc, argv);
  } catch (const ExitCode& exit) {
    return exit.code;
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::RequiredError& e) {
    const std::vector<std::string> unknown = app.remaining(true);
    return complain(
        fmt::format("{} (see --help)", unknown.empty() ? e.what() : fmt::format("no command '{}'", unknown[0])));
  } catch (const CLI::Error& e) {
    return complain(fmt::format("{} (see --help)", e.what()));
  } catch (const std::bad_alloc&) {
    return complain("out of memory");
  } catch (const std::length_error&) {  // what a container says of a size that no memory has
    return complain("out of memory");
  } catch (const std::exception& e) {
    return complain(e.what());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_files();
  const int status = run(argc, argv);
  std::cout.flush();
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) return complain("cannot write to standard output");
  return status;
}
