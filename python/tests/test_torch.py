"""What torch adds: custom operators, compiled and traced models, subclasses, streams and graphs."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

import deep_gemm
from conftest import needs_hopper
from deep_gemm import _C, _torch
from support import E5M2, FP8, Product


def as_bytes(tensor):
    return tensor.view(torch.uint8)


@pytest.mark.parametrize("with_c", [False, True])
def test_opcheck_gemm(device, with_c):
    p = Product(20, 64, 256, device)
    d = torch.randn(20, 64, device=device)
    c = torch.randn(20, 64, device=device) if with_c else None
    arguments = (as_bytes(p.a), p.scale_a, "e4m3", as_bytes(p.b))
    opcheck(torch.ops.deep_gemm.fp8_gemm_nt, (*arguments, None, "e4m3", d, c))
    fine = Product(20, 64, 256, device, rows_b=1).scale_b
    opcheck(torch.ops.deep_gemm.fp8_gemm_nt, (*arguments, fine, "e5m2", d, c, 1))


def test_opcheck_quantize(device):
    x = torch.randn(20, 256, device=device)
    for rows, cols in [(1, 128), (128, 128), (128, 1)]:
        out = torch.zeros(20, 256, dtype=torch.uint8, device=device)
        scale = torch.zeros(-(-20 // rows), 256 // cols, device=device)
        opcheck(torch.ops.deep_gemm.quantize, (x, out, scale, rows, True, cols))


class Fp8Linear(torch.nn.Module):
    def __init__(self, n, k, device):
        super().__init__()
        weight, scale = deep_gemm.per_block_cast_to_fp8(torch.randn(n, k, device=device), False)
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale)

    def forward(self, x):
        a, scale = deep_gemm.per_token_cast_to_fp8(x, False)
        a = a, deep_gemm.get_mn_major_tma_aligned_tensor(scale)
        d = x.new_empty(x.shape[0], self.weight.shape[0], dtype=torch.bfloat16)
        deep_gemm.fp8_gemm_nt(a, (self.weight, self.scale), d)
        return torch.relu(d.float() + 1)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiled_model_keeps_the_call(device, backend):
    torch.compiler.reset()
    model = torch.nn.Sequential(Fp8Linear(256, 384, device), Fp8Linear(128, 256, device))
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for rows in (8, 24, 40):
        x = torch.randn(rows, 384, device=device)
        assert torch.equal(compiled(x), model(x))
    explained = torch._dynamo.explain(model)(torch.randn(8, 384, device=device))
    assert explained.graph_break_count == 0
    calls = [node for graph in explained.graphs for node in graph.graph.nodes if "deep_gemm" in str(node.target)]
    assert len(calls) == 4  # a quantisation and a product for each layer


@pytest.mark.parametrize("name, turned", [("fp8_gemm_nn", "b"), ("fp8_gemm_tn", "ab"), ("fp8_gemm_tt", "a")])
def test_compiled_views(device, name, turned):
    torch.compiler.reset()
    p = Product(16, 64, 128, device)
    operands = [tuple(t.T for t in given) if which in turned else given for which, given in zip("ab", p.operands())]

    def step(d):
        getattr(deep_gemm, name)(*operands, d)
        return d * 1

    assert p.wrong(torch.compile(step, fullgraph=True, backend="aot_eager")(p.out())) == 0


def test_compiled_in_place_c(device):
    torch.compiler.reset()
    p = Product(16, 64, 128, device)

    def step(d):
        deep_gemm.fp8_gemm_nt(*p.operands(), d, c=d)
        return d * 2

    d, e = torch.ones(16, 64, device=device), torch.ones(16, 64, device=device)
    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(d), step(e))
    assert torch.equal(d, e)


def test_compiled_wrong_inputs():
    torch.compiler.reset()
    p = Product(16, 64, 128)
    a, b = p.operands()
    call = torch.compile(lambda **given: deep_gemm.fp8_gemm_nt(a, b, p.out(), **given), backend="eager")
    with pytest.raises(Exception, match=r"recipe is \(1, 1, 64\), expected \(1, 128, 128\) or \(1, 1, 128\)"):
        call(recipe=(1, 1, 64))
    with pytest.raises(Exception, match=r"recipe is \(1, 1, 128\), expected what recipe_b says, \(128, 128\)"):
        call(recipe=(1, 1, 128), recipe_b=(128, 128))


@pytest.mark.parametrize("recipes", [{"recipe": (1, 1, 128)}, {"recipe_b": (1, 128)}])
def test_compiled_1d1d(device, recipes):
    torch.compiler.reset()
    p = Product(16, 64, 300, device, rows_b=1)

    def step(d):
        deep_gemm.fp8_gemm_nt(*p.operands(), d, **recipes)
        return d

    d = torch.compile(step, fullgraph=True, backend="aot_eager")(torch.zeros(16, 64, device=device))
    assert p.wrong(d) == 0


def test_compiled_masked_and_contiguous(device):
    """The builtins of the grouped products, by name and by position."""
    torch.compiler.reset()
    p = Product(40, 64, 256, device)
    a, b = p.operands()
    many = (b[0].contiguous()[None], b[1][None])
    counts, indices = torch.tensor([40], dtype=torch.int32, device=device), torch.zeros(40, dtype=torch.int32, device=device)

    def step(d, e):
        deep_gemm.m_grouped_fp8_gemm_nt_masked((a[0].contiguous()[None], a[1][None]), many, d, counts, expected_m=40)
        deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, many, e, grouped_layout=indices)
        return d + 0, e + 0

    zeros = lambda *shape: torch.zeros(*shape, 64, device=device)
    d, e = torch.compile(step, fullgraph=True, backend="aot_eager")(zeros(1, 40), zeros(40))
    assert p.wrong(d[0]) == 0 and p.wrong(e) == 0


def test_compiling_before_and_after_the_import():
    """Dynamo is told of the builtins whichever of it and the package is imported first."""
    code = """
