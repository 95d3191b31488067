"""Quantisation, layouts, arithmetic, measures."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import deep_gemm
from deep_gemm.testing import bench, bench_kineto, calc_diff, count_bytes, get_arch_major, ignore_env, test_filter
from deep_gemm.utils import align, ceil_div
from deep_gemm.utils.layout import get_mn_major_tma_aligned_tensor, transform_sf_into_required_layout
from support import FP8, Product

CASTS = {
    "per_token_cast_to_fp8": (1, None),
    "per_block_cast_to_fp8": (None, None),
    "per_channel_cast_to_fp8": (None, 1),
}


def as_bytes(tensor):
    return tensor.view(torch.uint8)


@pytest.mark.parametrize("name", CASTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("use_ue8m0", [False, True])
@pytest.mark.parametrize("gran_k", [128, 32])
def test_casts(device, name, dtype, use_ue8m0, gran_k):
    rows, cols = [given or gran_k for given in CASTS[name]]
    x = (torch.randn(200, 300) * 10).to(device, dtype)
    x[3] = 0
    cast = getattr(deep_gemm, name)
    assert getattr(deep_gemm.utils.math, name) is cast and getattr(deep_gemm.utils, name) is cast
    out, scale = cast(x, use_ue8m0, gran_k)
    again = cast(x=x, use_ue8m0=use_ue8m0, gran_k=gran_k)
    assert torch.equal(out.view(torch.uint8), again[0].view(torch.uint8)) and torch.equal(scale, again[1])
    assert out.dtype == FP8 and out.shape == x.shape and scale.dtype == torch.float32
    assert scale.shape == (ceil_div(200, rows), ceil_div(300, cols))
    spread = scale.repeat_interleave(rows, 0)[:200].repeat_interleave(cols, 1)[:, :300].double()
    values = out.double() * spread
    # Half a unit of e4m3's three bits, or of its smallest number.
    bound = torch.maximum(x.double().abs() * 2**-4, spread * 2**-10) * 1.0001
    assert bool(((values - x.double()).abs() <= bound).all())
    padded = torch.nn.functional.pad(x.double().abs(), (0, align(300, cols) - 300, 0, align(200, rows) - 200))
    amax = padded.view(ceil_div(200, rows), rows, ceil_div(300, cols), cols).amax((1, 3)).clamp(min=1e-4) / 448
    if use_ue8m0:
        assert bool((torch.frexp(scale).mantissa == 0.5).all())
        assert bool((scale >= amax * 0.999999).all() and (scale < amax * 2.000001).all())
    else:
        assert torch.allclose(scale.double(), amax, rtol=1e-6)


@pytest.mark.parametrize("gran_k", [64, 128])
@pytest.mark.parametrize("use_ue8m0", [False, True])
def test_casts_of_what_is_no_number(device, use_ue8m0, gran_k):
    """A NaN stays one and lets its neighbours be; an infinity makes the scale of its block infinite."""
    x = torch.ones(2, 2 * gran_k, device=device)
    x[0, 3], x[1, 5] = float("nan"), float("inf")
    out, scale = deep_gemm.per_token_cast_to_fp8(x, use_ue8m0, gran_k)
    values = out.float() * scale.repeat_interleave(gran_k, 1)
    ones = torch.ones_like(x, dtype=torch.bool)
    ones[0, 3] = ones[1, :gran_k] = False
    assert bool(values[0, 3].isnan()) and bool(scale[1, 0].isinf())
    assert torch.allclose(values[ones], torch.ones_like(values[ones]), rtol=2**-4)


def test_casts_of_strange_layouts(device):
    wide = torch.randn(64, 700).to(device)
    x = wide[::2, 13:400]
    for cast in (deep_gemm.per_token_cast_to_fp8, deep_gemm.per_block_cast_to_fp8):
        got, want = cast(x, False), cast(x.contiguous(), False)
        assert torch.equal(got[0].view(torch.uint8), want[0].view(torch.uint8)) and torch.equal(got[1], want[1])
        empty, scale = cast(x[:0], False)
        assert empty.shape == (0, 387) and scale.shape == (0, 4)
        with pytest.raises(ValueError, match="gran_k is 0"):
            cast(x, False, 0)


@pytest.mark.parametrize("name", CASTS)
@pytest.mark.parametrize("gran_k", [128, 32])
def test_casts_of_views(device, name, gran_k):
    """Whatever torch has for a matrix: a training step quantises its weights transposed."""
    cast = getattr(deep_gemm, name)
    x = torch.randn(300, 200).to(device, torch.bfloat16)
    for view in (x.T, x[:, ::2], x[::3], x[:1].expand(130, 200), x[:, :1].expand(300, 200), x.T[:, 5:6], x[5:6].T):
        got, want = cast(view, True, gran_k), cast(view.clone(memory_format=torch.contiguous_format), True, gran_k)
        assert torch.equal(as_bytes(got[0]), as_bytes(want[0])) and torch.equal(got[1], want[1])
        assert got[0].is_contiguous() and got[0].shape == view.shape


@pytest.mark.parametrize("name", CASTS)
@pytest.mark.parametrize("gran_k", [128, 32])
def test_casts_of_wrong_inputs(device, name, gran_k):
    cast = getattr(deep_gemm, name)
    x = torch.randn(4, 128).to(device)
    for bad, error, text in [
        (x[0], ValueError, r"x is \[128\], expected 2 dimensions"),
        (x.double(), ValueError, r"x is (torch\.)?float64, expected bf16, f16 or f32"),
        (x.int(), ValueError, r"x is (torch\.int32|i32), expected bf16, f16 or f32"),
        ("x", TypeError, "x is of type str, expected a tensor"),
        ([[1.0]], TypeError, "x is of type list, expected a tensor"),
    ]:
        with pytest.raises(error, match=f"^{name}: {text}"):
            cast(bad, False, gran_k)
    if gran_k == 128:
        with pytest.raises(ValueError, match=f"^{name}: x is torch.float32 .torch.sparse_coo. on"):
            cast(x.to_sparse(), False)
        with pytest.raises(ValueError, match=f"^{name}: x has stride 4 along cols, expected 1"):
            cast(np.asfortranarray(x.cpu().numpy()), False)


def test_switches_of_casts(device):
    x = torch.randn(4, 128).to(device)
    for name in CASTS:
        cast = getattr(deep_gemm, name)
        for switch in (1, 0, None, np.bool_(True)):
            got, want = cast(x, switch), cast(x, bool(switch))
            assert torch.equal(as_bytes(got[0]), as_bytes(want[0])) and torch.equal(got[1], want[1])
    assert deep_gemm.per_token_cast_to_fp8(x, use_ue8m0=True, gran_k=128, use_packed_ue8m0=False)[1].dtype == torch.float32
    with pytest.raises(ValueError, match="^per_token_cast_to_fp8: use_packed_ue8m0 is True, expected False"):
        deep_gemm.per_token_cast_to_fp8(x, True, 128, True)


def test_casts_of_numpy():
    x = np.random.default_rng(0).standard_normal((150, 260)).astype(np.float32)
    for cast in (deep_gemm.per_token_cast_to_fp8, deep_gemm.per_block_cast_to_fp8, deep_gemm.per_channel_cast_to_fp8):
        got, want = cast(x, False), cast(torch.from_numpy(x), False)
        assert np.array_equal(got[0], want[0].view(torch.uint8).numpy()) and np.array_equal(got[1], want[1].numpy())
    with pytest.raises(TypeError, match="torch tensors alone"):
        deep_gemm.per_channel_cast_to_fp8(x, False, 64)


def test_powers_of_two_at_or_above():
    """Exact next to every power of two, where logarithms round."""
    powers = torch.exp2(torch.arange(-126, 128).double()).float()
    bits = powers.view(torch.int32)
    above = (bits[:-1] + 1).view(torch.float32)
    for ceil_to_ue8m0 in (deep_gemm.utils.ceil_to_ue8m0, deep_gemm.utils.math.ceil_to_ue8m0):
        assert torch.equal(ceil_to_ue8m0(powers), powers) and torch.equal(ceil_to_ue8m0(-powers), powers)
        assert torch.equal(ceil_to_ue8m0(above), powers[1:]) and torch.equal(ceil_to_ue8m0((bits[1:] - 1).view(torch.float32)), powers[1:])
        ends = torch.tensor([0.0, 2.0**-149, float("inf"), float("nan"), 3.4e38], dtype=torch.float64)
        assert ceil_to_ue8m0(ends).tolist() == [2.0**-126] * 2 + [2.0**127] * 3


@pytest.mark.parametrize("gran_k", [128, 32])
def test_scales_next_to_powers_of_two(device, gran_k):
    """A scale is never below amax / 448, whichever way it was computed."""
    near = torch.exp2(torch.arange(-12, 12).float()).view(torch.int32)[:, None] + torch.arange(-2, 3, dtype=torch.int32)
    x = (near.view(torch.float32).reshape(-1, 1) * 448).repeat(1, gran_k).to(device)
    _, scale = deep_gemm.per_token_cast_to_fp8(x, True, gran_k)
    # torch divides by a number in another way on a GPU, and other blocks than 128 are torch's.
    amax = x[:, :1] if gran_k == 32 else x[:, :1].cpu()
    assert torch.equal(scale, deep_gemm.utils.ceil_to_ue8m0(amax / 448).to(device))


def test_quantised_product_is_close(device):
    x, w = torch.randn(64, 512).to(device), torch.randn(256, 512).to(device)
    d = torch.empty(64, 256, device=device)
    deep_gemm.fp8_gemm_nt(deep_gemm.per_token_cast_to_fp8(x, False), deep_gemm.per_block_cast_to_fp8(w, False), d)
    assert calc_diff(d, x.double() @ w.double().T) < 1e-3


@pytest.mark.parametrize("mn", [1, 3, 4, 130])
@pytest.mark.parametrize("groups", [None, 1, 3])
def test_mn_major(device, mn, groups):
    shape = (mn, 5) if groups is None else (groups, mn, 5)
    x = torch.randn(shape).to(device)
    pitch = deep_gemm.get_tma_aligned_size(mn, 4)
    for function in (deep_gemm.get_mn_major_tma_aligned_tensor, deep_gemm.get_col_major_tma_aligned_tensor):
        for given in (x, x.transpose(-1, -2).contiguous().transpose(-1, -2)):
            out = function(given)
            assert torch.equal(out, x)
            assert out.stride()[-2:] == (1, pitch) and (groups is None or out.stride(0) == 5 * pitch)
            assert function(x=out) is out
    assert deep_gemm.utils.layout.get_tma_aligned_size(x=13, element_size=4) == 16 and pitch == align(mn, 4)
    assert deep_gemm.get_tma_aligned_size(3, 16) == 3
    with pytest.raises(ValueError, match="element_size is 3"):
        deep_gemm.get_tma_aligned_size(8, 3)
    for bad, error, text in [(x.double(), ValueError, "x is torch.float64"), ([1.0], TypeError, "x is of type list"), (x.reshape(-1), ValueError, "x is ")]:
        with pytest.raises(error, match=f"^get_mn_major_tma_aligned_tensor: {text}"):
            get_mn_major_tma_aligned_tensor(bad)


def test_transform_sf(device):
    rows, blocks = torch.randn(70, 3).to(device), torch.randn(2, 3).to(device)
    a = transform_sf_into_required_layout(rows, 70, 300, (1, 128, 128), is_sfa=True)
    assert torch.equal(a, rows) and a.stride() == (1, 72)
    b = transform_sf_into_required_layout(
        sf=blocks, mn=200, k=300, recipe=(1, 128, 128), num_groups=None, is_sfa=False, disable_ue8m0_cast=True, psum_layout=None
    )
    assert b is blocks
    assert transform_sf_into_required_layout(rows, 70, 300, (1, 128)).stride() == (1, 72)
    for is_sfa in (None, True, False):
        both = transform_sf_into_required_layout(rows, 70, 300, (1, 1, 128), is_sfa=is_sfa)
        assert torch.equal(both, rows) and both.stride() == (1, 72)
    assert transform_sf_into_required_layout(blocks, 200, 300, (128, 128)) is blocks
    # Without is_sfa the shape says whose they are; one row has one shape either way.
    assert transform_sf_into_required_layout(rows, 70, 300, (1, 128, 128)).stride() == (1, 72)
    assert transform_sf_into_required_layout(blocks, 200, 300, (1, 128, 128)) is blocks
    assert transform_sf_into_required_layout(blocks[None], 200, 300, [1, 128, 128], 1).shape == (1, 2, 3)
    assert transform_sf_into_required_layout(rows[:1], 1, 300, (1, 128, 128)).stride() == (1, 4)
    with pytest.raises(ValueError, match=r"sf is \[2, 3\], expected \[70, 3\] or \[1, 3\] for mn = 70"):
        transform_sf_into_required_layout(blocks, 70, 300, (1, 128, 128))
    grouped = torch.randn(4, 70, 3).to(device)
    assert transform_sf_into_required_layout(grouped, 70, 300, (1, 128, 128), 4, True).stride() == (216, 1, 72)
    for bad in (blocks.double(), rows.double()):
        with pytest.raises(ValueError, match="^transform_sf_into_required_layout: sf is torch.float64, expected torch.float32"):
            transform_sf_into_required_layout(bad, 200 if len(bad) == 2 else 70, 300, (1, 128, 128), None, len(bad) == 70)
    with pytest.raises(TypeError, match="^transform_sf_into_required_layout: sf is of type ndarray"):
        transform_sf_into_required_layout(blocks.cpu().numpy(), 200, 300, (1, 128, 128), None, False)
    for arguments in [(blocks, 70, 300, (1, 128, 128), None, False), (rows, 70, 300, None), (rows, 70, 300, 3), (rows, 71, 300, (1, 128)), (rows, 70, 300, (1, 64)), (rows, 70, 300, (2, 128)), (rows, 70, 300, (1,)), (rows, 70, 300, (1, 128), 1)]:
        with pytest.raises(ValueError, match="^transform_sf_into_required_layout: "):
            transform_sf_into_required_layout(*arguments)


def test_arithmetic():
    for x in range(0, 50):
        for y in range(1, 20):
            assert ceil_div(x, y) == -(-x // y) and align(x, y) == -(-x // y) * y
    assert deep_gemm.ceil_div(x=5, y=2) == 3 and deep_gemm.align(x=5, y=4) == 8


def test_measures(device):
    x = torch.randn(10, 10).to(device)
    assert calc_diff(x, x) == 0 and calc_diff(torch.zeros(3), torch.zeros(3)) == 0
    assert calc_diff(x, -x) == 2 and deep_gemm.calc_diff is calc_diff
    assert 0 < calc_diff(x, x * 1.01) < 1e-4
    y = x * 1.01
    diff = calc_diff(x.half(), y)
    assert diff.shape == () and diff.dtype == torch.float64 and diff.device == x.device
    u, v = x.half().double(), y.double()
    assert abs(diff - (1 - 2 * (u * v).sum() / (u * u + v * v).sum())) < 1e-14
    assert calc_diff(x.cpu().half().numpy(), y.cpu().numpy()) == pytest.approx(diff.item(), rel=1e-9)
    assert calc_diff(np.zeros(3), np.zeros(3)) == 0
    assert count_bytes(x, (x.half(), [x.to(FP8), None])) == 400 + 200 + 100
    calls = []
    seconds = bench(lambda: calls.append(x + 1), num_warmups=2, num_tests=3, high_precision=True)
    assert 0 < seconds < 1 and len(calls) == 5


def test_names_where_other_code_looks_for_them():
    """DeepGEMM's own tests and its users import these from more than one place."""
    for name in ("set_mk", "get_mk", "get_m", "get_theoretical_mk"):
        name += "_alignment_for_contiguous_layout"
        function = getattr(deep_gemm, name)
        assert getattr(deep_gemm.utils, name) is function and getattr(deep_gemm.utils.layout, name) is function
    assert deep_gemm.bench is bench and deep_gemm.bench_kineto is bench_kineto


