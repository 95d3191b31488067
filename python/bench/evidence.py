"""All that the Python package shows on a machine, in one JSON file: tests, examples, host time.

    python python/bench/evidence.py --output bench/results/python.json

Each part runs in a process of its own. Exits with 1 where a part fails; the file then says which.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout[-4000:], flush=True)
    return done.returncode, done.stdout


def tests(folder: Path) -> dict[str, Any]:
    code, _ = run("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={folder / 'tests.xml'}", "python/tests")
    suite = xml.etree.ElementTree.parse(folder / "tests.xml").getroot().find("testsuite")
    assert suite is not None
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    count["passed"] = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    why = [case.find("skipped").attrib["message"] for case in suite.iter("testcase") if case.find("skipped") is not None]
    failed = [case.attrib["name"] for case in suite.iter("testcase") if case.find("failure") is not None or case.find("error") is not None]
    return {"ok": code == 0, **count, "failed": failed, "skipped_because": sorted(set(why))}


def host_time(folder: Path) -> dict[str, Any]:
    file = folder / "host.json"
    code, _ = run("python/bench/host_time.py", "--json", str(file))
    return {"ok": code == 0, **(json.loads(file.read_text()) if code == 0 else {})}


def minilm(device: str, folder: Path) -> dict[str, Any]:
    """The least cosine over the sentences by the number of products a layer; `default` is what the example asks 0.999 of."""
    file = folder / f"minilm-{device}.json"
    model = ("--model", os.environ["DG_MINILM"]) if "DG_MINILM" in os.environ else ()
    code, _ = run("examples/python/minilm.py", "--device", device, "--json", str(file), *model)
    return {"ok": code == 0, **(json.loads(file.read_text()) if file.exists() else {})}


def moe(device: str) -> dict[str, Any]:
    code, text = run("examples/python/moe.py", "--device", device)
    return {"ok": code == 0, "output": text.splitlines()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    import torch

    import deep_gemm
    from evidence import tree_digest

    cuda = torch.cuda.is_available()
    devices = ["cpu", "cuda"] if cuda else ["cpu"]
    report: dict[str, Any] = {
        "what": "the Python package: tests, examples, host time",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "digest": tree_digest(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cpu": platform.processor() or platform.machine(),
        "deep_gemm": deep_gemm.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "nanobind_backend": importlib.metadata.version("nanobind-backend"),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Before the tests, whose kernels do not matter to it, on a cache of its own.
        os.environ["DG_JIT_CACHE_DIR"] = str(folder / "cache")
        report["host_time"] = host_time(folder)
        report["moe"] = {device: moe(device) for device in devices}
        report["minilm"] = {device: minilm(device, folder) for device in devices}
        report["tests"] = tests(folder)
    parts = [report["host_time"], report["tests"], *report["moe"].values(), *report["minilm"].values()]
    report["ok"] = all(part["ok"] for part in parts)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{options.output}: {'all parts passed' if report['ok'] else 'FAILED'}")
    sys.exit(0 if report["ok"] else 1)


if __name__ == "__main__":
    main()
