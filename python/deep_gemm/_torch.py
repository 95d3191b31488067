"""What the package does only where torch is installed: custom operators, and tensors that the C exchange API does not serve.

The operators make a call one node of a traced or compiled graph; ordinary eager calls never come through here.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from . import _C
from ._arguments import integer, pair

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]


def _not_compiling() -> bool:
    return False


is_compiling: Callable[[], bool] = _not_compiling

if torch is not None:
    # Quicker to ask than is_compiling; who traces without Dynamo passes fake tensors, which are subclasses of torch.Tensor.
    is_compiling = torch.compiler.is_dynamo_compiling
    _C.register_torch(torch.Tensor, (torch.Tensor, torch.nn.Parameter))
    _NAMES = {
        torch.float8_e4m3fn: "e4m3",
        torch.float8_e5m2: "e5m2",
        torch.bfloat16: "bf16",
        torch.float16: "f16",
        torch.float32: "f32",
        torch.int32: "i32",
    }

    # What the operators' arguments are called: torch compares arguments of operators under test, but not FP8 ones, so that
    # those pass as uint8 and a name.
    _FP8 = {torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2"}

    def _raw(tensor: torch.Tensor | None, dtype: str | None = None) -> Any:
        """The tensor in pieces: address, dtype, shape, strides, CUDA ordinal or -1."""
        if tensor is None:
            return None
        dtype = dtype or _NAMES.get(tensor.dtype, str(tensor.dtype))
        ordinal = tensor.device.index if tensor.is_cuda else -1
        return _C.Parts(tensor.data_ptr(), dtype, tensor.shape, tensor.stride(), ordinal)

    def _stream(tensor: torch.Tensor, given: int | None = None) -> int | None:
        if given is not None:
            return given
        return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else None

    def _gemm(
        a: Any,
        scale_a: Any,
        type_a: str,
        b: Any,
        scale_b: Any,
        type_b: str,
        d: torch.Tensor,
        c: Any,
        rows_b: int = 128,
        stream: int | None = None,
    ) -> None:
        operands = (_raw(a, type_a), _raw(scale_a)), (_raw(b, type_b), _raw(scale_b))
        _C.fp8_gemm_nt(*operands, _raw(d), _raw(c), (1, rows_b, 128), None, None, None, _stream(d, stream))

    def _k_grouped(
        a: Any,
        scale_a: Any,
        type_a: str,
        b: Any,
        scale_b: Any,
        type_b: str,
        d: torch.Tensor,
        ks: list[int],
        c: Any,
        stream: int | None = None,
    ) -> None:
        operands = (_raw(a, type_a), _raw(scale_a)), (_raw(b, type_b), _raw(scale_b))
        _C.k_grouped(*operands, _raw(d), ks, _raw(c), None, None, _stream(d, stream))

    def _m_grouped(
        layout: str,
        a: Any,
        scale_a: Any,
        type_a: str,
        b: Any,
        scale_b: Any,
        type_b: str,
        d: torch.Tensor,
        groups_of: Any,
        expected_m: int,
        alignment: int,
        zero_padding: bool,
        stream: int | None = None,
    ) -> None:
        operands = (_raw(a, type_a), _raw(scale_a)), (_raw(b, type_b), _raw(scale_b))
        which = getattr(_C.Layout, layout)
        groups = _raw(groups_of)
        rest = None, None, None, None, _stream(d, stream)
        _C.m_grouped(which, *operands, _raw(d), groups, expected_m, alignment, zero_padding, *rest)

    def _quantize(x: Any, out: Any, scale: Any, rows: int, power_of_two: bool, cols: int = 128) -> None:
        _C.quantize(rows, cols, _raw(x), _raw(out, "e4m3"), _raw(scale), power_of_two, None, _stream(x))

    _library = torch.library.Library("deep_gemm", "DEF")
    # Layouts are part of the contract: a compiler must not change the strides of what it passes.
    _exact = getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order)
    for _schema, _call in (
        (
            "fp8_gemm_nt(Tensor a, Tensor? scale_a, str type_a, Tensor b, Tensor? scale_b, str type_b, Tensor(d!) d, Tensor? c, "
            "int rows_b=128, int? stream=None) -> ()",
            _gemm,
        ),
        (
            "k_grouped_fp8_gemm_nt(Tensor a, Tensor? scale_a, str type_a, Tensor b, Tensor? scale_b, str type_b, Tensor(d!) d, "
            "int[] ks, Tensor? c, int? stream=None) -> ()",
            _k_grouped,
        ),
        (
            "m_grouped_fp8_gemm_nt(str layout, Tensor a, Tensor? scale_a, str type_a, Tensor b, Tensor? scale_b, str type_b, "
            "Tensor(d!) d, Tensor groups_of, int expected_m, int alignment, bool zero_padding, "
            "int? stream=None) -> ()",
            _m_grouped,
        ),
        (
            "quantize(Tensor x, Tensor(out!) out, Tensor(scale!) scale, int rows, bool power_of_two, int cols=128) -> ()",
            _quantize,
        ),
    ):
        _name = _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag, _exact))
        for _key in ("CPU", "CUDA"):
            _library.impl(_name, _call, _key)
        # They return nothing: what they write has its shape already.
        torch.library.register_fake(f"deep_gemm::{_name}", lambda *args: None, lib=_library)


def _check_tensors(function: str, **given: Any) -> None:
    for name, tensor in given.items():
        if torch is None or not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{function}: {name} is of type {type(tensor).__name__}, expected a torch tensor as the others are")


def _bytes(function: str, name: str, tensor: Any, uint8: str | None = None) -> tuple[Any, str]:
    """An FP8 tensor, or one of bytes that stand for the type ``uint8``, as uint8, and the name of its type."""
    _check_tensors(function, **{name: tensor})
    if tensor.dtype == torch.uint8 and uint8 is not None:
        return tensor, uint8
    if tensor.dtype not in _FP8:
        raise ValueError(f"{function}: {name} is {tensor.dtype}, expected an FP8 type, or uint8 and dtype=")
    return tensor.view(torch.uint8), _FP8[tensor.dtype]


_UINT8 = {"e4m3": "e4m3", "float8_e4m3fn": "e4m3", "e5m2": "e5m2", "float8_e5m2": "e5m2"}


def _operands(function: str, a: Any, b: Any, dtype: str | None) -> tuple[Any, ...]:
    """What the operators take of a and b."""
    if dtype is not None and dtype not in _UINT8:
        raise ValueError(f'{function}: dtype is {dtype!r}, expected "e4m3" or "e5m2"')
    uint8 = None if dtype is None else _UINT8[dtype]
    operands: list[Any] = []
    for name, operand in (("a", a), ("b", b)):
        data, scales = pair(function, name, operand)
        data, type_of = _bytes(function, name, data, uint8)
        if scales is not None:
            _check_tensors(function, **{f"scale_{name}": scales})
        operands += data, scales, type_of
    return tuple(operands)


_RECIPES = ("recipe", (1, 128, 128), (1, 1, 128)), ("recipe_a", (1, 128), (1, 128)), ("recipe_b", (128, 128), (1, 128))


def _rows_b(function: str, recipes: tuple[Any, Any, Any]) -> int:
    """The rows of B that share a scale."""
    for given, (name, usual, other) in zip(recipes, _RECIPES):
        if given is not None and tuple(given) not in (usual, other):
            raise ValueError(f"{function}: {name} is {tuple(given)}, expected {usual} or {other}")
    both, _, b = recipes
    if both is not None and b is not None and both[1] != b[0]:
        raise ValueError(f"{function}: recipe is {tuple(both)}, expected what recipe_b says, {tuple(b)}")
    return both[1] if both is not None else b[0] if b is not None else 128


def _address(function: str, stream: int | None) -> int | None:
    return None if stream is None else integer(function, "stream", stream, 64)


def gemm(a: Any, b: Any, d: Any, c: Any, recipes: tuple[Any, Any, Any], dtype: str | None, stream: int | None) -> None:
    """The call through torch's dispatcher."""
    rows_b = _rows_b("fp8_gemm_nt", recipes)
    operands = _operands("fp8_gemm_nt", a, b, dtype)
    _check_tensors("fp8_gemm_nt", d=d, **({} if c is None else {"c": c}))
    torch.ops.deep_gemm.fp8_gemm_nt(*operands, d, c, rows_b, _address("fp8_gemm_nt", stream))


