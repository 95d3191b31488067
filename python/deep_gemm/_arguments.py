"""Checks of arguments that Python changes before the extension sees them. Errors name the function that was called."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any


def _check_tensor(function: str, name: str, given: Any) -> None:
    if not hasattr(type(given), "T"):
        raise TypeError(f"{function}: {name} is of type {type(given).__name__}, expected a tensor")


def pair(function: str, name: str, operand: Any) -> tuple[Any, Any]:
    """Data and scales, which may be None, of an operand: tensors that can be transposed."""
    parts = operand if isinstance(operand, (tuple, list)) else (operand, None)
    if len(parts) != 2:
        raise TypeError(f"{function}: {name} is not a tensor and not a pair (tensor, scales)")
    data, scales = parts
    _check_tensor(function, name, data)
    if scales is not None:
        _check_tensor(function, f"scale_{name}", scales)
    return data, scales


def integer(function: str, name: str, given: Any, bits: int) -> int:
    """A number that C++ has room for."""
    try:
        value = operator.index(given)
    except TypeError:
        value = None
    if value is None or not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise ValueError(f"{function}: {name} is {given!r}, expected an integer below 2^{bits - 1}")
    return value


def integers(function: str, name: str, given: Any) -> list[int]:
    """The numbers of a tensor, or of whatever else can be gone through."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{function}: {name} is of type {type(given).__name__}, expected a list of integers")
    return [integer(function, f"{name}[{i}]", size, 32) for i, size in enumerate(given)]
