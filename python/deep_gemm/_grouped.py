"""Products of a mixture of experts: rows of A against the B of the group they belong to, in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _C, _settings, _torch
from ._arguments import integer, integers, pair
from ._gemm import Operand, Tensor, made
from ._torch import direct, is_compiling

_TILE_ROWS = 128


def _call(
    layout: str,
    a: Operand,
    b: Operand,
    d: Tensor,
    groups_of: Tensor,
    expected_m: int,
    alignment: int,
    zero_padding: bool,
    recipes: tuple[Any, Any, Any],
    dtype: str | None,
    stream: int | None,
) -> None:
    given = groups_of, expected_m, alignment, zero_padding
    if is_compiling() or not _C.m_grouped(getattr(_C.Layout, layout), a, b, d, *given, *recipes, dtype, stream):
        _torch.m_grouped(layout, a, b, d, *given, recipes, dtype, stream)


def _either(function: str, grouped_layout: Tensor | None, m_indices: Tensor | None) -> Tensor:
    if (grouped_layout is None) == (m_indices is None):
        raise TypeError(f"{function}: grouped_layout is also called m_indices; give it once")
    return m_indices if grouped_layout is None else grouped_layout


@direct
def m_grouped_fp8_gemm_nt_contiguous(
    a: Operand,
    b: Operand,
    d: Tensor,
    grouped_layout: Tensor | None = None,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    expected_m_for_psum_layout: int | None = None,
    *,
    dtype: str | None = None,
    stream: int | None = None,
    m_indices: Tensor | None = None,
) -> None:
    """``d[row] = a[row] @ b[group of row].T`` for rows of all groups one after the other.

    Args:
        a: data ``[m, k]`` and scales ``[m, ceil(k / 128)]``, or data alone, as for :func:`fp8_gemm_nt`.
        b: data ``[groups, n, k]`` and scales ``[groups, ceil(n / 128), ceil(k / 128)]``; a group's pitch is a multiple of 16 bytes.
        d: BF16 or FP32, ``[m, n]``, written in place.
        grouped_layout: int32 on the tensors' device; the host does not read it. ``[m]``: the group of each row, -1 for padding,
            where a group starts at a multiple of 128. With ``use_psum_layout`` ``[groups]``: the row after each group's last, where
            a group starts at the previous end rounded up to a multiple of :func:`get_mk_alignment_for_contiguous_layout`, 1 too.
            ``m_indices`` is another name of it; TypeError unless just one of them is given.
        ensure_zero_padding: with ``use_psum_layout``, rows up to that multiple become zeros in d; otherwise they stay.
        recipe, recipe_a, recipe_b, dtype, stream: as for :func:`fp8_gemm_nt`.
        compiled_dims, disable_ue8m0_cast, expected_m_for_psum_layout: accepted, without effect.

    Without ``use_psum_layout`` padding rows of d are the product of what a holds there, or zeros. Groups may be empty. Errors as
    for :func:`fp8_gemm_nt`.
    """
    groups_of = _either("m_grouped_fp8_gemm_nt_contiguous", grouped_layout, m_indices)
    alignment = _settings.get_mk_alignment_for_contiguous_layout()
    if not use_psum_layout and alignment % _TILE_ROWS:
        raise ValueError(
            f"m_grouped_fp8_gemm_nt_contiguous: the alignment set is {alignment}, expected a multiple of {_TILE_ROWS} "
            "without use_psum_layout"
        )
    layout = "offsets" if use_psum_layout else "contiguous"
    padding = bool(use_psum_layout and ensure_zero_padding)
    recipes = recipe, recipe_a, recipe_b
    _call(layout, a, b, d, groups_of, 0, alignment if use_psum_layout else 1, padding, recipes, dtype, stream)


def m_grouped_fp8_gemm_nn_contiguous(
    a: Operand,
    b: Operand,
    d: Tensor,
    grouped_layout: Tensor | None = None,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    expected_m_for_psum_layout: int | None = None,
    *,
    dtype: str | None = None,
    stream: int | None = None,
    m_indices: Tensor | None = None,
) -> None:
    """:func:`m_grouped_fp8_gemm_nt_contiguous` with b as ``[groups, k, n]``, scales ``[groups, ceil(k / 128), ceil(n / 128)]``.

    b's stride along k is 1: a transposed view of ``[groups, n, k]``. Any other b raises ValueError.
    """
    groups_of = _either("m_grouped_fp8_gemm_nn_contiguous", grouped_layout, m_indices)
    data, scales = pair("m_grouped_fp8_gemm_nn_contiguous", "b", b)
    if len(data.shape) != 3:
        raise ValueError(f"m_grouped_fp8_gemm_nn_contiguous: b has {len(data.shape)} dimensions, expected 3")
    swap = (lambda t: t.transpose(-1, -2)) if hasattr(data, "stride") else (lambda t: t.swapaxes(-1, -2))
    flipped = swap(data), None if scales is None else swap(scales)
    m_grouped_fp8_gemm_nt_contiguous(
        a,
        flipped,
        d,
        groups_of,
        recipe,
        recipe_a,
        recipe_b,
        use_psum_layout=use_psum_layout,
        ensure_zero_padding=ensure_zero_padding,
        dtype=dtype,
        stream=stream,
    )


@direct
def m_grouped_fp8_gemm_nt_masked(
    a: Operand,
    b: Operand,
    d: Tensor,
    masked_m: Tensor,
    expected_m: int,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    *,
    dtype: str | None = None,
    stream: int | None = None,
) -> None:
    """``d[g, :masked_m[g]] = a[g, :masked_m[g]] @ b[g].T``; other rows of d stay as they are.

    Args:
        a: data ``[groups, m_max, k]`` and scales ``[groups, m_max, ceil(k / 128)]``, or data alone.
        b: data ``[groups, n, k]`` and scales ``[groups, ceil(n / 128), ceil(k / 128)]``.
        d: BF16 or FP32, ``[groups, m_max, n]``, written in place.
        masked_m: int32 ``[groups]`` on the tensors' device; the host does not read it, so a graph's replays may change it.
        expected_m: rows that a group is expected to have: picks the kernel, changes no result.

    Other arguments and errors as for :func:`fp8_gemm_nt`.
    """
    expected_m = integer("m_grouped_fp8_gemm_nt_masked", "expected_m", expected_m, 64)
    _call("masked", a, b, d, masked_m, expected_m, 1, False, (recipe, recipe_a, recipe_b), dtype, stream)


def k_grouped_fp8_gemm_nt_contiguous(
    a: Operand,
    b: Operand,
    d: Tensor,
    ks_cpu: Sequence[int] | None = None,
    grouped_layout: Tensor | None = None,
    c: Tensor | None = None,
    recipe: tuple[int, int, int] | None = (1, 1, 128),
    compiled_dims: str = "mn",
    use_psum_layout: bool = False,
    *,
    ks: Sequence[int] | None = None,
    ks_tensor: Tensor | None = None,
    dtype: str | None = None,
    stream: int | None = None,
) -> None:
    """``d[g] = c[g] + a_g @ b_g.T`` for each group, whose k differ: the weight gradients of a mixture of experts.

    Args:
        a: data and scales, or data alone. Data is flat, ``[m * sum(ks)]``, one group's contiguous ``[m, k_g]`` after the other's,
            each k_g a multiple of 128; or ``[m, sum(ks)]``, stride 1 along k, on CUDA each k_g but the last a multiple of 16. Scales are
            FP32, ``[m, sum of ceil(k_g / 128)]``, any strides.
        b: the same with n for m.
        d: FP32, ``[groups, m, n]``, written in place.
        ks_cpu: each group's k, on the host; 0 or more. It decides, and a and b hold no more than it says. ``ks`` is another name of it.
        grouped_layout: the same numbers on the tensors' device, int32; ``ks_tensor`` is another name of it. Both must agree: on the
            CPU, ValueError where they do not; a GPU's are not read, since that would wait for the GPU.
        c: FP32, ``[groups, m, n]``, may be d itself. Left out: the products are added to d.
        recipe: ``(1, 1, 128)``, the only one. compiled_dims: accepted, without effect. use_psum_layout: False, the only layout.
        dtype, stream: as for :func:`fp8_gemm_nt`, and so are errors.
    """
    name = "k_grouped_fp8_gemm_nt_contiguous"
    if (ks_cpu is None) == (ks is None) or (grouped_layout is not None and ks_tensor is not None):
        raise TypeError(f"{name}: ks_cpu and grouped_layout are also called ks and ks_tensor; give each once")
    if use_psum_layout:
        raise ValueError(f"{name}: use_psum_layout is True, expected False: groups follow each other as ks_cpu says")
    sizes = integers(name, "ks_cpu", ks if ks_cpu is None else ks_cpu)
    on_device = grouped_layout if ks_tensor is None else ks_tensor
    if not is_compiling() and on_device is not None and _torch.can_be_read(on_device) and on_device.tolist() != sizes:
        raise ValueError(f"{name}: grouped_layout holds {on_device.tolist()}, expected what ks_cpu says, {sizes}")
    if is_compiling() or not _C.k_grouped(a, b, d, sizes, c, recipe, dtype, stream):
        _torch.k_grouped(a, b, d, sizes, c, recipe, dtype, stream)


m_grouped_fp8_fp4_gemm_nt_contiguous = m_grouped_fp8_gemm_nt_contiguous
m_grouped_fp8_fp4_gemm_nn_contiguous = m_grouped_fp8_gemm_nn_contiguous
m_grouped_fp8_fp4_gemm_nt_masked = fp8_m_grouped_gemm_nt_masked = m_grouped_fp8_gemm_nt_masked


def m_grouped_gemm_fp8_fp8_bf16_nt_contiguous(
    lhs: Operand, rhs: Operand, out: Tensor | None = None, m_indices: Tensor | Sequence[int] | None = None
) -> Tensor:
    """:func:`m_grouped_fp8_gemm_nt_contiguous` under the name and order of DeepGEMM's first release; returns ``out``.

    ``m_indices`` may also be a list: rows of each group, which then follow each other without padding (``lhs`` is on the host's
    or a GPU's memory, in torch). Without ``out`` a BF16 torch tensor ``[m, n]`` is made.
    """
    name = "m_grouped_gemm_fp8_fp8_bf16_nt_contiguous"
    if m_indices is None:
        raise TypeError(f"{name}: m_indices is missing")
    out = made(name, lhs, rhs) if out is None else out
    if not isinstance(m_indices, (list, tuple)):
        m_grouped_fp8_gemm_nt_contiguous(lhs, rhs, out, m_indices)
        return out
    a, sizes = pair(name, "lhs", lhs)[0], integers(name, "m_indices", m_indices)
    if min(sizes, default=0) < 0:
        raise ValueError(f"{name}: m_indices is {sizes}, expected no group with less than 0 rows")
    if sum(sizes) > a.shape[0]:
        raise ValueError(f"{name}: m_indices adds up to {sum(sizes)} rows, expected at most lhs's {a.shape[0]}")
    torch = _torch.torch
    ends = torch.tensor(sizes, dtype=torch.int32).cumsum(0, dtype=torch.int32).to(a.device)
    _call("offsets", lhs, rhs, out, ends, 0, 1, False, (None, None, None), None, None)
    return out


def k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(lhs: Operand, rhs: Operand, out: Tensor, batch_sizes: Sequence[int]) -> None:
    """``out[g] += lhs_g @ rhs_g.T`` under the name and order of DeepGEMM 1.x: :func:`k_grouped_fp8_gemm_nt_contiguous`, one launch.

    Data is flat, ``[m * sum(batch_sizes)]`` and n for m, scales ``[sum of k_g / 128, m]`` and n for m: transposed. Each of
    ``batch_sizes``, the groups' k, is a multiple of 128. ``out`` is FP32, ``[groups, m, n]``.
    """
    name = "k_grouped_wgrad_gemm_fp8_fp8_fp32_nt"
    (a, scale_a), (b, scale_b) = pair(name, "lhs", lhs), pair(name, "rhs", rhs)
    turned = [None if scales is None else scales.T for scales in (scale_a, scale_b)]
    k_grouped_fp8_gemm_nt_contiguous((a, turned[0]), (b, turned[1]), out, integers(name, "batch_sizes", batch_sizes))


def m_grouped_gemm_fp8_fp8_bf16_nt_masked(
    lhs: Operand, rhs: Operand, out: Tensor | None, masked_m: Tensor, expected_m: int
) -> Tensor:
    """:func:`m_grouped_fp8_gemm_nt_masked` under the name and order of DeepGEMM's first release; returns ``out``.

    With None for ``out`` a BF16 torch tensor ``[groups, m_max, n]`` is made, rows beyond ``masked_m`` unspecified.
    """
    if out is None:
        out = made("m_grouped_gemm_fp8_fp8_bf16_nt_masked", lhs, rhs)
    m_grouped_fp8_gemm_nt_masked(lhs, rhs, out, masked_m, expected_m)
    return out
