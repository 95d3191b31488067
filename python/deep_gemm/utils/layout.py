"""Layouts of scales. TMA reads FP32 scales MN-major, with columns a multiple of 16 bytes apart."""

from __future__ import annotations

from typing import Any

from .. import _torch
from .._settings import (
    get_m_alignment_for_contiguous_layout,
    get_mk_alignment_for_contiguous_layout,
    get_theoretical_mk_alignment_for_contiguous_layout,
    set_mk_alignment_for_contiguous_layout,
)
from .math import align, ceil_div

__all__ = [
    "get_col_major_tma_aligned_tensor",
    "get_m_alignment_for_contiguous_layout",
    "get_mk_alignment_for_contiguous_layout",
    "get_mn_major_tma_aligned_tensor",
    "get_theoretical_mk_alignment_for_contiguous_layout",
    "get_tma_aligned_size",
    "set_mk_alignment_for_contiguous_layout",
    "transform_sf_into_required_layout",
]

Tensor = Any
_TMA_ALIGNMENT_BYTES = 16


def get_tma_aligned_size(x: int, element_size: int) -> int:
    """``x`` elements of ``element_size`` bytes, rounded up to a multiple of 16 bytes."""
    if element_size < 1 or _TMA_ALIGNMENT_BYTES % element_size:
        raise ValueError(f"get_tma_aligned_size: element_size is {element_size}, expected a divisor of {_TMA_ALIGNMENT_BYTES}")
    return align(x, _TMA_ALIGNMENT_BYTES // element_size)


def _check_scales(function: str, name: str, x: Tensor) -> None:
    torch = _torch.torch
    if torch is None or not isinstance(x, torch.Tensor):
        raise TypeError(f"{function}: {name} is of type {type(x).__name__}, expected a float32 torch tensor")
    if x.dtype != torch.float32:
        raise ValueError(f"{function}: {name} is {x.dtype}, expected torch.float32")


def get_mn_major_tma_aligned_tensor(x: Tensor) -> Tensor:
    """The FP32 torch tensor ``x``, ``[mn, k]`` or ``[groups, mn, k]`` in any layout, with strides ``[1, pitch]``.

    The pitch is mn rounded up to 4, a group takes pitch * k elements; what lies between mn and the pitch is unspecified. A tensor
    that has this layout comes back as it is. Raises TypeError for what is no torch tensor, ValueError for other dtypes and ranks.
    """
    _check_scales("get_mn_major_tma_aligned_tensor", "x", x)
    if x.dim() not in (2, 3):
        raise ValueError(f"get_mn_major_tma_aligned_tensor: x is {list(x.shape)}, expected 2 or 3 dimensions")
    mn, k = x.shape[-2:]
    pitch = get_tma_aligned_size(mn, x.element_size())
    strides = (pitch * k, 1, pitch)[3 - x.dim() :]
    if x.stride() == strides and x.storage_offset() % 4 == 0:
        return x
    return _torch.torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device).copy_(x)


def get_col_major_tma_aligned_tensor(x: Tensor) -> Tensor:
    """The first release's name of :func:`get_mn_major_tma_aligned_tensor`."""
    return get_mn_major_tma_aligned_tensor(x)


def transform_sf_into_required_layout(
    sf: Tensor,
    mn: int,
    k: int,
    recipe: tuple[int, ...],
    num_groups: int | None = None,
    is_sfa: bool | None = None,
    disable_ue8m0_cast: bool = False,
    psum_layout: Any = None,
) -> Tensor:
    """The scales ``sf`` of an ``[mn, k]`` operand in the layout that products take without further work.

    Args:
        sf: FP32 torch tensor, ``[ceil(mn / r), ceil(k / 128)]``, before it ``num_groups`` where given. ``r`` is 1 or 128.
        recipe: ``(r_a, r_b, 128)``, that is ``(1, 128, 128)`` or ``(1, 1, 128)``, of which ``is_sfa`` picks one (True: r_a), or
            ``(r, 128)``. Without ``is_sfa`` the shape picks, r_a where both fit (mn is 0 or 1 then).
        disable_ue8m0_cast, psum_layout: accepted, without effect on Hopper.

    Returns scales for single rows as :func:`get_mn_major_tma_aligned_tensor` gives them, others as they are. Raises ValueError
    where the dtype is another or the shape is not the recipe's, TypeError for what is no torch tensor.
    """
    function = "transform_sf_into_required_layout"
    _check_scales(function, "sf", sf)
    if not isinstance(recipe, (tuple, list)) or len(recipe) not in (2, 3):
        raise ValueError(f"{function}: recipe is {recipe!r}, expected 2 or 3 numbers")
    a, b = recipe[0], recipe[-2]  # the same one where there are two numbers
    choices = (a, b) if is_sfa is None else (a,) if is_sfa else (b,)
    if any(rows not in (1, 128) for rows in choices) or recipe[-1] != 128:
        raise ValueError(f"{function}: recipe is {tuple(recipe)}, expected 1 or 128 rows by 128 of k a scale")
    groups = [] if num_groups is None else [num_groups]
    shapes = {rows: [*groups, ceil_div(mn, rows), ceil_div(k, 128)] for rows in choices}
    for rows, shape in shapes.items():
        if list(sf.shape) == shape:
            return get_mn_major_tma_aligned_tensor(sf) if rows == 1 else sf
    expected = " or ".join(map(str, shapes.values()))
    raise ValueError(f"{function}: sf is {list(sf.shape)}, expected {expected} for mn = {mn}, k = {k}, recipe {tuple(recipe)}")
