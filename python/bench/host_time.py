"""Host time of one fp8_gemm_nt call from Python, and of the first call of a process with a warm disk cache.

Tensors exist, scales are aligned, the output is given: 10 rounds of 100 calls, the GPU drained between rounds. Where there is no
GPU, calls on CPU tensors with m = 0 stand in: all of the way from Python to the library and back, without the launch.

    python python/bench/host_time.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch

import deep_gemm

ROUNDS, CALLS = 10, 100


def operands(m: int, n: int, k: int, device: str):
    a = torch.randn(m, k, device=device).to(torch.float8_e4m3fn)
    b = torch.randn(n, k, device=device).to(torch.float8_e4m3fn)
    scale_a = deep_gemm.get_mn_major_tma_aligned_tensor(torch.rand(m, k // 128, device=device))
    scale_b = torch.rand(n // 128, k // 128, device=device)
    return (a, scale_a), (b, scale_b), torch.empty(m, n, dtype=torch.bfloat16, device=device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    m, n, k = (64 if cuda else 0), 512, 512
    drain = torch.cuda.synchronize if cuda else lambda: None
    a, b, d = operands(m, n, k, "cuda" if cuda else "cpu")

    if cuda:
        # Fills the disk cache, not the process.
        deep_gemm.set_compile_mode(1)
        deep_gemm.fp8_gemm_nt(a, b, d)
        deep_gemm.set_compile_mode(0)
    drain()
    start = time.perf_counter()
    deep_gemm.fp8_gemm_nt(a, b, d)
    first_ms = (time.perf_counter() - start) * 1e3
    for _ in range(CALLS):
        deep_gemm.fp8_gemm_nt(a, b, d)

    rounds = []
    for _ in range(ROUNDS):
        drain()
        start = time.perf_counter()
        for _ in range(CALLS):
            deep_gemm.fp8_gemm_nt(a, b, d)
        rounds.append((time.perf_counter() - start) / CALLS * 1e6)
    drain()
    report = {
        "what": "host time of fp8_gemm_nt from Python",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "m": m,
        "n": n,
        "k": k,
        "first_call_ms": first_ms,
        "call_us_median": statistics.median(rounds),
        "call_us": rounds,
    }
    print(f"{report['device']}, torch {report['torch']}, Python {report['python']}, {m} x {n} x {k}")
    print(f"first call  {first_ms:8.3f} ms (kernel in the disk cache)")
    print(f"later ones  {report['call_us_median']:8.3f} us, {min(rounds):.3f} to {max(rounds):.3f} in {ROUNDS} rounds of {CALLS}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