def test_get_arch_major(device):
    if device == "cuda":
        assert get_arch_major() == 9
    elif not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="^get_arch_major: no CUDA device"):
            get_arch_major()


def test_decorators_of_tests(monkeypatch, capsys):
    wanted = False

    @test_filter(lambda: wanted)
    def twice(x):
        """Doubles."""
        return 2 * x

    assert twice(3) is None and "twice: left out" in capsys.readouterr().out
    wanted = True
    assert twice(x=3) == 6 and twice.__doc__ == "Doubles." and capsys.readouterr().out == ""

    @ignore_env("DG_NAME_OF_A_TEST", lambda: wanted)
    def seen():
        return os.environ["DG_NAME_OF_A_TEST"]

    monkeypatch.setenv("DG_NAME_OF_A_TEST", "1")
    with pytest.raises(KeyError):
        seen()
    assert os.environ["DG_NAME_OF_A_TEST"] == "1", "set again after an error too"
    wanted = False
    assert seen() == "1"


def test_bench_kineto(device):
    if device == "cpu":
        if not torch.cuda.is_available():
            with pytest.raises(RuntimeError, match="no CUDA device"):
                bench_kineto(lambda: None, "gemm")
        return
    p = Product(64, 512, 512, device)
    d = p.out()
    call = lambda: deep_gemm.fp8_gemm_nt(*p.operands(), d)
    met = []
    seconds = bench_kineto(call, "fp8_gemm_nt", num_tests=5, suppress_kineto_output=True, barrier=lambda: met.append(1))
    assert 1e-6 < seconds < 1e-3 and len(met) == 5
    seconds, none = bench_kineto(call, ("fp8_gemm_nt", "no_such_kernel"))
    assert 1e-6 < seconds < 1e-3 and none == 0


def test_bench_kineto_reads_the_profile(monkeypatch):
    """What it makes of a profile, without a GPU to make one."""

    class Profile:
        def __init__(self, **_):
            self.times = {"gemm_a<1>": 60.0, "gemm_b<2>": 20.0, "reduce": 5.0}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def key_averages(self):
            return [SimpleNamespace(key=key, device_time_total=time) for key, time in self.times.items()]

    order = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: order.append("work"))
    monkeypatch.setattr(torch.profiler, "profile", Profile)
    measure = lambda names, **given: bench_kineto(lambda: order.append("call"), names, 2, flush_l2=False, **given)
    assert measure("reduce") == 2.5e-6 and measure(("reduce", "absent")) == (2.5e-6, 0)
    assert measure("absent", with_multiple_kernels=True) == 0
    assert measure("gemm", with_multiple_kernels=True) == pytest.approx(40e-6)
    with pytest.raises(AssertionError, match=r"'gemm' fits several kernels: gemm_a<1>, gemm_b<2>"):
        measure(("reduce", "gemm"))
    order.clear()
    measure("reduce", barrier=lambda: order.append("barrier"))
    assert order == ["call"] + ["work", "barrier", "call"] * 2
