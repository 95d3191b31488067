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


def _quantize(function: str, x: Tensor, rows: int, cols: int, gran_k: int, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """One scale for ``rows`` × ``cols`` elements: by the library, or by torch where ``gran_k`` is not the library's."""
    shape = getattr(x, "shape", None)
    if shape is None:
        raise TypeError(f"{function}: x is of type {type(x).__name__}, expected a tensor")
    if len(shape) != 2:
        raise ValueError(f"{function}: x is {list(shape)}, expected 2 dimensions")
    if gran_k < 1:
        raise ValueError(f"{function}: gran_k is {gran_k}, expected a positive number")
    if gran_k != _BLOCK:
        return _quantize_by_torch(function, x, rows, cols, power_of_two)
    m, n = shape
    scales = ceil_div(m, rows), ceil_div(n, cols)
    torch = _torch.torch
    if torch is not None and isinstance(x, torch.Tensor):
        if x.layout == torch.strided and not x.is_contiguous():
            x = _with_rows(x)
        out, scale = x.new_empty((m, n), dtype=torch.float8_e4m3fn), x.new_empty(scales, dtype=torch.float32)
    else:
        import numpy

        out, scale = numpy.empty((m, n), dtype=numpy.uint8), numpy.empty(scales, dtype=numpy.float32)
    if _torch.is_compiling() or not _C.quantize(rows, cols, x, out, scale, bool(power_of_two), "e4m3", None):
        _torch.quantize(x, out, scale, rows, cols, bool(power_of_two))
    return out, scale


def _with_rows(x: Tensor) -> Tensor:
    """A copy of a view that is transposed, expanded or has gaps in its rows: the library reads rows with stride 1, each once."""
    return x if x.stride(1) == 1 and x.stride(0) >= x.shape[1] else x.contiguous()


def _quantize_by_torch(function: str, x: Tensor, rows: int, cols: int, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """The same for any block, in torch's own operations."""
    torch = _torch.torch
    if torch is None or not isinstance(x, torch.Tensor):
        raise TypeError(f"{function}: x is of type {type(x).__name__}: blocks of {rows} x {cols} are there for torch tensors alone")
    if x.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise ValueError(f"{function}: x is {x.dtype}, expected bf16, f16 or f32")
    m, n = x.shape
    padded = torch.nn.functional.pad(x.float(), (0, align(n, cols) - n, 0, align(m, rows) - m))
    blocks = padded.view(ceil_div(m, rows), rows, ceil_div(n, cols), cols)
    # As the library does it: a NaN stays one and lets its block be, an infinity makes the block's scale infinite.
    magnitudes = torch.where(blocks.isnan(), 0.0, blocks.abs())
    scale = magnitudes.amax(dim=(1, 3)).clamp(_SMALLEST_AMAX) / _FP8_MAX
    if power_of_two:
        scale = torch.where(scale.isinf(), scale, ceil_to_ue8m0(scale))
    out = (blocks / scale[:, None, :, None]).clamp(-_FP8_MAX, _FP8_MAX).to(torch.float8_e4m3fn)
    return out.view(padded.shape)[:m, :n].contiguous(), scale


def per_token_cast_to_fp8(
    x: Tensor, use_ue8m0: bool, gran_k: int = 128, use_packed_ue8m0: bool = False
) -> tuple[Tensor, Tensor]:
    """Quantises ``x`` (BF16, FP16 or FP32, ``[m, k]``) with one scale for ``gran_k`` elements of a row.

    Any torch view will do; those without stride 1 along k are copied first, and NumPy's are refused. Returns e4m3 ``[m, k]`` (uint8
    for NumPy) and FP32 scales ``[m, ceil(k / gran_k)]``, rounded up to powers of two with ``use_ue8m0``: the form of
    fp8_gemm_nt's ``a``. ``use_packed_ue8m0`` is False: packed scales are Blackwell's. Raises ValueError for other shapes and
    dtypes, TypeError for what is no tensor.
    """
    if use_packed_ue8m0:
        raise ValueError(f"per_token_cast_to_fp8: use_packed_ue8m0 is {use_packed_ue8m0!r}, expected False: Hopper's scales are FP32")
    return _quantize("per_token_cast_to_fp8", x, 1, gran_k, gran_k, use_ue8m0)


def per_block_cast_to_fp8(x: Tensor, use_ue8m0: bool, gran_k: int = 128) -> tuple[Tensor, Tensor]:
    """Quantises ``x`` (BF16, FP16 or FP32, ``[n, k]``) with one scale for ``gran_k`` rows × ``gran_k`` columns.

    Returns e4m3 ``[n, k]`` (uint8 for NumPy) and FP32 scales ``[ceil(n / gran_k), ceil(k / gran_k)]``: with 128 the form of
    fp8_gemm_nt's ``b``. ``use_ue8m0``, views and errors as in :func:`per_token_cast_to_fp8`.
    """
    return _quantize("per_block_cast_to_fp8", x, gran_k, gran_k, gran_k, use_ue8m0)


def per_channel_cast_to_fp8(x: Tensor, use_ue8m0: bool, gran_k: int = 128) -> tuple[Tensor, Tensor]:
    """Quantises ``x`` (BF16, FP16 or FP32, ``[k, n]``) with one scale for ``gran_k`` elements of a column.

    Returns e4m3 ``[k, n]`` (uint8 for NumPy) and FP32 scales ``[ceil(k / gran_k), n]``: transposed, an operand of weight
    gradients, whose k are tokens. ``use_ue8m0``, views and errors as in :func:`per_token_cast_to_fp8`.
    """
    return _quantize("per_channel_cast_to_fp8", x, gran_k, 1, gran_k, use_ue8m0)
