"""Dense products."""

from __future__ import annotations

from typing import Any

from . import _C, _torch
from ._arguments import pair
from ._torch import direct, is_compiling

Tensor = Any
Operand = Any  # a tensor, or a pair (tensor, scales)


@direct
def fp8_gemm_nt(
    a: Operand,
    b: Operand,
    d: Tensor,
    c: Tensor | None = None,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    alpha: None = None,
    *,
    dtype: str | None = None,
    stream: int | None = None,
) -> None:
    """``d = a @ b.T`` (``+ c``) with FP8 operands and FP32 scales.

    Args:
        a: ``(data, scales)``, or data alone for unit scales. Data is FP8 (e4m3 or e5m2), ``[m, k]``, stride 1 along k; on CUDA
            base address and row pitch are multiples of 16 bytes. Scales are FP32, ``[m, ceil(k / 128)]``, any strides;
            :func:`get_mn_major_tma_aligned_tensor` gives the layout that is used as it is, others are transposed first.
        b: the same with data ``[n, k]`` and scales ``[ceil(n / 128), ceil(k / 128)]``; ``[n, ceil(k / 128)]``, like a's, with
            recipe ``(1, 1, 128)``.
        d: BF16 or FP32, ``[m, n]``, stride 1 along n, written in place.
        c: what is added, of d's dtype and shape; may be d itself.
        recipe: rows of a, rows of b and columns that share a scale: ``(1, 128, 128)``, which is the default, or ``(1, 1, 128)``.
        recipe_a, recipe_b: the same for each operand: ``(1, 128)``, and ``(128, 128)`` or ``(1, 128)``.
        compiled_dims, disable_ue8m0_cast: accepted, without effect.
        alpha: None: a factor is Blackwell's, and DeepGEMM refuses it on Hopper too.
        dtype: what uint8 operands of libraries without FP8 hold: ``"e4m3"`` or ``"e5m2"``. Their uint16 tensors are BF16.
        stream: address of a CUDA stream; by default the current one of torch or CuPy.

    m, n, k may be 0. Tensors all lie on one device, the CPU or a Hopper GPU, where the call is enqueued on the stream and can be
    captured into a CUDA graph once its kernel is compiled.

    Raises:
        ValueError: a shape, dtype, stride, alignment or device is not as above; nothing has been written.
        TypeError: an argument is no tensor.
        RuntimeError: the machine lacks something (driver, GPU, NVRTC), or a kernel did not compile.
    """
    if alpha is not None:
        raise ValueError(f"fp8_gemm_nt: alpha is {alpha!r}, expected None: Hopper's products have no factor")
    if is_compiling() or not _C.fp8_gemm_nt(a, b, d, c, recipe, recipe_a, recipe_b, dtype, stream):
        _torch.gemm(a, b, d, c, (recipe, recipe_a, recipe_b), dtype, stream)


