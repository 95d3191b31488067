"""Settings that later calls read, for the whole process."""

from __future__ import annotations

from . import _C, _torch
from ._arguments import integer

_tc_util = 100
_TILE_ROWS = 128
_mk_alignment = _TILE_ROWS  # here too for compilers, which follow Python alone


def set_num_sms(num_sms: int) -> None:
    """Calls from now on run on at most ``num_sms`` SMs; 0: all. No kernel is compiled anew for it."""
    num_sms = integer("set_num_sms", "num_sms", num_sms, 32)
    if num_sms < 0:
        raise ValueError(f"set_num_sms: num_sms is {num_sms}, expected 0 (all) or a positive number")
    _C.set_num_sms(num_sms)


def get_num_sms() -> int:
    """The SMs that calls use: what :func:`set_num_sms` set, else all of the current GPU (of an H100 where there is none)."""
    if given := _C.get_num_sms():
        return given
    torch = _torch.torch
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
    return _C.device_sms("h100")


def set_pdl(enable: bool) -> None:
    """Programmatic dependent launch: kernels may start before the stream's previous one has ended, and wait for it themselves."""
    _C.set_pdl(enable)


def get_pdl() -> bool:
    """Whether :func:`set_pdl` has turned programmatic dependent launch on; off by default."""
    return _C.get_pdl()


def set_tc_util(percent: int) -> None:
    """Accepted for callers that limit tensor-core utilisation; it changes no result and no kernel here."""
    global _tc_util
    if not 0 <= percent <= 100:
        raise ValueError(f"set_tc_util: percent is {percent}, expected 0 to 100")
    _tc_util = percent


def get_tc_util() -> int:
    """What :func:`set_tc_util` was given; 100 by default."""
    return _tc_util


def set_compile_mode(mode: int) -> None:
    """1: calls compile their kernels into the disk cache and launch nothing, CPU tensors standing for an H100's; 0: they run."""
    if mode not in (0, 1):
        raise ValueError(f"set_compile_mode: mode is {mode}, expected 0 or 1")
    _C.set_compile_mode(mode)


def get_compile_mode() -> int:
    """What :func:`set_compile_mode` was given; 0 by default."""
    return _C.get_compile_mode()


def set_mk_alignment_for_contiguous_layout(alignment: int) -> None:
    """Where groups of the offsets ("psum") layout start from now on: at multiples of ``alignment`` rows, 1 to 2^20."""
    global _mk_alignment
    alignment = integer("set_mk_alignment_for_contiguous_layout", "alignment", alignment, 32)
    if not 1 <= alignment <= 1 << 20:
        raise ValueError(f"set_mk_alignment_for_contiguous_layout: alignment is {alignment}, expected 1 to 2^20")
    _C.set_mk_alignment(alignment)
    _mk_alignment = alignment


def get_mk_alignment_for_contiguous_layout() -> int:
    """What :func:`set_mk_alignment_for_contiguous_layout` set; 128 by default."""
    return _mk_alignment


def get_m_alignment_for_contiguous_layout() -> int:
    """The first release's name of :func:`get_mk_alignment_for_contiguous_layout`."""
    return _mk_alignment


def get_theoretical_mk_alignment_for_contiguous_layout(expected_m: int | None = None, num_groups: int | None = None) -> int:
    """The alignment that any product of the contiguous layout takes: 128, whatever groups and rows of them are expected."""
    return _TILE_ROWS
