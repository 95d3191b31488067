#!/usr/bin/env bash
# compute-sanitizer's four tools over small products of every layout and of kernels with and without clusters, multicast and
# split k, tiles at the edges among them. Needs a Hopper GPU and the CUDA toolkit; a minute and a half.
# Usage: sanitize.sh path/to/deep_gemm
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: sanitize.sh path/to/deep_gemm" >&2; exit 2; }
[ -x "$1" ] || { echo "sanitize: $1 is no program; build deep_gemm first" >&2; exit 2; }
cli=$(realpath "$1")
command -v compute-sanitizer >/dev/null || { echo "sanitize: no compute-sanitizer on PATH; it comes with the CUDA toolkit" >&2; exit 2; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT

kernels='[{"tile_m":128,"tile_n":128,"stages":4},{"tile_m":256,"tile_n":128,"stages":3},
  {"tile_m":128,"tile_n":256,"stages":3,"cluster":2,"multicast":"a"},{"tile_m":128,"tile_n":256,"stages":3,"cluster":2,"multicast":"b"},
  {"tile_m":64,"tile_n":32,"stages":8,"cluster":2,"split_k":true,"ctas_per_sm":2,"unroll":2},
  {"tile_m":64,"tile_n":64,"stages":6,"cluster":4,"split_k":true,"ctas_per_sm":2,"unroll":2},
  {"tile_m":128,"tile_n":128,"stages":4,"cluster":2,"split_k":true},
  {"tile_m":64,"tile_n":128,"stages":8,"cluster":8,"split_k":true}]'
kept='{"tile_m":128,"tile_n":256,"stages":3,"kept_blocks":4}'
check() {
  "${sanitize[@]}" 193 448 1024 --config "$kernels" &&
    "${sanitize[@]}" 300 12000 512 --config "$kept" &&
    "${sanitize[@]}" 130 320 640 --layout contiguous --groups 3 &&
    "${sanitize[@]}" 70 320 640 --layout offsets --groups 3 &&
    "${sanitize[@]}" 70 320 640 --layout masked --groups 3 &&
    "${sanitize[@]}" 64 256 384 --layout k-grouped --groups 2
}

failed=0
for tool in memcheck racecheck synccheck initcheck; do
  sanitize=(compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 3 "$cli" check --backend cuda)
  if check >"$log" 2>&1; then
    echo "$tool: clean"
  else
    echo "$tool: failed"
    tail -n 40 "$log"
    failed=1
  fi
done
exit "$failed"