def _transposed(function: str, name: str, operand: Operand, shape: str) -> Operand:
    """A K-major view of an operand that is given with k as its first dimension."""
    data, scales = pair(function, name, operand)
    if len(data.shape) != 2:
        raise ValueError(f"{function}: {name} has {len(data.shape)} dimensions, expected 2")
    strides = data.stride() if hasattr(data, "stride") else [s // data.itemsize for s in data.strides]
    if data.shape[0] > 1 and strides[0] != 1:
        raise ValueError(
            f"{function}: {name} is {list(data.shape)} with strides {list(strides)}, expected stride 1 along its first dimension, k: "
            f"Hopper multiplies K-major FP8 alone, so pass the transposed view of a {shape} tensor"
        )
    return data.T, None if scales is None else scales.T


def _as_views(name: str, doc: str, a_shape: str | None = None, b_shape: str | None = None) -> Any:
    """A product whose operands, where a shape is given for them, are transposed views of matrices of that shape."""

    def product(
        a: Operand,
        b: Operand,
        d: Tensor,
        c: Tensor | None = None,
        recipe: tuple[int, int, int] | None = None,
        recipe_a: tuple[int, int] | None = None,
        recipe_b: tuple[int, int] | None = None,
        compiled_dims: str = "nk",
        disable_ue8m0_cast: bool = False,
        alpha: None = None,
        *,
        dtype: str | None = None,
        stream: int | None = None,
    ) -> None:
        if a_shape:
            a = _transposed(name, "a", a, a_shape)
        if b_shape:
            b = _transposed(name, "b", b, b_shape)
        fp8_gemm_nt(a, b, d, c, recipe, recipe_a, recipe_b, alpha=alpha, dtype=dtype, stream=stream)

    product.__name__ = product.__qualname__ = name
    product.__doc__ = doc
    return product


fp8_gemm_nn = _as_views(
    "fp8_gemm_nn",
    """``d = a @ b`` (``+ c``): :func:`fp8_gemm_nt` with b as ``[k, n]`` and its scales transposed likewise.

    b's stride along k is 1: a transposed view of ``[n, k]``. Any other b raises ValueError.
    """,
    b_shape="[n, k]",
)
fp8_gemm_tn = _as_views(
    "fp8_gemm_tn",
    """``d = a.T @ b`` (``+ c``): :func:`fp8_gemm_nt` with a as ``[k, m]``, b as ``[k, n]`` and their scales transposed likewise.

    Strides along k are 1: transposed views of ``[m, k]`` and ``[n, k]``. Others raise ValueError.
    """,
    "[m, k]",
    "[n, k]",
)
fp8_gemm_tt = _as_views(
    "fp8_gemm_tt",
    """``d = a.T @ b.T`` (``+ c``): :func:`fp8_gemm_nt` with a as ``[k, m]`` and its scales transposed likewise.

    a's stride along k is 1: a transposed view of ``[m, k]``. Any other a raises ValueError.
    """,
    "[m, k]",
)

# FP4 weights are Blackwell's; FP8 ones go under these names too.
fp8_fp4_gemm_nt, fp8_fp4_gemm_nn, fp8_fp4_gemm_tn, fp8_fp4_gemm_tt = fp8_gemm_nt, fp8_gemm_nn, fp8_gemm_tn, fp8_gemm_tt


def made(function: str, lhs: Operand, rhs: Operand) -> Tensor:
    """What a call of the first release writes to where it was not given ``out``."""
    a, b = pair(function, "lhs", lhs)[0], pair(function, "rhs", rhs)[0]
    if not hasattr(a, "new_empty"):
        raise TypeError(f"{function}: lhs is of type {type(a).__name__}: out can be left out for torch tensors alone")
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise ValueError(f"{function}: lhs is {list(a.shape)} and rhs {list(b.shape)}, expected at least 2 dimensions")
    return a.new_empty((*a.shape[:-1], b.shape[-2]), dtype=_torch.torch.bfloat16)


def gemm_fp8_fp8_bf16_nt(lhs: Operand, rhs: Operand, out: Tensor | None = None) -> Tensor:
    """``out = lhs @ rhs.T`` under the name and order of DeepGEMM's first release; returns ``out``.

    ``lhs`` and ``rhs`` as a and b of :func:`fp8_gemm_nt`. Without ``out`` a BF16 torch tensor ``[m, n]`` is made.
    """
    if out is None:
        out = made("gemm_fp8_fp8_bf16_nt", lhs, rhs)
    fp8_gemm_nt(lhs, rhs, out)
    return out


def wgrad_gemm_fp8_fp8_fp32_nt(lhs: Operand, rhs: Operand, out: Tensor) -> None:
    """``out += lhs @ rhs.T`` under the name and order of DeepGEMM 1.x: :func:`fp8_gemm_nt` with recipe ``(1, 1, 128)``, out as ``c``.

    Data is ``[m, k]`` and ``[n, k]``, scales ``[m, ceil(k / 128)]`` and ``[n, ceil(k / 128)]``, or the same transposed. ``out`` is
    FP32, ``[m, n]``.
    """

    def turned(name: str, operand: Operand) -> Operand:
        data, scales = pair("wgrad_gemm_fp8_fp8_fp32_nt", name, operand)
        # Where both are possible they are not transposed, which is what 1.x documents.
        if scales is None or len(scales.shape) != 2 or scales.shape[0] == data.shape[0]:
            return data, scales
        return data, scales.T

    fp8_gemm_nt(turned("lhs", lhs), turned("rhs", rhs), out, out, (1, 1, 128))
