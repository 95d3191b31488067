"""``python -m deep_gemm compile``: fills the kernel cache, for container images. Needs no GPU."""

from __future__ import annotations

import argparse
import os
import sys


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deep_gemm")
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "compile", help="compile kernels into the disk cache; needs no GPU"
    )
    command.add_argument("--model", help="all shapes of a model: deepseek-v3")
    command.add_argument("--shapes", help="CSV file with the columns m, n, k")
    command.add_argument("--max-m", type=int, default=16384, help="largest batch of --model (default: %(default)s)")
    command.add_argument("--num-groups", type=int, help="experts of --model that a GPU holds (default: those of 1, 8 and 32 GPUs)")
    command.add_argument("--device", default="h100", help="GPU to plan for: h100, h200, h800 (default: %(default)s)")
    command.add_argument("--jobs", type=int, help="kernels compiled at once (default: one a core)")
    command.add_argument("--cache", help="cache directory to fill (default: DG_JIT_CACHE_DIR, else ~/.cache/deep_gemm)")
    options = parser.parse_args()
    if options.cache:
        os.environ["DG_JIT_CACHE_DIR"] = options.cache
    from ._warmup import warmup

    try:
        reports = warmup(
            options.shapes,
            options.model,
            options.max_m,
            num_groups=options.num_groups,
            device=options.device,
            jobs=options.jobs,
        )
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        print(f"deep_gemm: {error}", file=sys.stderr)
        return 1
    for report in reports:
        seconds = "in the cache" if report["cached"] else f"{report['seconds']:.2f} s"
        print(f"{report['name']}  {report['registers']} registers, {report['spill_bytes']} bytes spilled, {seconds}")
    print(f"{len(reports)} kernels")
    return 0 if all(report["spill_bytes"] == 0 for report in reports) else 1


sys.exit(main())