def m_grouped(
    layout: str,
    a: Any,
    b: Any,
    d: Any,
    groups_of: Any,
    expected_m: int,
    alignment: int,
    zero_padding: bool,
    recipes: tuple[Any, Any, Any],
    dtype: str | None,
    stream: int | None,
) -> None:
    """The call through torch's dispatcher."""
    function = f"m_grouped_fp8_gemm_nt_{layout}"
    if _rows_b(function, recipes) != 128:
        raise ValueError(f"{function}: recipe is (1, 1, 128), expected (1, 128, 128)")
    operands = _operands(function, a, b, dtype)
    _check_tensors(function, d=d, groups_of=groups_of)
    rest = expected_m, alignment, zero_padding, _address(function, stream)
    torch.ops.deep_gemm.m_grouped_fp8_gemm_nt(layout, *operands, d, groups_of, *rest)


def k_grouped(a: Any, b: Any, d: Any, ks: list[int], c: Any, recipe: Any, dtype: str | None, stream: int | None) -> None:
    """The call through torch's dispatcher."""
    function = "k_grouped_fp8_gemm_nt"
    if recipe is not None and tuple(recipe) != (1, 1, 128):
        raise ValueError(f"{function}: recipe is {tuple(recipe)}, expected (1, 1, 128)")
    operands = _operands(function, a, b, dtype)
    _check_tensors(function, d=d, **({} if c is None else {"c": c}))
    torch.ops.deep_gemm.k_grouped_fp8_gemm_nt(*operands, d, ks, c, _address(function, stream))


