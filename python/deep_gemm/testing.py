"""Measures and timers that tests and benchmarks of FP8 kernels use. All but calc_diff need torch."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Tensor = Any
# More than any L2 holds, so that what a call reads comes from memory.
_FLUSH_BYTES = 256 << 20
_BARRIER_CYCLES = 20_000_000


def calc_diff(x: Tensor, y: Tensor) -> Tensor:
    """``1 - 2 <x, y> / (<x, x> + <y, y>)`` in double precision: 0 for equal tensors, also where both are zero.

    A tensor without dimensions on the device of x and y, or a number for NumPy's arrays. A global measure: a wrong tile in a large
    result hardly moves it. Compare elements for a test.
    """
    x, y = (t.double() if hasattr(t, "double") else t.astype("float64") for t in (x, y))
    size = (x * x + y * y).sum()
    # The same number, and 0 where there is nothing to divide by.
    return ((x - y) * (x - y)).sum() / (size + (size == 0))


def get_arch_major() -> int:
    """The current GPU's major compute capability, 9 for Hopper. Raises RuntimeError where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("get_arch_major: no CUDA device")
    return torch.cuda.get_device_capability()[0]


def test_filter(condition: Callable[[], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: the function runs where ``condition()`` is true when it is called; elsewhere a line says that it did not."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if condition():
                return function(*args, **kwargs)
            print(f"{function.__name__}: left out, {getattr(condition, '__name__', condition)}() is false")
            return None

        return call

    return decorate


setattr(test_filter, "__test__", False)  # pytest: not a test, whatever its name


def ignore_env(name: str, condition: Callable[[], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: where ``condition()`` is true, the function runs without the environment variable, which is set again after it."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            saved = os.environ.pop(name, None) if condition() else None
            try:
                return function(*args, **kwargs)
            finally:
                if saved is not None:
                    os.environ[name] = saved

        return call

    return decorate


def count_bytes(*tensors: Any) -> int:
    """Bytes of all tensors, also of those in nested tuples and lists; None counts nothing."""
    total = 0
    for tensor in tensors:
        if isinstance(tensor, (tuple, list)):
            total += count_bytes(*tensor)
        elif tensor is not None:
            total += tensor.numel() * tensor.element_size()
    return total


def bench(fn: Callable[[], Any], num_warmups: int = 5, num_tests: int = 10, high_precision: bool = False) -> float:
    """Mean seconds of one ``fn()``: by CUDA events where there is a GPU, L2 overwritten once before, else by the clock.

    ``high_precision`` keeps the GPU busy while the calls are enqueued, so that launches do not count.
    """
    import torch

    for _ in range(num_warmups):
        fn()
    if not torch.cuda.is_available():
        start = time.perf_counter()
        for _ in range(num_tests):
            fn()
        return (time.perf_counter() - start) / num_tests
    torch.cuda.synchronize()
    torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda").zero_()
    if high_precision:
        busy = torch.randn((8192, 8192), device="cuda")
        busy @ busy
    start_event, end_event = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start_event.record()
    for _ in range(num_tests):
        fn()
    end_event.record()
    torch.cuda.synchronize()
    return start_event.elapsed_time(end_event) / num_tests / 1e3


@contextmanager
def _silenced() -> Iterator[None]:
    """Whatever the process prints, from C too, goes nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, nowhere):
            os.close(descriptor)


@contextmanager
def _as_is() -> Iterator[None]:
    yield


def bench_kineto(
    fn: Callable[[], Any],
    kernel_names: str | tuple[str, ...],
    num_tests: int = 30,
    suppress_kineto_output: bool = False,
    trace_path: str | None = None,
    flush_l2: bool = True,
    with_multiple_kernels: bool = False,
    barrier: Callable[[], Any] | None = None,
) -> Any:
    """Mean seconds that the kernels named take on the GPU in one ``fn()``, by torch's profiler.

    A name stands for every kernel whose name contains it; more than one of them is an AssertionError unless
    ``with_multiple_kernels``, which adds them up. Returns a number for one name, a tuple for a tuple; 0 for a kernel that did not
    run. L2 is overwritten before each call with ``flush_l2``; ``trace_path`` gets a Chrome trace. ``barrier()``, of several
    processes, is called before each call, behind some 10 ms of work on the GPU, so that all of them launch at once. Raises
    RuntimeError where there is no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("bench_kineto: no CUDA device, and only its kernels are timed; use bench")
    fn()
    torch.cuda.synchronize()
    with _silenced() if suppress_kineto_output else _as_is():
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(num_tests):
                if flush_l2:
                    torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda").zero_()
                if barrier is not None:
                    torch.cuda._sleep(_BARRIER_CYCLES)
                    barrier()
                fn()
            torch.cuda.synchronize()
    if trace_path is not None:
        profile.export_chrome_trace(trace_path)

    events = profile.key_averages()
    names = (kernel_names,) if isinstance(kernel_names, str) else tuple(kernel_names)
    seconds = []
    for name in names:
        found = [event for event in events if name in event.key]
        if len(found) > 1 and not with_multiple_kernels:
            raise AssertionError(f"bench_kineto: {name!r} fits several kernels: {', '.join(event.key for event in found)}")
        seconds.append(sum(event.device_time_total for event in found) / num_tests / 1e6)
    return seconds[0] if isinstance(kernel_names, str) else tuple(seconds)
