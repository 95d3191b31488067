#!/usr/bin/env python3
"""The README's benchmark table from a report of `deep_gemm bench --json`, and a check that quoted reports are current.

    tools/evidence.py bench/results/dense.json     prints the table as Markdown
    tools/evidence.py --check README.md            warns of each bench/results/*.json that the file quotes and that was
                                                   measured with other device or launch sources, comments apart; with
                                                   --strict it exits 1
"""

import argparse
import functools
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def is_timed(path):
    """Whether the file decides how fast a product is: the list of bench/CMakeLists.txt."""
    return bool(re.fullmatch(r"device/.*\.cuh|src/(gemm|cuda)/.*\.(h|cpp)|src/context[^/]*\.(h|cpp)", path))


def timed_sources(root=ROOT):
    paths = [p.relative_to(root).as_posix() for folder in ("device", "src") for p in (root / folder).rglob("*")]
    return {path: (root / path).read_bytes() for path in paths if is_timed(path)}


def digest_of_sources(sources):
    """The digest that bench/digest.cmake builds into the program."""
    lines = "".join(f"{hashlib.sha256(sources[path]).hexdigest()}  {path}\n" for path in sorted(sources))
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def tree_digest(root=ROOT):
    return digest_of_sources(timed_sources(root))


def code_of(source):
    """C++ without comments, trailing blanks and empty lines; what stands in strings stays."""
    token = r'''R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])'|//[^\n]*|/\*.*?\*/'''
    kept = re.sub(token, lambda m: " " if m[0].startswith("/") else m[0], source, flags=re.DOTALL)
    return [line.rstrip() for line in kept.splitlines() if line.strip()]


@functools.cache
def changed_since(revision, digest, root=ROOT):
    """The timed sources whose code is not what it was in `revision`; None where git cannot tell, or where the sources of that
    revision are not those of `digest`."""

    def git(*arguments):
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=True).stdout

    if revision is None:
        return None
    try:
        listed = git("ls-tree", "-r", "--name-only", revision, "--", "device", "src").decode().splitlines()
        then = {path: git("show", f"{revision}:{path}") for path in listed if is_timed(path)}
    except (OSError, subprocess.CalledProcessError):
        return None
    if digest_of_sources(then) != digest:
        return None
    now = timed_sources(root)
    code = [{path: code_of(text.decode()) for path, text in sources.items()} for sources in (then, now)]
    return sorted(path for path in code[0].keys() | code[1].keys() if code[0].get(path) != code[1].get(path))


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
    """What is wrong with the reports that `document` quotes, one line each. Comments may differ: they are no part of a
    kernel."""
    quoted = sorted(set(re.findall(r"bench/results/[\w.-]+\.json", Path(document).read_text())))
    current = tree_digest(root)
    reports = {name: json.loads((root / name).read_text()) for name in quoted if (root / name).is_file()}
    revisions = {digest_of(report): report["revision"] for report in reports.values() if report.get("revision")}
    wrong = [f"{document} quotes {name}, which does not exist" for name in quoted if name not in reports]
    for name, report in reports.items():
        digest = digest_of(report)
        changed = [] if digest == current else changed_since(revisions.get(digest), digest, root)
        if changed != []:
            what = "other sources than the tree's" if changed is None else f"another {', '.join(changed)}"
            wrong.append(f"{document} quotes {name}, measured with {what}: run it again")
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
