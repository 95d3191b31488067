#!/usr/bin/env bash
# Measures anew what bench/results holds, by the commands that the reports name: some six minutes on a GPU that nobody else uses.
# What is measured is BUILD's, which may have been built elsewhere from this tree; DG_REVISION, by default HEAD, is noted. Not
# renewed: python.json and beside_deepgemm.json, which need torch and DeepGEMM (docs/python.md, docs/cli.md).
# Usage: measure.sh [BUILD]   (default: build)
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath "${1:-build}")
[ -x "$build/cli/deep_gemm" ] || { echo "measure: $build/cli/deep_gemm is no program; make build, or name the build directory" >&2; exit 2; }
results=bench/results shapes=bench/shapes
export DG_REVISION=${DG_REVISION:-$(git rev-parse --short HEAD)}

bench() { # REPORT ARGUMENTS…
  printf '\n== %s (%d s)\n' "$1" "$SECONDS" >&2
  "$build/cli/deep_gemm" bench "${@:2}" --json "$results/$1.json"
}
bench dense_cool --shapes $shapes/dense.csv --regime cool --rival cublaslt
of_nvcc=$(mktemp -d)
trap 'rm -rf "$of_nvcc"' EXIT
DG_JIT_USE_NVRTC=0 DG_JIT_CACHE_DIR=$of_nvcc bench dense_nvcc_cool --shapes $shapes/dense_4096.csv --regime cool
bench middle_cool --shapes $shapes/middle.csv --regime cool --rival cublaslt
bench short_k_cool --shapes $shapes/short_k.csv --regime cool --rival cublaslt
bench decode_clean --shapes $shapes/decode.csv --regime clean --rival cublaslt
bench grouped_cool --shapes $shapes/grouped.csv --regime cool
bench weight_gradients_cool --shapes $shapes/weight_gradients.csv --regime cool --repeats 4
bench dense_sustained --shapes $shapes/dense.csv --regime sustained --rival cublaslt
bench plan_cool --shapes $shapes/plan.csv --all-configs --max-configs 24 --no-check --repeats 3 --regime cool
"$build/examples/learn/deep_gemm_learn" --json $results/learn.json
"$build/bench/deep_gemm_host_time" --benchmark_out=$results/host_time.json

# Of the 23 other kernels of each of 200 products the name, the estimate and the median are kept.
python3 - $results/plan_cool.json <<'PYTHON'
import json, sys

report = json.load(open(sys.argv[1]))
for shape in report["shapes"]:
    shape["other_configs"] = [
        {"kernel": one["kernel"], "estimate_us": one["estimate_us"], "time_us": {"median": one["time_us"]["median"]}}
        for one in shape["other_configs"]
    ]
with open(sys.argv[1], "w") as file:
    json.dump(report, file, separators=(",", ":"))
PYTHON
