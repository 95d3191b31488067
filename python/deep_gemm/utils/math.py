"""Arithmetic, and quantisation to FP8 (e4m3) with FP32 scales."""

from __future__ import annotations

from typing import Any

from .. import _C, _torch

Tensor = Any
_BLOCK = 128
_FP8_MAX = 448.0
_MANTISSA = (1 << 23) - 1
_SMALLEST_AMAX = 1e-4  # keeps the scale of a block of zeros a normal number


def ceil_div(x: int, y: int) -> int:
    """``x / y`` rounded up."""
    return (x + y - 1) // y


def align(x: int, y: int) -> int:
    """The smallest multiple of ``y`` that is at least ``x``."""
    return ceil_div(x, y) * y


def ceil_to_ue8m0(x: Tensor) -> Tensor:
    """The powers of two at or above the absolute values of a torch tensor, as FP32: from 2^-126, also for 0, to 2^127."""
    bits = x.abs().float().view(_torch.torch.int32).clamp(1 << 23, 254 << 23)
    # A mantissa that is not zero carries into the exponent.
    return ((bits + _MANTISSA) & ~_MANTISSA).view(_torch.torch.float32)


def _empty_like(x: Tensor, shape: tuple[int, int], fp8: bool) -> Tensor:
    """FP8 or FP32 in x's framework and on its device; in NumPy, FP8 is uint8."""
    torch = _torch.torch
    if torch is not None and isinstance(x, torch.Tensor):
        return x.new_empty(shape, dtype=torch.float8_e4m3fn if fp8 else torch.float32)
    import numpy

    return numpy.empty(shape, dtype=numpy.uint8 if fp8 else numpy.float32)


def _check_matrix(function: str, x: Tensor, gran_k: int) -> None:
    if len(getattr(x, "shape", ())) != 2:
        raise ValueError(f"{function}: x is {list(getattr(x, 'shape', ()))}, expected 2 dimensions")
    if gran_k < 1:
        raise ValueError(f"{function}: gran_k is {gran_k}, expected a positive number")


def _quantize(x: Tensor, rows: int, cols: int, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """By the library: one scale for 1 × 128, 128 × 128 or 128 × 1 elements."""
    m, n = x.shape
    out = _empty_like(x, (m, n), fp8=True)
    scale = _empty_like(x, (ceil_div(m, rows), ceil_div(n, cols)), fp8=False)
    if _torch.is_compiling() or not _C.quantize(rows, cols, x, out, scale, power_of_two, "e4m3", None):
        _torch.quantize(x, out, scale, rows, cols, power_of_two)
    return out, scale


def _quantize_by_torch(x: Tensor, rows: int, cols: int, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """The same for any block, in torch's own operations."""
    torch = _torch.torch
    if torch is None or not isinstance(x, torch.Tensor):
        raise TypeError(f"x is of type {type(x).__name__}; blocks of {rows} x {cols} are there for torch tensors alone")
    m, n = x.shape
    padded = torch.nn.functional.pad(x.float(), (0, align(n, cols) - n, 0, align(m, rows) - m))
    blocks = padded.view(ceil_div(m, rows), rows, ceil_div(n, cols), cols)
    scale = blocks.abs().amax(dim=(1, 3)).clamp(_SMALLEST_AMAX) / _FP8_MAX
    if power_of_two:
        scale = ceil_to_ue8m0(scale)
    out = (blocks / scale[:, None, :, None]).clamp(-_FP8_MAX, _FP8_MAX).to(torch.float8_e4m3fn)
    return out.view(padded.shape)[:m, :n].contiguous(), scale


def per_token_cast_to_fp8(x: Tensor, use_ue8m0: bool, gran_k: int = 128) -> tuple[Tensor, Tensor]:
    """Quantises ``x`` (BF16, FP16 or FP32, ``[m, k]``, stride 1 along k) with one scale for ``gran_k`` elements of a row.

    Returns e4m3 ``[m, k]`` (uint8 for NumPy) and FP32 scales ``[m, ceil(k / gran_k)]``, rounded up to powers of two with
    ``use_ue8m0``: the form of fp8_gemm_nt's ``a``. Raises ValueError for other shapes, dtypes and strides.
    """
    _check_matrix("per_token_cast_to_fp8", x, gran_k)
    if gran_k == _BLOCK:
        return _quantize(x, 1, _BLOCK, use_ue8m0)
    return _quantize_by_torch(x, 1, gran_k, use_ue8m0)


def per_block_cast_to_fp8(x: Tensor, use_ue8m0: bool, gran_k: int = 128) -> tuple[Tensor, Tensor]:
    """Quantises ``x`` (BF16, FP16 or FP32, ``[n, k]``, stride 1 along k) with one scale for 128 rows × ``gran_k`` columns.

    Returns e4m3 ``[n, k]`` (uint8 for NumPy) and FP32 scales ``[ceil(n / 128), ceil(k / gran_k)]``: the form of fp8_gemm_nt's
    ``b``. ``use_ue8m0`` and errors as in :func:`per_token_cast_to_fp8`.
    """
    _check_matrix("per_block_cast_to_fp8", x, gran_k)
    if gran_k == _BLOCK:
        return _quantize(x, _BLOCK, _BLOCK, use_ue8m0)
    return _quantize_by_torch(x, _BLOCK, gran_k, use_ue8m0)


def per_channel_cast_to_fp8(x: Tensor, use_ue8m0: bool, gran_k: int = 128) -> tuple[Tensor, Tensor]:
    """Quantises ``x`` (BF16, FP16 or FP32, ``[k, n]``, stride 1 along n) with one scale for ``gran_k`` elements of a column.

    Returns e4m3 ``[k, n]`` (uint8 for NumPy) and FP32 scales ``[ceil(k / gran_k), n]``: transposed, an operand of weight
    gradients, whose k are tokens. ``use_ue8m0`` and errors as in :func:`per_token_cast_to_fp8`.
    """
    _check_matrix("per_channel_cast_to_fp8", x, gran_k)
    if gran_k == _BLOCK:
        return _quantize(x, _BLOCK, 1, use_ue8m0)
    return _quantize_by_torch(x, gran_k, 1, use_ue8m0)
