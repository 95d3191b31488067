#!/usr/bin/env python3
"""The numbers of test cases in the README's table, counted.

    tools/count_tests.py                    prints them: those of CTest by label from build/, pytest's from build/python
    tools/count_tests.py --check README.md  warns of rows that say something else; with --strict it exits 1
    tools/count_tests.py --update README.md writes them

A group that was not built here is not looked at.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| (\w+) \| (\d+) \|", re.MULTILINE)


def ctest_counts(build):
    if not (build / "CTestTestfile.cmake").is_file():
        return {}
    listing = subprocess.run(
        ["ctest", "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True, check=True
    )
    counts = {}
    for test in json.loads(listing.stdout)["tests"]:
        properties = {p["name"]: p["value"] for p in test.get("properties", [])}
        labels = properties.get("LABELS", [])
        if labels and not properties.get("DISABLED"):
            counts[labels[-1]] = counts.get(labels[-1], 0) + 1
    return counts


def pytest_counts(python):
    if not python.is_file():
        return {}
    command = [python, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "python/tests"]
    found = re.search(r"^(\d+) tests collected", subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout, re.M)
    return {"python": int(found[1])} if found else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="CMake's build directory (default: build)")
    parser.add_argument("--python", type=Path, help="interpreter with deep_gemm and pytest (default: the wheel test's)")
    parser.add_argument("--check", metavar="FILE", type=Path, help="document whose table is compared")
    parser.add_argument("--update", metavar="FILE", type=Path, help="document whose table is written")
    parser.add_argument("--strict", action="store_true", help="with --check: exit 1 where a number is wrong")
    arguments = parser.parse_args()
    python = arguments.python or arguments.build / "python/env-torch/bin/python"
    counts = ctest_counts(arguments.build) | pytest_counts(python)
    for group, count in counts.items():
        print(f"{group}\t{count}")
    document = arguments.check or arguments.update
    if not document:
        return
    text = document.read_text()
    table = re.search(r"<!-- tests:begin -->.*?<!-- tests:end -->", text, re.DOTALL)
    if not table:
        sys.exit(f"count_tests.py: {document} has no table between <!-- tests:begin --> and <!-- tests:end -->")
    if arguments.update:
        new = ROW.sub(lambda row: f"| {row[1]} | {counts.get(row[1], row[2])} |", table[0])
        document.write_text(text.replace(table[0], new))
        return
    said = {group: int(count) for group, count in ROW.findall(table[0])}
    wrong = [group for group, count in counts.items() if said.get(group) != count]
    for group in wrong:
        print(
            f"count_tests.py: warning: {document} says {said.get(group)} {group} tests, there are {counts[group]}: "
            f"run tools/count_tests.py --update {document}",
            file=sys.stderr,
        )
    if wrong and arguments.strict:
        sys.exit(1)


if __name__ == "__main__":
    main()
