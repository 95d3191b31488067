#!/usr/bin/env bash
# Installs what building, the demo and the tests need and this machine lacks: Debian or Ubuntu packages, and from PyPI, into
# .venv, what is no Debian package. Says nothing and does nothing where all is there.
# Usage: setup.sh [--develop]   (also the tools for changing the code: clang-format 14, ccache, Google
# Benchmark, nvdisasm)
set -euo pipefail
cd "$(dirname "$0")/.."
develop=${1:-}

fail() {
  echo "setup: $*" >&2
  exit 1
}

# Package by what it gives: each line is "package test".
missing_packages() {
  local header=/usr/include
  command -v g++ >/dev/null || echo g++
  command -v cmake >/dev/null || echo cmake
  command -v ninja >/dev/null || echo ninja-build
  command -v python3 >/dev/null || echo python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  [ -e $header/fmt/format.h ] || echo libfmt-dev
  [ -e $header/eigen3/Eigen/Core ] || echo libeigen3-dev
  [ -e $header/nlohmann/json.hpp ] || echo nlohmann-json3-dev
  [ -e $header/CLI/CLI.hpp ] || echo libcli11-dev
  [ -e $header/gtest/gtest.h ] || echo libgtest-dev
  if [ "$develop" = --develop ]; then
    command -v clang-format-14 >/dev/null || echo clang-format-14
    command -v ccache >/dev/null || echo ccache
    [ -e $header/benchmark/benchmark.h ] || echo libbenchmark-dev
  fi
}

install_packages() {
  local log
  command -v apt-get >/dev/null || fail "missing: $*; install them with this system's package manager (no apt-get here)"
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "missing: $*; run as root: apt-get install $*"
    as_root=(sudo)
  fi
  echo "setup: installing $*"
  log=$(mktemp)
  "${as_root[@]}" apt-get update -q >"$log" 2>&1 || true  # stale lists may still do; the next line tells
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@" >>"$log" 2>&1 ||
    fail "apt-get install $* failed: $(grep -E '^(E|Err):' "$log" | tail -1); the log is $log"
  rm -f "$log"
}

# A venv of its own, so that nothing of the system's Python changes.
install_python() {
  local log
  [ -x .venv/bin/pip ] || python3 -m venv .venv || fail "python3 -m venv .venv failed; is python3-venv installed?"
  echo "setup: installing $* into .venv"
  log=$(mktemp)
  .venv/bin/pip install --quiet --disable-pip-version-check "$@" >"$log" 2>&1 ||
    fail "pip install $* failed: $(tail -1 "$log"); where PyPI is out of reach, install it into .venv by hand"
  rm -f "$log"
}

has_nvrtc() {
  ldconfig -p 2>/dev/null | grep -q 'libnvrtc\.so' && return
  local file
  for file in "${CUDA_HOME:-/usr/local/cuda}"/lib64/libnvrtc.so.* "${CUDA_PATH:-/usr/local/cuda}"/lib64/libnvrtc.so.* \
    /usr/local/cuda-*/lib64/libnvrtc.so.* .venv/lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.*; do
    [ -e "$file" ] && return
  done
  return 1
}

# The newest that the installed driver can load; any, where there is no driver.
nvrtc_package() {
  local driver
  driver=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: \([0-9.]*\).*/\1/p' || true)
  case $driver in
    12.*) echo "nvidia-cuda-nvrtc-cu12==$driver.*" ;;
    *) echo "nvidia-cuda-nvrtc==13.0.*" ;;
  esac
}

mapfile -t packages < <(missing_packages)
[ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
.venv/bin/python -c 'import numpy, safetensors' 2>/dev/null || install_python numpy safetensors
has_nvrtc || install_python "$(nvrtc_package)"
if [ "$develop" = --develop ] && [ ! -x .venv/bin/nvdisasm ] && ! command -v nvdisasm >/dev/null &&
  [ ! -x /usr/local/cuda/bin/nvdisasm ]; then
  install_python nvidia-cuda-nvdisasm
  ln -sf "$(find "$PWD/.venv/" -path '*/bin/nvdisasm' | head -1)" .venv/bin/nvdisasm
fi
