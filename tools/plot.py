#!/usr/bin/env python3
"""Draws the reports of `deep_gemm bench --json FILE`.

    tools/plot.py bench/results/dense.json -o dense.svg

For each N×K: TFLOPS of ours and the rival where m is 4096 (bars), and the time over the streaming floor of smaller m
(lines). Needs matplotlib. The ending of the output names the format: .png, .svg or .pdf.
"""

import argparse
import json
import math
import sys
from pathlib import Path

OURS, RIVAL = "#1b6ca8", "#c9822b"
LARGE_M = 4096


def median_us(side):
    return side["time_us"]["median"] if side and "time_us" in side else None


def load(paths):
    """The reports' shapes, and one line on where they were measured."""
    shapes, sources = [], []
    for path in paths:
        report = json.loads(Path(path).read_text())
        shapes += report["shapes"]
        rival = (report.get("rival") or {}).get("name")
        sources.append(
            f"{report['device']['name']}, driver {report.get('driver') or 'unknown'}, regime {report['regime']}"
            f"{', beside ' + rival if rival else ''}, times by {report['timer']}, sources {report['digest'][:12]}"
        )
    return shapes, sources


def draw_large(axes, shapes):
    labels = [f"{s['n']}×{s['k']}" for s in shapes]
    sides = [("deep_gemm", "ours", OURS), ("cuBLASLt", "rival", RIVAL)]
    sides = [side for side in sides if any(median_us(s.get(side[1])) for s in shapes)]
    width = 0.8 / len(sides)
    for i, (name, key, colour) in enumerate(sides):
        at = [x + (i - (len(sides) - 1) / 2) * width for x in range(len(shapes))]
        values = [s[key]["tflops"] if median_us(s.get(key)) else 0 for s in shapes]
        bars = axes.bar(at, values, width, label=name, color=colour)
        axes.bar_label(bars, [f"{v:.0f}" if v else "" for v in values], fontsize=7)
    axes.set_xticks(range(len(shapes)), labels, rotation=20, ha="right")
    axes.set_ylabel("TFLOPS")
    axes.set_title(f"m = {LARGE_M}")
    axes.margins(y=0.2)  # the legend stands above the bars
    axes.legend(loc="upper right", ncols=len(sides))


def draw_small(axes, shapes, title):
    shapes = sorted(shapes, key=lambda s: s["m"])
    for name, key, colour in (("deep_gemm", "ours", OURS), ("cuBLASLt", "rival", RIVAL)):
        points = [(s["m"], median_us(s.get(key)) / s["floor"]["us"]) for s in shapes if median_us(s.get(key))]
        if points:
            axes.plot(*zip(*points), "o-", label=name, color=colour, markersize=4)
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_xticks([s["m"] for s in shapes], [str(s["m"]) for s in shapes])
    axes.set_xlabel("m")
    axes.set_title(title)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", help="JSON files of deep_gemm bench")
    parser.add_argument("-o", "--output", default="bench.svg", help="image to write (default bench.svg)")
    arguments = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot.py: matplotlib is missing: pip install matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "deep_gemm"  # the same report gives the same file
    import matplotlib.pyplot as plt

    shapes, sources = load(arguments.reports)
    shapes = [s for s in shapes if median_us(s["ours"])]
    if not shapes:
        sys.exit("plot.py: no shape in the reports was timed")
    large = [s for s in shapes if s["m"] == LARGE_M]
    small = {}
    for s in shapes:
        if s["m"] < LARGE_M:
            small.setdefault((s["n"], s["k"]), []).append(s)

    columns = min(3, max(1, len(small)))
    small_rows = math.ceil(len(small) / columns)
    rows = small_rows + bool(large)
    figure = plt.figure(figsize=(4 * max(columns, 2), 3.2 * rows + 0.4), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    if large:
        draw_large(figure.add_subplot(grid[0, :]), large)
    for i, ((n, k), group) in enumerate(small.items()):
        axes = figure.add_subplot(grid[bool(large) + i // columns, i % columns])
        draw_small(axes, group, f"n × k = {n} × {k}")
        if i % columns == 0:
            axes.set_ylabel("time over the streaming floor")
        if i == 0:
            axes.legend()
    figure.supxlabel("\n".join(sources), fontsize=7)
    svg = Path(arguments.output).suffix == ".svg"
    figure.savefig(arguments.output, dpi=150, metadata={"Date": None} if svg else None)
    print(f"{arguments.output}: {len(shapes)} shapes")


if __name__ == "__main__":
    main()
