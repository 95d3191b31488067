# pyright/mypy read this file; it mirrors python/binding.cpp.
"""The extension module; the package's Python files document what it does."""

import enum
from collections.abc import Sequence
from typing import Any

version: str

class Layout(enum.Enum):
    dense = 0
    contiguous = 1
    offsets = 2
    masked = 3
    k_grouped = 4

class Parts:
    def __init__(self, address: int, dtype: str, shape: Sequence[int], strides: Sequence[int], ordinal: int) -> None: ...

def register_torch(base: type, exact: tuple[type, ...]) -> None: ...
def direct(python: Any, doc: str) -> Any: ...
def fp8_gemm_nt(
    a: Any, b: Any, d: Any, c: Any, recipe: Any, recipe_a: Any, recipe_b: Any, dtype: str | None, stream: int | None
) -> bool: ...
def m_grouped(
    layout: Layout,
    a: Any,
    b: Any,
    d: Any,
    groups_of: Any,
    expected_m: int,
    alignment: int,
    zero_padding: bool,
    recipe: Any,
    recipe_a: Any,
    recipe_b: Any,
    dtype: str | None,
    stream: int | None,
) -> bool: ...
def k_grouped(
    a: Any, b: Any, d: Any, ks: list[int], c: Any, recipe: Any, dtype: str | None, stream: int | None
) -> bool: ...
def quantize(
    rows_per_scale: int,
    cols_per_scale: int,
    x: Any,
    out: Any,
    scale: Any,
    power_of_two: bool,
    dtype: str | None,
    stream: int | None,
) -> bool: ...
def set_mk_alignment(value: int) -> None: ...
def get_num_sms() -> int: ...
def set_num_sms(value: int) -> None: ...
def get_pdl() -> bool: ...
def set_pdl(value: bool) -> None: ...
def get_compile_mode() -> int: ...
def set_compile_mode(value: int) -> None: ...
def device_sms(device: str) -> int: ...
def plan(layout: Layout, m: int, n: int, k: int, groups: int, device: str) -> tuple[int, ...]: ...
def kernels_for(layout: Layout, m: int, n: int, k: int, groups: int, device: str) -> list[tuple[int, ...]]: ...
def helper_kernels() -> int: ...
def compile(which: tuple[int, ...] | int) -> dict[str, Any]: ...