import sys
import torch
{first}
import deep_gemm
assert ("torch._dynamo" in sys.modules) == bool("{first}")
a, b = (torch.randn(16, 128).to(torch.float8_e4m3fn) for _ in range(2))
def step(d):
    deep_gemm.fp8_gemm_nt(a, b, d)
    return d
want, got = step(torch.zeros(16, 16)), torch.compile(step, fullgraph=True, backend="eager")(torch.zeros(16, 16))
assert torch.equal(want, got)
"""
    for first in ("", "import torch._dynamo"):
        done = subprocess.run([sys.executable, "-c", code.format(first=first)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


def test_traced_with_fake_tensors(device):
    model = Fp8Linear(256, 384, device)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        out = model(mode.from_tensor(torch.empty(5, 384, device=device)))
        assert out.shape == (5, 256)


class Subclass(torch.Tensor):
    pass


def test_subclass(device):
    p = Product(9, 33, 256, device)
    want, d = p.out(), p.out()
    deep_gemm.fp8_gemm_nt(*p.operands(), want)
    deep_gemm.fp8_gemm_nt((p.a.as_subclass(Subclass), p.scale_a), (p.b, p.scale_b.as_subclass(Subclass)), d)
    assert torch.equal(d, want)
    with pytest.raises(TypeError, match="^fp8_gemm_nt: b is of type list, expected a tensor"):
        deep_gemm.fp8_gemm_nt((p.a.as_subclass(Subclass), p.scale_a), ([[1.0]], p.scale_b), d)
    with pytest.raises(ValueError, match="a is torch.float32, expected an FP8 type"):
        deep_gemm.fp8_gemm_nt((p.a.float().as_subclass(Subclass), p.scale_a), (p.b, p.scale_b), d)
    a = p.a.as_subclass(Subclass)
    for operand, out, error, text in [
        ((a, p.scale_a, p.scale_a), d, TypeError, "a is not a tensor and not a pair"),
        ((a, 1.0), d, TypeError, "scale_a is of type float"),
        ((a, p.scale_a), None, TypeError, "d is of type NoneType"),
        ((a, p.scale_a.double()), d, ValueError, "scale_a is torch.float64, expected f32"),
        ((a, p.scale_a), d.bool(), ValueError, "d is torch.bool, expected bf16 or f32"),
    ]:
        with pytest.raises(error, match=f"^fp8_gemm_nt: {text}"):
            deep_gemm.fp8_gemm_nt(operand, (p.b, p.scale_b), out)


def test_stream_and_dtype_of_a_subclass(monkeypatch):
    """The dispatcher's way goes to the stream that was named, and knows what uint8 stands for."""
    streams = []
    spy = lambda call: lambda *given: streams.append(given[-1]) or call(*given)
    for name in ("fp8_gemm_nt", "m_grouped", "k_grouped"):
        monkeypatch.setattr(_C, name, spy(getattr(_C, name)))
    p = Product(16, 64, 128, types=(E5M2, E5M2))
    fine = Product(16, 64, 128, rows_b=1, types=(E5M2, E5M2))
    marked = lambda q: tuple((as_bytes(x).as_subclass(Subclass), scale) for x, scale in q.operands())
    (a, b), (fine_a, fine_b) = marked(p), marked(fine)
    many_a, many_b = ((x[None], scale[None]) for x, scale in (a, b))
    count = torch.tensor([16], dtype=torch.int32)
    calls = [
        lambda d, **given: deep_gemm.fp8_gemm_nt(a, b, d[0], **given),
        lambda d, **given: deep_gemm.m_grouped_fp8_gemm_nt_masked(many_a, many_b, d, count, 16, **given),
        lambda d, **given: deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, many_b, d[0], torch.zeros_like(a[0][:, 0], dtype=torch.int32), **given),
        lambda d, **given: deep_gemm.k_grouped_fp8_gemm_nt_contiguous(fine_a, fine_b, d, [128], None, **given),
    ]
    for call in calls:
        for dtype in ("e5m2", "float8_e5m2"):
            streams.clear()
            d = torch.zeros(1, 16, 64)
            call(d, dtype=dtype, stream=1234)
            assert (fine if call is calls[-1] else p).wrong(d[0]) == 0
            assert streams[-1] == 1234, "the operator's own call, behind those that were refused"
        with pytest.raises(ValueError, match="stream is 'x', expected"):
            call(d, dtype="e5m2", stream="x")
        with pytest.raises(ValueError, match='dtype is \'bf16\', expected "e4m3" or "e5m2"'):
            call(d, dtype="bf16")
        with pytest.raises(ValueError, match="a is torch.uint8, expected an FP8 type, or uint8 and dtype="):
            call(d)