def quantize(x: Any, out: Any, scale: Any, rows: int, cols: int, power_of_two: bool) -> None:
    """The call through torch's dispatcher."""
    torch.ops.deep_gemm.quantize(x, _bytes("quantize", "out", out)[0], scale, rows, power_of_two, cols)


def can_be_read(tensor: Any) -> bool:
    """Whether the host has the tensor's numbers: they lie in its memory, and nothing stands for them while a model is traced."""
    if torch is not None and isinstance(tensor, torch.Tensor):
        return tensor.device.type == "cpu" and type(tensor) is torch.Tensor and torch._C._len_torch_dispatch_stack() == 0
    return hasattr(tensor, "tolist") and getattr(tensor, "device", "cpu") == "cpu"  # NumPy before 2.0 has no device


_Function = TypeVar("_Function", bound=Callable[..., Any])
# The builtins below, and the Python functions behind them.
DIRECT: dict[Any, Callable[..., Any]] = {}


def direct(function: _Function) -> _Function:
    """A builtin of the same signature that takes an ordinary call from its arguments to the library, half a microsecond sooner.

    What is not ordinary goes to ``function``, and so do compilers, which follow Python alone. Where torch cannot be told of that, the
    function itself.
    """
    if torch is not None and not (
        hasattr(torch.Tensor, "__dlpack_c_exchange_api__") and hasattr(torch.compiler, "substitute_in_graph")
    ):
        return function
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    text = f"{function.__name__}{inspect.Signature(bare)}\n--\n\n{inspect.getdoc(function)}"
    builtin = _C.direct(function, text)
    DIRECT[builtin] = function
    return builtin


class _AfterDynamo(importlib.abc.MetaPathFinder):
    """Tells Dynamo of the builtins once it has been imported, which takes seconds and which most processes never do."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "torch._dynamo":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_tell(module: Any) -> None:
            load(module)
            tell_dynamo()

        setattr(spec.loader, "exec_module", load_and_tell)
        return spec


def tell_dynamo() -> None:
    for builtin, function in DIRECT.items():
        torch.compiler.substitute_in_graph(builtin)(function)


def watch_for_dynamo() -> None:
    """To be called when all builtins are there."""
    if not DIRECT or torch is None:
        return
    if "torch._dynamo" in sys.modules:
        tell_dynamo()
    else:
        sys.meta_path.insert(0, _AfterDynamo())
