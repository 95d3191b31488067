"""Kernels ahead of time: which ones a model needs, and filling the disk cache with them. Needs no GPU."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import _C

Key = tuple[int, ...]

_LAYOUTS = {
    "Normal": _C.Layout.dense,
    "MGroupedContiguous": _C.Layout.contiguous,
    "MGroupedContiguousWithPsumLayout": _C.Layout.offsets,
    "MGroupedMasked": _C.Layout.masked,
    "KGroupedContiguous": _C.Layout.k_grouped,
}

# (n, k) of every dense product that serving the model without tensor parallelism makes.
MODELS: dict[str, list[tuple[int, int]]] = {
    "deepseek-v3": [
        (2112, 7168),  # q_a_proj and kv_a_proj_with_mqa side by side
        (24576, 1536),  # q_b_proj
        (32768, 512),  # kv_b_proj
        (7168, 16384),  # o_proj
        (36864, 7168),  # gate and up of the three dense layers
        (7168, 18432),  # down of the three dense layers
        (4096, 7168),  # gate and up of the shared expert
        (7168, 2048),  # down of the shared expert
    ]
}
# (n, k) of an expert's products, and how many experts a GPU holds: all on one, or spread over 8 or 32.
EXPERTS: dict[str, tuple[list[tuple[int, int]], list[int]]] = {
    "deepseek-v3": ([(4096, 7168), (7168, 2048)], [256, 32, 8])
}
# From here on all kernels are taken that any m uses: asking for each m would take longer than compiling them.
_MANY_ROWS = 512
_LADDER_TOP = 16384


def get_best_gemm_config_key(gemm_type: str, mma: str, m: int, n: int, k: int, num_groups: int = 1) -> Key:
    """A hashable key of the kernel that a product of m × n × k runs: those of equal keys share it.

    Args:
        gemm_type: ``"Normal"``, ``"MGroupedContiguous"``, ``"MGroupedContiguousWithPsumLayout"``, ``"MGroupedMasked"`` or
            ``"KGroupedContiguous"``.
        mma: ``"fp8"``.
        m: rows of A; for ``"MGroupedMasked"`` what a group is expected to have.
        k: for ``"KGroupedContiguous"`` of the largest group.
        num_groups: groups of B; 1 for ``"Normal"``.

    Raises ValueError for kinds of products that there are no kernels for and for sizes below 0. The GPU is an H100 with the SMs that
    set_num_sms set.
    """
    if gemm_type not in _LAYOUTS or mma != "fp8" or num_groups < 1 or (gemm_type == "Normal" and num_groups != 1):
        raise ValueError(
            f"get_best_gemm_config_key: {gemm_type!r}, {mma!r}, num_groups = {num_groups}: "
            f"expected one of {', '.join(map(repr, _LAYOUTS))}, 'fp8' and at least 1 (1 for 'Normal')"
        )
    if min(m, n, k) < 0:
        raise ValueError(f"get_best_gemm_config_key: m, n, k = {m}, {n}, {k}: expected 0 or more")
    return _plan(gemm_type, m, n, k, num_groups, _C.get_num_sms())


@lru_cache(maxsize=1 << 16)
def _plan(gemm_type: str, m: int, n: int, k: int, num_groups: int, num_sms: int) -> Key:
    return _C.plan(_LAYOUTS[gemm_type], m, n, k, num_groups, "h100")


def _expert_keys(model: str, num_groups: int | None, device: str) -> list[Key]:
    """For every layout, all kernels that any number of rows uses."""
    shapes, counts = EXPERTS[model]
    if num_groups is not None:
        counts = [num_groups]
    layouts = _C.Layout.contiguous, _C.Layout.offsets, _C.Layout.masked
    return [
        key
        for n, k in shapes
        for groups in counts
        for layout in layouts
        for key in _C.kernels_for(layout, _LADDER_TOP, n, k, groups, device)
    ]


def _read_csv(path: str | os.PathLike[str]) -> list[tuple[int, ...]]:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    dense = [row for row in rows if row.get("layout", "dense") == "dense"]
    return [tuple(int(row[name]) for name in ("m", "n", "k")) for row in dense]


def _keys(shapes: Iterable[tuple[int, ...]], max_m: int, device: str) -> list[Key]:
    keys: dict[Key, None] = {}
    for shape in shapes:
        if len(shape) == 3:
            keys[_C.plan(_C.Layout.dense, *shape, 1, device)] = None
            continue
        if len(shape) != 2:
            raise ValueError(f"warmup: shape {tuple(shape)}, expected (n, k) or (m, n, k)")
        n, k = shape
        if max_m <= _MANY_ROWS:
            found = [_C.plan(_C.Layout.dense, m, n, k, 1, device) for m in range(1, max_m + 1)]
        else:
            found = _C.kernels_for(_C.Layout.dense, _LADDER_TOP, n, k, 1, device)
        keys.update(dict.fromkeys(found))
    return list(keys)


def _with_progress(items: Iterator[Any], total: int) -> Iterator[Any]:
    try:
        from tqdm import tqdm
    except ImportError:
        for done, item in enumerate(items, 1):
            sys.stderr.write(f"\rdeep_gemm: {done} of {total} kernels" + ("\n" if done == total else ""))
            sys.stderr.flush()
            yield item
    else:
        yield from tqdm(items, total=total, desc="deep_gemm", unit="kernel")


def warmup(
    shapes: Iterable[tuple[int, ...]] | str | Path | None = None,
    model: str | None = None,
    max_m: int = 16384,
    *,
    num_groups: int | None = None,
    device: str = "h100",
    jobs: int | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Compiles kernels into the disk cache, several at once; what is there already is left alone.

    Args:
        shapes: ``(n, k)`` for every m up to ``max_m``, ``(m, n, k)`` for that m alone, or a CSV file with columns m, n, k (and
            layout, of which dense is taken).
        model: ``"deepseek-v3"``: what its dense layers and experts need, quantisation and scale layouts included.
        max_m: the largest batch. Up to 512, dense kernels that only larger ones use are left out.
        num_groups: experts of the model that a GPU holds; by default what 1, 8 and 32 GPUs do.
        device: what to plan for: ``"h100"``, ``"h200"`` or ``"h800"``.
        jobs: kernels compiled at once; by default one a core.
        progress: draws a bar on stderr (tqdm's where it is installed).

    Returns a dict for each kernel: name, compiler, cached, seconds, registers, spill_bytes. Raises ValueError for a model or
    device it does not know, RuntimeError where there is no compiler or a kernel does not compile.
    """
    wanted: list[tuple[int, ...]] = []
    if model is not None:
        if model not in MODELS:
            raise ValueError(f"warmup: model is {model!r}, expected one of {', '.join(map(repr, MODELS))}")
        wanted += MODELS[model]
    if shapes is not None:
        wanted += _read_csv(shapes) if isinstance(shapes, (str, os.PathLike)) else shapes
    if not wanted:
        raise ValueError("warmup: neither shapes nor model given")
    if max_m < 1:
        raise ValueError(f"warmup: max_m is {max_m}, expected a positive number")
    keys = _keys(wanted, max_m, device)
    if model is not None:
        keys = list(dict.fromkeys(keys + _expert_keys(model, num_groups, device)))
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        kernels = [*keys, *(range(_C.helper_kernels()) if model is not None else ())]
        futures = [pool.submit(_C.compile, kernel) for kernel in kernels]
        try:
            done = as_completed(futures)
            reports = [future.result() for future in (_with_progress(done, len(kernels)) if progress else done)]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return sorted(reports, key=lambda report: report["name"])
