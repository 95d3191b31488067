"""Host time of one fp8_gemm_nt call from Python, and of the first call of a process with a warm disk cache.

Tensors exist, scales are aligned, the output is given: 10 rounds of 100 calls, the GPU drained between rounds. The same calls with
m = 0 go all of the way from Python to the library and back, checks included, but launch nothing: what Python costs. They need no GPU,
and on a machine without one they are all that is timed.

    python python/bench/host_time.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import deep_gemm

ROUNDS, CALLS = 10, 100
N = K = 512


def operands(m: int, device: str) -> tuple[Any, Any, torch.Tensor]:
    a = torch.randn(m, K, device=device).to(torch.float8_e4m3fn)
    b = torch.randn(N, K, device=device).to(torch.float8_e4m3fn)
    scale_a = deep_gemm.get_mn_major_tma_aligned_tensor(torch.rand(m, K // 128, device=device))
    scale_b = torch.rand(N // 128, K // 128, device=device)
    return (a, scale_a), (b, scale_b), torch.empty(m, N, dtype=torch.bfloat16, device=device)


def time_us(a: Any, b: Any, d: torch.Tensor, drain: Callable[[], None]) -> list[float]:
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
    return rounds


def measure() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    device, m = ("cuda", 64) if cuda else ("cpu", 0)
    report: dict[str, Any] = {
        "what": "host time of fp8_gemm_nt from Python",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "m": m,
        "n": N,
        "k": K,
    }
    drain = torch.cuda.synchronize if cuda else lambda: None
    a, b, d = operands(m, device)
    if cuda:
        # Fills the disk cache, not the process.
        deep_gemm.set_compile_mode(1)
        deep_gemm.fp8_gemm_nt(a, b, d)
        deep_gemm.set_compile_mode(0)
        drain()
        start = time.perf_counter()
        deep_gemm.fp8_gemm_nt(a, b, d)
        report["first_call_ms"] = (time.perf_counter() - start) * 1e3
        report["call_us"] = time_us(a, b, d, drain)
        report["call_us_median"] = statistics.median(report["call_us"])
    report["without_launch_us"] = time_us(*operands(0, device), drain)
    report["without_launch_us_median"] = statistics.median(report["without_launch_us"])
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    report = measure()
    print(f"{report['device']}, torch {report['torch']}, Python {report['python']}, {report['m']} x {N} x {K}")
    if "first_call_ms" in report:
        print(f"first call         {report['first_call_ms']:8.3f} ms (kernel in the disk cache)")
    for text, name in (("later ones", "call_us"), ("m = 0, no launch", "without_launch_us")):
        if rounds := report.get(name):
            spread = f"{min(rounds):.3f} to {max(rounds):.3f} in {ROUNDS} rounds of {CALLS}"
            print(f"{text:18} {statistics.median(rounds):8.3f} us, {spread}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
