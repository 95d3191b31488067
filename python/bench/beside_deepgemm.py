"""Kernel times of this package beside those of DeepSeek's DeepGEMM: one GPU, one run, the same operands.

    python python/bench/beside_deepgemm.py --deepgemm DIR --output bench/results/beside_deepgemm.json

DIR holds DeepGEMM, for instance from `pip install --no-deps --target DIR sgl-deep-gemm==0.1.4 apache-tvm-ffi==0.1.11`; it compiles
its kernels with the CUDA toolkit's nvcc. The two packages have the same name, so each is measured by a process of its own: ours,
theirs, ours. Regime `cool`: a memset of 8 GB before each call. Times are those of the product's kernel as CUPTI reports them;
neither package's transposition of A's scales is counted. Operands are normal, quantised with 1x128 and 128x128 scales.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CALLS = 7
WORKERS = 6  # that compile at once


def shapes() -> list[dict[str, Any]]:
    """Prefill's rows of the dense shape file and those of the grouped one that DeepGEMM can run as well."""
    found: list[dict[str, Any]] = []
    for name in ("dense", "grouped"):
        lines = (ROOT / "bench" / "shapes" / f"{name}.csv").read_text().splitlines()
        for row in csv.DictReader(line for line in lines if line and not line.startswith("#")):
            loads = [int(load) for load in (row.get("loads") or "").split(";") if load]
            layout = row.get("layout") or "dense"
            if layout == "offsets" or (layout == "dense" and int(row["m"]) < 4096):
                continue
            found.append(
                {"layout": layout, "m": int(row["m"]), "n": int(row["n"]), "k": int(row["k"]), "m_max": int(row.get("m_max") or 0), "loads": loads}
            )
    return found


def measure(worker: int | None) -> list[dict[str, Any]]:
    """Median kernel time of each shape with whichever `deep_gemm` Python finds. `worker`: one of WORKERS that only compile."""
    import deep_gemm
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.manual_seed(0)
    e4m3 = torch.float8_e4m3fn

    def rows_quantised(m: int, k: int) -> tuple[Any, Any]:
        blocks = torch.randn(m, k // 128, 128, device="cuda")
        scale = blocks.abs().amax(2).clamp(1e-4) / 448
        return (blocks / scale[:, :, None]).to(e4m3).view(m, k), scale

    def blocks_quantised(n: int, k: int) -> tuple[Any, Any]:
        blocks = torch.randn(-(-n // 128), 128, k // 128, 128, device="cuda")
        scale = blocks.abs().amax((1, 3)).clamp(1e-4) / 448
        return (blocks / scale[:, None, :, None]).to(e4m3).view(-1, k)[:n].contiguous(), scale

    def call_of(shape: dict[str, Any]) -> Any:
        n, k, loads = shape["n"], shape["k"], shape["loads"]
        if shape["layout"] == "dense":
            a, b = rows_quantised(shape["m"], k), blocks_quantised(n, k)
            d = torch.empty(shape["m"], n, device="cuda", dtype=torch.bfloat16)
            return lambda: deep_gemm.fp8_gemm_nt(a, b, d)
        experts = [blocks_quantised(n, k) for _ in loads]
        weights = torch.stack([b for b, _ in experts]), torch.stack([scale for _, scale in experts])
        if shape["layout"] == "contiguous":
            padded = [-(-load // 128) * 128 for load in loads]
            groups = torch.cat([torch.full((rows,), g, device="cuda", dtype=torch.int32) for g, rows in enumerate(padded)])
            a, d = rows_quantised(sum(padded), k), torch.empty(sum(padded), n, device="cuda", dtype=torch.bfloat16)
            return lambda: deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, weights, d, groups)
        values, scales = rows_quantised(len(loads) * shape["m_max"], k)
        a = values.view(len(loads), -1, k), scales.view(len(loads), -1, k // 128)
        d = torch.empty(len(loads), shape["m_max"], n, device="cuda", dtype=torch.bfloat16)
        counts = torch.tensor(loads, device="cuda", dtype=torch.int32)
        masked = getattr(deep_gemm, "m_grouped_fp8_gemm_nt_masked", None) or deep_gemm.fp8_m_grouped_gemm_nt_masked
        return lambda: masked(a, weights, d, counts, shape["m"])

    if worker is not None:
        for shape in shapes()[worker::WORKERS]:
            call_of(shape)()
        return []
    flush = torch.empty(1_000_000_000, dtype=torch.int64, device="cuda")
    found = []
    for shape in shapes():
        call = call_of(shape)
        call()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            for _ in range(CALLS):
                flush.zero_()
                call()
            torch.cuda.synchronize()
        times = [event.device_time for event in trace.events() if "fp8_gemm" in event.name and event.device_time > 0]
        if len(times) != CALLS:
            raise RuntimeError(f"{shape}: {len(times)} kernel times, expected {CALLS}")
        found.append({"time_us": statistics.median(times), "min_us": min(times), "max_us": max(times)})
        del call
        torch.cuda.empty_cache()
    return found


def process(folder: str | None) -> list[dict[str, Any]]:
    environment = dict(os.environ)
    if folder:
        environment["PYTHONPATH"] = folder + os.pathsep + environment.get("PYTHONPATH", "")
    command = [sys.executable, __file__, "--measure"]
    workers = [subprocess.Popen([*command, "--worker", str(i)], env=environment, stdout=subprocess.DEVNULL) for i in range(WORKERS)]
    if any([worker.wait() for worker in workers]):
        raise RuntimeError(f"{folder or 'this package'}: a call failed")
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, check=True)
    times: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deepgemm", metavar="DIR", help="folder with DeepGEMM's package")
    parser.add_argument("--output", type=Path, metavar="FILE", help="report to write")
    # Of the processes that it starts:
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.worker)))
        return
    if not given.deepgemm or not given.output:
        parser.error("--deepgemm and --output are needed")
    sys.path.insert(0, str(ROOT / "tools"))
    from evidence import tree_digest

    import torch

    ours, theirs, again = process(None), process(given.deepgemm), process(None)
    rows = []
    for shape, first, rival, second in zip(shapes(), ours, theirs, again):
        time_us = (first["time_us"] + second["time_us"]) / 2
        rows.append({**shape, "ours": {**first, "again_us": second["time_us"]}, "deepgemm": rival, "speedup": rival["time_us"] / time_us})
        tokens = sum(shape["loads"]) or shape["m"]
        print(
            f"{shape['layout']:10} {len(shape['loads']) or 1:4} groups {tokens:6} x {shape['n']:5} x {shape['k']:5}"
            f"  ours {first['time_us']:7.1f} {second['time_us']:7.1f}  DeepGEMM {rival['time_us']:7.1f} us  {rows[-1]['speedup']:.3f}"
        )
    mean = math.exp(statistics.mean(math.log(row["speedup"]) for row in rows))
    print(f"speedup over it, geometric mean of {len(rows)}: {mean:.3f}")
    packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions(path=[given.deepgemm])}
    report = {
        "format": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "revision": os.environ.get("DG_REVISION"),
        "digest": tree_digest(),
        "command": " ".join(["python", "python/bench/beside_deepgemm.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rival": packages,
        "regime": "cool",
        "calls": CALLS,
        "speedup_geometric_mean": mean,
        "shapes": rows,
    }
    given.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