def test_torch_without_the_exchange_api(device, monkeypatch):
    """An older torch registers no type; here every tensor is handed over by its parts instead."""
    p = Product(70, 130, 300, device)
    want, d = p.out(), p.out()
    deep_gemm.fp8_gemm_nt(*p.operands(), want)
    x = torch.randn(70, 300, device=device)
    quantised = deep_gemm.per_token_cast_to_fp8(x, True)
    monkeypatch.setattr(_C, "fp8_gemm_nt", refuse_first(_C.fp8_gemm_nt))
    monkeypatch.setattr(_C, "quantize", refuse_first(_C.quantize))
    call = _torch.DIRECT.get(deep_gemm.fp8_gemm_nt, deep_gemm.fp8_gemm_nt)
    call(*p.operands(), d)
    assert torch.equal(d, want)
    again = deep_gemm.per_token_cast_to_fp8(x, True)
    assert torch.equal(as_bytes(again[0]), as_bytes(quantised[0])) and torch.equal(again[1], quantised[1])
    with pytest.raises(ValueError, match=r"d is \["):
        call(*p.operands(), d[:-1])


def refuse_first(function):
    """Does as the extension does with tensors of a type it has not been told of, and takes parts."""

    def call(*arguments):
        tensors = [t for argument in arguments for t in (argument if isinstance(argument, tuple) else (argument,))]
        return False if any(isinstance(t, torch.Tensor) for t in tensors) else function(*arguments)

    return call


def test_exchange_api_is_used():
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this torch is older than the exchange API")
    p = Product(4, 4, 128)
    assert _C.fp8_gemm_nt(*p.operands(), p.out(), None, None, None, None, None, None) is True
    assert _torch.torch is torch


@needs_hopper
def test_current_stream_is_used():
    p = Product(64, 512, 512, "cuda")
    want = p.out()
    deep_gemm.fp8_gemm_nt(*p.operands(), want)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    for given in (None, stream.cuda_stream):
        d = p.out()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream) if given is None else torch.cuda.stream(torch.cuda.current_stream()):
            torch.cuda._sleep(20_000_000) if given is None else None
            deep_gemm.fp8_gemm_nt(*p.operands(), d, stream=given)
        if given is None:
            assert not stream.query(), "the call waited, or ran on another stream"
        stream.synchronize()
        assert torch.equal(d, want)


@needs_hopper
def test_cuda_graph():
    x = torch.randn(32, 384, device="cuda")
    model = Fp8Linear(256, 384, "cuda")
    model(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = model(x)
    for _ in range(3):
        x.copy_(torch.randn(32, 384))
        graph.replay()
        assert torch.equal(y, model(x))


@needs_hopper
def test_second_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("ONE GPU HERE: nothing to switch between")
    p = Product(64, 512, 512, "cuda:1")
    d = p.out()
    deep_gemm.fp8_gemm_nt(*p.operands(), d)
    assert p.wrong(d) == 0 and torch.cuda.current_device() == 0


def test_fp8_dtype_of_the_casts(device):
    assert deep_gemm.per_token_cast_to_fp8(torch.ones(2, 128, device=device), False)[0].dtype == FP8


@needs_hopper
def test_cupy_and_its_stream():
    cupy = pytest.importorskip("cupy", reason="NO CUPY HERE")
    p = Product(64, 512, 512, "cuda")
    want = p.out(torch.float32)
    deep_gemm.fp8_gemm_nt(*p.operands(), want)
    torch.cuda.synchronize()
    a, b = ((cupy.from_dlpack(as_bytes(x)), cupy.from_dlpack(scale)) for x, scale in p.operands())
    with cupy.cuda.Stream(non_blocking=True) as stream:
        d = cupy.zeros((64, 512), dtype=cupy.float32)
        deep_gemm.fp8_gemm_nt(a, b, d, dtype="e4m3")
        stream.synchronize()
        assert (cupy.asnumpy(d) == want.cpu().numpy()).all()
