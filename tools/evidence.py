#!/usr/bin/env python3
"""The README's benchmark table from a report of `deep_gemm bench --json`, and a check that quoted reports are current.

    tools/evidence.py bench/results/dense.json     prints the table as Markdown
    tools/evidence.py --check README.md            warns of each bench/results/*.json that the file quotes and that was
                                                   measured with other device or launch sources; with --strict it exits 1
"""

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tree_digest(root=ROOT):
    """The digest that bench/CMakeLists.txt and bench/digest.cmake build into the program."""
    files = list((root / "device").rglob("*.cuh"))
    for folder in ("src/gemm", "src/cuda"):
        files += [p for p in (root / folder).rglob("*") if p.suffix in (".h", ".cpp")]
    files += [p for p in (root / "src").glob("context*") if p.suffix in (".h", ".cpp")]
    paths = sorted(p.relative_to(root).as_posix() for p in files)
    lines = "".join(f"{hashlib.sha256((root / path).read_bytes()).hexdigest()}  {path}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def cells(side):
    if not side or "time_us" not in side:
        return ["–", "–"]
    check = side.get("check")
    wrong = " (wrong)" if check and check["mismatches"] else ""
    us = side["time_us"]["median"]
    return [f"{us:.1f}{wrong}", f"{side['tflops']:.0f}"]


def means_text(means):
    return ", ".join(f"{m['geomean']:.3f} ({over}, {m['shapes']} shapes)" for over, m in means.items())


def table(report):
    rival = report.get("rival")
    head = ["m", "n", "k", "µs", "TFLOPS"]
    if rival:
        head += [f"{rival['name'] or 'rival'} µs", "TFLOPS", "ratio"]
    head += ["floor µs", "time / floor"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---:"] * len(head)) + " |"]
    for s in report["shapes"]:
        row = [str(s["m"]), str(s["n"]), str(s["k"])] + cells(s["ours"])
        if rival:
            row += cells(s.get("rival"))
            row.append(f"{s['speedup']:.3f}" if "speedup" in s else "–")
        floor = s["floor"]["us"]
        row.append(f"{floor:.1f}" if floor else "–")
        row.append(f"{s['ours']['over_floor']:.2f}" if "over_floor" in s["ours"] else "–")
        lines.append("| " + " | ".join(row) + " |")
    clocks = [s["clocks"] for s in report["shapes"] if s.get("clocks")]
    about = (
        f"{report['device']['name']}, driver {report.get('driver') or 'unknown'}, CUDA {report['cuda']}, "
        f"{report['date'][:10]}, regime {report['regime']}, median of {report['repeats']} calls by {report['timer']}"
    )
    if clocks:
        low, high = min(c["sm_mhz_min"] for c in clocks), max(c["sm_mhz_max"] for c in clocks)
        about += f", SM clock {low}–{high} MHz (sampled every 20 ms, so mostly between the kernels)"
    lines += ["", about + "."]
    summary = report["summary"]
    if summary.get("speedup"):
        lines.append(f"Speedup over {rival['name']}, geometric mean: {means_text(summary['speedup'])}.")
    if summary.get("over_floor"):
        lines.append(f"Time over the streaming floor, geometric mean: {means_text(summary['over_floor'])}.")
    if report.get("command"):
        lines.append(f"Command: `{report['command']}`.")
    return "\n".join(lines)


def digest_of(report):
    """Google Benchmark keeps what is not its own under "context"."""
    return report.get("digest") or report.get("context", {}).get("digest")


def check(document, root=ROOT):
    """What is wrong with the reports that `document` quotes, one line each."""
    quoted = sorted(set(re.findall(r"bench/results/[\w.-]+\.json", Path(document).read_text())))
    current = tree_digest(root)
    wrong = []
    for name in quoted:
        path = root / name
        if not path.is_file():
            wrong.append(f"{document} quotes {name}, which does not exist")
        elif (digest := digest_of(json.loads(path.read_text()))) != current:
            wrong.append(f"{document} quotes {name}, measured with sources {digest}; the tree is at {current}: run it again")
    return quoted, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", nargs="?", help="JSON file of deep_gemm bench")
    parser.add_argument("--check", metavar="FILE", help="document whose quoted reports are compared with the tree")
    parser.add_argument("--strict", action="store_true", help="with --check: exit 1 where a report is stale")
    parser.add_argument("--digest", action="store_true", help="print the digest of the current tree")
    arguments = parser.parse_args()
    if not (arguments.report or arguments.check or arguments.digest):
        parser.error("expected a report, --check FILE or --digest")
    if arguments.digest:
        print(tree_digest())
    if arguments.report:
        print(table(json.loads(Path(arguments.report).read_text())))
    if arguments.check:
        quoted, wrong = check(arguments.check)
        for line in wrong:
            print(f"evidence.py: warning: {line}", file=sys.stderr)
        print(f"{arguments.check}: {len(quoted)} reports quoted, {len(wrong)} stale or missing", file=sys.stderr)
        if wrong and arguments.strict:
            sys.exit(1)


if __name__ == "__main__":
    main()
