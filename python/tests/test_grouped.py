"""Mixtures of experts: each layout against the dense product of each group, which test_gemm.py checks."""

import inspect

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

import deep_gemm
from conftest import needs_hopper
from support import E5M2, FP8, Product, ceil_div

SIZES = [5, 0, 131, 128, 1]
N, K = 200, 300


class Experts:
    """Products of the groups, and their operands in the layouts of the calls."""

    def __init__(self, device, dtype=torch.bfloat16, sizes=SIZES):
        self.products = [Product(m, N, K, device) for m in sizes]
        self.sizes, self.device, self.dtype = sizes, device, dtype
        self.b = torch.stack([p.b.view(torch.uint8) for p in self.products])
        pitch = ceil_div(K, 16) * 16
        wide = torch.zeros(len(sizes), N, pitch, dtype=torch.uint8, device=device)
        wide[:, :, :K] = self.b
        self.b = wide.view(FP8)[:, :, :K], torch.stack([p.scale_b for p in self.products])

    def starts(self, alignment):
        starts, end = [], 0
        for size in self.sizes:
            starts.append(ceil_div(end, alignment) * alignment)
            end = starts[-1] + size
        return starts, ceil_div(end, alignment) * alignment

    def rows(self, alignment):
        """a, m_indices and ends; what lies between groups is NaN."""
        starts, m = self.starts(alignment)
        a = torch.full((m, ceil_div(K, 16) * 16), 0x7F, dtype=torch.uint8, device=self.device)
        scale = torch.full((m, ceil_div(K, 128)), float("nan"), device=self.device)
        indices = torch.full((m,), -1, dtype=torch.int32)
        for g, (start, p) in enumerate(zip(starts, self.products)):
            a[start : start + p.m, :K] = p.a.view(torch.uint8)
            scale[start : start + p.m] = p.scale_a
            indices[start : start + p.m] = g
        ends = torch.tensor([start + size for start, size in zip(starts, self.sizes)], dtype=torch.int32)
        return (a.view(FP8)[:, :K], scale), indices.to(self.device), ends.to(self.device)

    def out(self, *shape):
        return torch.full((*shape, N), float("nan"), dtype=self.dtype, device=self.device)

    def wrong(self, d, alignment):
        return sum(p.wrong(d[start : start + p.m]) for start, p in zip(self.starts(alignment)[0], self.products) if p.m)

    def masked(self, m_max):
        a = torch.full((len(self.sizes), m_max, ceil_div(K, 16) * 16), 0x7F, dtype=torch.uint8, device=self.device)
        scale = torch.full((len(self.sizes), m_max, ceil_div(K, 128)), float("nan"), device=self.device)
        for g, p in enumerate(self.products):
            a[g, : p.m, :K] = p.a.view(torch.uint8)
            scale[g, : p.m] = p.scale_a
        return (a.view(FP8)[:, :, :K], scale), torch.tensor(self.sizes, dtype=torch.int32, device=self.device)


@pytest.fixture
def alignment():
    yield deep_gemm.set_mk_alignment_for_contiguous_layout
    deep_gemm.set_mk_alignment_for_contiguous_layout(128)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_contiguous(device, dtype):
    experts = Experts(device, dtype)
    a, indices, ends = experts.rows(128)
    for name in ("m_grouped_fp8_gemm_nt_contiguous", "m_grouped_fp8_fp4_gemm_nt_contiguous"):
        d = experts.out(len(indices))
        assert getattr(deep_gemm, name)(a, experts.b, d, indices) is None
        assert experts.wrong(d, 128) == 0
    again = experts.out(len(indices))
    names = list(inspect.signature(deep_gemm.m_grouped_fp8_gemm_nt_contiguous).parameters)[:12]
    values = [a, experts.b, again, indices, (1, 128, 128), (1, 128), (128, 128), "mnk", True, False, True, None]
    deep_gemm.m_grouped_fp8_gemm_nt_contiguous(*values)
    deep_gemm.m_grouped_fp8_gemm_nt_contiguous(**dict(zip(names, values)))
    assert experts.wrong(again, 128) == 0
    # Whatever is false or true.
    for psum in (0, None, np.bool_(False), 1):
        d = experts.out(len(indices))
        deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, experts.b, d, ends if psum else indices, use_psum_layout=psum)
        assert experts.wrong(d, 128) == 0


@pytest.mark.parametrize("layout", ["nt", "nn"])
@pytest.mark.parametrize("prefix", ["m_grouped_fp8_gemm_", "m_grouped_fp8_fp4_gemm_"])
def test_rows_by_their_old_name(device, prefix, layout):
    """Releases up to 2.4.1 called grouped_layout m_indices."""
    experts = Experts(device)
    a, indices, _ = experts.rows(128)
    function = getattr(deep_gemm, f"{prefix}{layout}_contiguous")
    b = tuple(t.transpose(1, 2) for t in experts.b) if layout == "nn" else experts.b
    want, d, both = (experts.out(len(indices)) for _ in range(3))
    function(a, b, want, indices)
    function(a, b, d, m_indices=indices)
    assert experts.wrong(d, 128) == 0 and torch.equal(d[indices >= 0], want[indices >= 0])
    function(a=a, b=b, d=d.zero_(), grouped_layout=None, m_indices=indices)
    assert experts.wrong(d, 128) == 0
    for named in ({}, {"grouped_layout": indices, "m_indices": indices}):
        with pytest.raises(TypeError, match=f"^m_grouped_fp8_gemm_{layout}_contiguous: .*give it once"):
            function(a, b, both, **named)
    assert bool(torch.isnan(both).all())


@pytest.mark.parametrize("rows", [1, 8, 128])
@pytest.mark.parametrize("zeros", [False, True])
def test_offsets(device, alignment, rows, zeros):
    alignment(rows)
    assert deep_gemm.get_mk_alignment_for_contiguous_layout() == deep_gemm.get_m_alignment_for_contiguous_layout() == rows
    experts = Experts(device)
    a, indices, ends = experts.rows(rows)
    d = experts.out(len(indices))
    deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, experts.b, d, ends, use_psum_layout=True, ensure_zero_padding=zeros, expected_m_for_psum_layout=99)
    assert experts.wrong(d, rows) == 0
    padding = d[indices < 0]
    assert torch.equal(padding, torch.zeros_like(padding)) if zeros else bool(torch.isnan(padding).all())
    if rows % 128:
        with pytest.raises(ValueError, match="the alignment set is"):
            deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, experts.b, d, indices)


def test_masked(device):
    experts = Experts(device)
    a, masked_m = experts.masked(150)
    names = list(inspect.signature(deep_gemm.m_grouped_fp8_gemm_nt_masked).parameters)[:10]
    for name in ("m_grouped_fp8_gemm_nt_masked", "m_grouped_fp8_fp4_gemm_nt_masked", "fp8_m_grouped_gemm_nt_masked"):
        d = experts.out(len(SIZES), 150)
        values = [a, experts.b, d, masked_m, 40, None, None, None, "nk", False]
        getattr(deep_gemm, name)(**dict(zip(names, values)))
        for g, p in enumerate(experts.products):
            assert p.m == 0 or p.wrong(d[g, : p.m]) == 0
            assert bool(torch.isnan(d[g, p.m :]).all())
        getattr(deep_gemm, name)(*values)


def test_nn_is_a_view(device):
    experts = Experts(device)
    a, indices, _ = experts.rows(128)
    flipped = tuple(t.transpose(1, 2) for t in experts.b)
    for name in ("m_grouped_fp8_gemm_nn_contiguous", "m_grouped_fp8_fp4_gemm_nn_contiguous"):
        d = experts.out(len(indices))
        getattr(deep_gemm, name)(a, flipped, d, indices)
        assert experts.wrong(d, 128) == 0
    with pytest.raises(ValueError, match="stride"):
        deep_gemm.m_grouped_fp8_gemm_nn_contiguous(a, (flipped[0].contiguous(), flipped[1]), d, indices)
    for bad, error, text in [
        (None, TypeError, "b is of type NoneType"),
        ((*flipped, 1), TypeError, "b is not a tensor and not a pair"),
        (flipped[0][0], ValueError, "b has 2 dimensions, expected 3"),
    ]:
        with pytest.raises(error, match=f"^m_grouped_fp8_gemm_nn_contiguous: {text}"):
            deep_gemm.m_grouped_fp8_gemm_nn_contiguous(a, bad, d, indices)


def test_first_release_names(device):
    experts = Experts(device)
    a, indices, _ = experts.rows(128)
    out = experts.out(len(indices))
    function = deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_contiguous
    assert function(a, experts.b, out, indices) is out and experts.wrong(out, 128) == 0
    assert experts.wrong(function(lhs=a, rhs=experts.b, m_indices=indices), 128) == 0
    dense, _, _ = experts.rows(1)
    assert experts.wrong(function(dense, experts.b, None, SIZES), 1) == 0
    with pytest.raises(ValueError, match="adds up to"):
        function(dense, experts.b, None, [10**6] * len(SIZES))
    for sizes, text in [([5, -5, 131, 128, 1], r"m_indices is \[5, -5.*no group with less"), ([5.9, 0, 1, 1, 1], r"m_indices\[0\] is 5.9")]:
        with pytest.raises(ValueError, match=f"^m_grouped_gemm_fp8_fp8_bf16_nt_contiguous: {text}"):
            function(dense, experts.b, None, sizes)
    with pytest.raises(TypeError, match="m_indices is missing"):
        function(dense, experts.b)
    a, masked_m = experts.masked(150)
    d = deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_masked(a, experts.b, None, masked_m, 30)
    assert sum(p.wrong(d[g, : p.m]) for g, p in enumerate(experts.products) if p.m) == 0


def test_wrong_inputs(device):
    experts = Experts(device)
    a, indices, _ = experts.rows(128)
    d = experts.out(len(indices))
    b, scale_b = experts.b
    call = deep_gemm.m_grouped_fp8_gemm_nt_contiguous
    for arguments, error, text in [
        ((a, experts.b, d, indices.long()), ValueError, "m_indices is int64, expected i32"),
        ((a, experts.b, d, indices.to("meta")), ValueError, r"m_indices is torch.int32 \(torch.strided\) on meta, expected i32"),
        ((a, experts.b, d, indices[:-1]), ValueError, "m_indices is"),
        ((a, (b[0], scale_b[0]), d, indices), ValueError, "b has 2 dimensions"),
        ((a, (b, scale_b[:1]), d, indices), ValueError, "scale_b is"),
        ((a, experts.b, d[:-1], indices), ValueError, "d is"),
        ((a, experts.b, d, None), TypeError, ".*give it once"),
        ((a, experts.b, d, [0]), TypeError, "m_indices is of type list"),
        ((a, experts.b, d, indices, (1, 1, 128)), ValueError, "recipe is"),
        ((a, experts.b, d, indices, None, None, (1, 128)), ValueError, r"recipe_b is \(1, 128\), expected \(128, 128\)"),
    ]:
        with pytest.raises(error, match="^m_grouped_fp8_gemm_nt_contiguous: " + text):
            call(*arguments)
    for given, named in [((a, experts.b), {}), ((a, experts.b, d, indices), {"groups": 3}), ((a, experts.b, d, indices), {"d": d})]:
        with pytest.raises(TypeError, match=r"m_grouped_fp8_gemm_nt_contiguous\(\)"):
            call(*given, **named)
    assert bool(torch.isnan(d).all())
    a, masked_m = experts.masked(150)
    for expected_m in (-1, 10.0, None, "x", 1 << 70):
        with pytest.raises(ValueError, match=f"^m_grouped_fp8_gemm_nt_masked: expected_m is {expected_m!r}, expected"):
            deep_gemm.m_grouped_fp8_gemm_nt_masked(a, experts.b, experts.out(len(SIZES), 150), masked_m, expected_m)
    with pytest.raises(ValueError, match="^m_grouped_fp8_gemm_nt_masked: masked_m is int64, expected i32"):
        deep_gemm.m_grouped_fp8_gemm_nt_masked(a, experts.b, experts.out(len(SIZES), 150), masked_m.long(), 10)
    for alignment in (0, 128.0):
        with pytest.raises(ValueError, match=f"^set_mk_alignment_for_contiguous_layout: alignment is {alignment}"):
            deep_gemm.set_mk_alignment_for_contiguous_layout(alignment)
    for expected in ({}, {"expected_m": 7}, {"expected_m": 256, "num_groups": 128}):
        assert deep_gemm.get_theoretical_mk_alignment_for_contiguous_layout(**expected) == 128


def test_operator(device):
    torch.compiler.reset()
    experts = Experts(device, torch.float32)
    a, masked_m = experts.masked(150)
    d = torch.zeros(len(SIZES), 150, N, device=device)
    as_bytes = lambda t: t.contiguous().view(torch.uint8)
    padded = torch.zeros(len(SIZES), N, 304, dtype=torch.uint8, device=device)[:, :, :K]
    arguments = ("masked", as_bytes(a[0]) if device == "cpu" else a[0].view(torch.uint8), torch.ones_like(a[1]), "e4m3", padded, experts.b[1], "e4m3", d, masked_m, 40, 1, False)
    # The tests with a dispatcher copy A without the padding of its rows, which a GPU's loads need.
    checks = {"test_utils": ("test_schema", "test_faketensor")} if device == "cuda" else {}
    opcheck(torch.ops.deep_gemm.m_grouped_fp8_gemm_nt, arguments, **checks)

    def step(d):
        deep_gemm.m_grouped_fp8_gemm_nt_masked(a, experts.b, d, masked_m, 40)
        return d + 1

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(torch.zeros_like(d)), step(torch.zeros_like(d)))


KS = [256, 0, 128, 512, 128]


class WeightGradients:
    """D[g] += A_g · B_gᵀ with a k for each group, as flat and as strided operands."""

    def __init__(self, device, ks, m=70, n=136, types=(FP8, FP8)):
        self.products = [Product(m, n, k, device, rows_b=1, types=types) for k in ks]
        self.m, self.n, self.ks, self.device = m, n, ks, device

    def _scales(self, name):
        return torch.cat([getattr(p, "scale_" + name) for p in self.products], dim=1)

    def flat(self):
        join = lambda name: torch.cat([getattr(p, name).contiguous().view(torch.uint8).flatten() for p in self.products])
        return tuple((join(name).view(getattr(self.products[0], name).dtype), self._scales(name)) for name in "ab")

    def strided(self):
        """Rows apart as a GPU's loads need, NaN behind them."""
        operands = []
        for name, rows in (("a", self.m), ("b", self.n)):
            memory = torch.full((rows, ceil_div(sum(self.ks), 16) * 16 + 16), 0x7F, dtype=torch.uint8, device=self.device)
            data = memory[:, : sum(self.ks)]
            data[:] = torch.cat([getattr(p, name).contiguous().view(torch.uint8) for p in self.products], dim=1)
            operands.append((data.view(getattr(self.products[0], name).dtype), self._scales(name)))
        return tuple(operands)

    def c(self):
        return torch.randn(len(self.ks), self.m, self.n).to(self.device)

    def wrong(self, d, c):
        return sum(p.wrong(d[g], c[g]) for g, p in enumerate(self.products))


@pytest.mark.parametrize("types", [(FP8, FP8), (E5M2, FP8)])
@pytest.mark.parametrize("form", ["flat", "strided"])
def test_k_grouped(device, form, types):
    w = WeightGradients(device, KS if form == "flat" else [48, 0, 304, 16, 100], types=types)
    a, b = getattr(w, form)()
    c = w.c()
    on_device = torch.tensor(w.ks, dtype=torch.int32, device=device)
    names = list(inspect.signature(deep_gemm.k_grouped_fp8_gemm_nt_contiguous).parameters)[:9]
    assert names == ["a", "b", "d", "ks_cpu", "grouped_layout", "c", "recipe", "compiled_dims", "use_psum_layout"]
    d = torch.full_like(c, float("nan"))
    values = [a, b, d, w.ks, on_device, c, (1, 1, 128), "mn", False]
    assert deep_gemm.k_grouped_fp8_gemm_nt_contiguous(*values) is None
    assert w.wrong(d, c) == 0 and torch.equal(d[1], c[1])
    for named in (dict(zip(names, values)), {"a": a, "b": b, "d": d, "ks": torch.tensor(w.ks), "ks_tensor": on_device, "c": c}):
        d.fill_(float("nan"))
        deep_gemm.k_grouped_fp8_gemm_nt_contiguous(**named)
        assert w.wrong(d, c) == 0
    in_place = c.clone()
    deep_gemm.k_grouped_fp8_gemm_nt_contiguous(a, b, in_place, w.ks, on_device)
    assert torch.equal(in_place, d)
    bare = c.clone()
    deep_gemm.k_grouped_fp8_gemm_nt_contiguous(a[0], b[0], bare, w.ks, on_device, bare)
    for p in w.products:
        p.scale_a = p.scale_b = None
    assert w.wrong(bare, c) == 0


@pytest.mark.parametrize("name", ["grouped_layout", "ks_tensor"])
def test_k_grouped_sizes_that_disagree(device, name):
    """Sizes of both sides are compared where the host can read them."""
    w = WeightGradients(device, KS)
    a, b = w.flat()
    d = torch.full_like(w.c(), float("nan"))
    total = [sum(KS), 0, 0, 0, 0]  # an upper bound and no more, as some callers plan with
    for sizes in (torch.tensor(KS), np.array(KS, np.int32)):
        with pytest.raises(ValueError, match=r"^k_grouped_fp8_gemm_nt_contiguous: grouped_layout holds \[256, 0, 128.*ks_cpu says, \[1024, 0"):
            deep_gemm.k_grouped_fp8_gemm_nt_contiguous(a, b, d, total, **{name: sizes})
    with pytest.raises(ValueError, match="grouped_layout holds"):
        deep_gemm.k_grouped_fp8_gemm_nt_contiguous(a, b, d, KS, **{name: torch.tensor(KS[:-1])})
    assert bool(torch.isnan(d).all())
    # What only stands for numbers is not read.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = [mode.from_tensor(t) for t in (*a, *b, d, torch.tensor(KS, dtype=torch.int32))]
        deep_gemm.k_grouped_fp8_gemm_nt_contiguous(tuple(fake[:2]), tuple(fake[2:4]), fake[4], KS, **{name: fake[5]})


def test_k_grouped_sizes_of_any_kind(device):
    w = WeightGradients(device, KS)
    a, b = w.flat()
    c = w.c()
    want = c.clone()
    deep_gemm.k_grouped_fp8_gemm_nt_contiguous(a, b, want, KS, None)
    for sizes in (tuple(KS), iter(KS), dict(enumerate(KS)).values(), np.array(KS), torch.tensor(KS), [np.int64(k) for k in KS]):
        d = c.clone()
        deep_gemm.k_grouped_fp8_gemm_nt_contiguous(a, b, d, sizes, None)
        assert torch.equal(d, want)


def test_k_grouped_from_casts(device):
    """Weight gradients as training makes them: tokens by channels, quantised along the tokens, transposed."""
    m, n = 96, 160
    x, y = ([torch.randn(k, rows).to(device) for k in KS] for rows in (m, n))
    casts = [[deep_gemm.per_channel_cast_to_fp8(t, use_ue8m0=False) for t in side] for side in (x, y)]
    a, b = (
        (torch.cat([q.view(torch.uint8).T.flatten() for q, _ in side]).view(FP8), torch.cat([s for _, s in side]).T)
        for side in casts
    )
    d = torch.zeros(len(KS), m, n, device=device)
    deep_gemm.k_grouped_fp8_gemm_nt_contiguous(a, b, d, KS, torch.tensor(KS, dtype=torch.int32, device=device))
    for g, k in enumerate(KS):
        want = x[g].double().T @ y[g].double()
        assert deep_gemm.calc_diff(d[g], want) < 1e-3 and (k > 0 or bool((d[g] == 0).all()))


def test_weight_gradients_by_their_old_names(device):
    """1.x: results are added to out, scales may lie transposed, those of groups do."""
    p = Product(70, 136, 300, device, rows_b=1)
    (a, scale_a), (b, scale_b) = p.operands()
    c = torch.randn(70, 136).to(device)
    for turn in (lambda scale: scale, lambda scale: scale.T.contiguous()):
        out = c.clone()
        assert deep_gemm.wgrad_gemm_fp8_fp8_fp32_nt((a, turn(scale_a)), (b, turn(scale_b)), out) is None
        assert p.wrong(out, c) == 0
    square = Product(3, 136, 300, device, rows_b=1)
    deep_gemm.wgrad_gemm_fp8_fp8_fp32_nt(lhs=square.operands()[0], rhs=square.operands()[1], out=out.zero_()[:3])
    assert square.wrong(out[:3]) == 0
    w = WeightGradients(device, KS)
    (a, scale_a), (b, scale_b) = w.flat()
    c = w.c()
    out = c.clone()
    lhs, rhs = (a, scale_a.T.contiguous()), (b, scale_b.T.contiguous())
    assert deep_gemm.k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(lhs=lhs, rhs=rhs, out=out, batch_sizes=KS) is None
    assert w.wrong(out, c) == 0
    with pytest.raises(ValueError, match=r"^k_grouped_wgrad_gemm_fp8_fp8_fp32_nt: batch_sizes\[0\] is 1.5"):
        deep_gemm.k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(lhs, rhs, out, [1.5])
    for bad, error, text in [((a, 1.0), TypeError, "scale_lhs is of type float"), (None, TypeError, "lhs is of type NoneType")]:
        for function in (deep_gemm.wgrad_gemm_fp8_fp8_fp32_nt, lambda *given: deep_gemm.k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(*given, KS)):
            with pytest.raises(error, match=f"wgrad_gemm_fp8_fp8_fp32_nt: {text}"):
                function(bad, rhs, out)


def test_k_grouped_wrong_inputs(device):
    w = WeightGradients(device, KS)
    a, b = w.flat()
    d = torch.full_like(w.c(), float("nan"))
    layout = torch.tensor(KS, dtype=torch.int32, device=device)
    call = deep_gemm.k_grouped_fp8_gemm_nt_contiguous
    for arguments, named, error, text in [
        ((a, b, d, KS[:-1], None), {}, ValueError, r"d is \["),
        ((a, b, d, [*KS[:-1], 100], None), {}, ValueError, r"ks\[4\] is 100, expected a multiple of 128"),
        ((a, b, d, [-128, 0, 0, 0, 0], None), {}, ValueError, r"ks\[0\] is -128"),
        ((a, b, d, [256.0, *KS[1:]], None), {}, ValueError, r"ks_cpu\[0\] is 256.0, expected an integer"),
        ((a, b, d, [*KS[:-1], 1 << 31], None), {}, ValueError, r"ks_cpu\[4\] is 2147483648, expected an integer below 2\^31"),
        ((a, b, d, 256, None), {}, TypeError, r"ks_cpu is of type int, expected a list"),
        ((a, (b[0], b[1][:, 1:]), d, KS, layout), {}, ValueError, r"scale_b is \["),
        ((a, b[0], d, KS, layout), {}, ValueError, "scale_b is missing"),
        ((a, b, d.bfloat16(), KS, layout), {}, ValueError, "d is bf16, expected f32"),
        ((a, b, d, KS, layout, d[:1]), {}, ValueError, r"c is \["),
        ((a, b, d, KS, layout), {"recipe": (1, 128, 128)}, ValueError, r"recipe is \(1, 128, 128\), expected \(1, 1, 128\)"),
        ((a, b, d, KS, layout), {"use_psum_layout": True}, ValueError, "use_psum_layout is True"),
        ((a, b, d, KS, layout), {"ks": KS}, TypeError, ".*give each once"),
        ((a, b, d), {}, TypeError, ".*give each once"),
        ((a, b, None, KS, layout), {}, TypeError, "d is of type NoneType"),
    ]:
        with pytest.raises(error, match=f"^k_grouped_fp8_gemm_nt(_contiguous)?: {text}"):
            call(*arguments, **named)
    assert bool(torch.isnan(d).all())


def test_k_grouped_operator(device):
    torch.compiler.reset()
    w = WeightGradients(device, KS)
    (a, scale_a), (b, scale_b) = w.flat()
    arguments = (a.view(torch.uint8), scale_a, "e4m3", b.view(torch.uint8), scale_b, "e4m3", w.c(), KS)
    opcheck(torch.ops.deep_gemm.k_grouped_fp8_gemm_nt, (*arguments, None))
    opcheck(torch.ops.deep_gemm.k_grouped_fp8_gemm_nt, (*arguments, w.c()))

    def step(d):
        deep_gemm.k_grouped_fp8_gemm_nt_contiguous((a, scale_a), (b, scale_b), d, KS, layout)
        return d + 1

    c, layout = w.c(), torch.tensor(KS, dtype=torch.int32, device=device)
    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(c.clone()), step(c.clone()))


@needs_hopper
def test_scratch_memory_comes_from_torch():
    experts = Experts("cuda")
    a, masked_m = experts.masked(150)
    p, q = Product(77, 200, 300, "cuda"), Product(77, 200, 300, "cuda", rows_b=1)
    w = WeightGradients("cuda", KS)
    flat = w.flat()
    dense, slab, gradients = p.out(), experts.out(len(SIZES), 150), w.c()
    other = torch.cuda.Stream().cuda_stream
    for blocks, call in [
        (1, lambda: deep_gemm.fp8_gemm_nt(*p.operands(), dense)),
        (1, lambda: deep_gemm.fp8_gemm_nt(*q.operands(), dense, recipe=(1, 1, 128))),
        (1, lambda: deep_gemm.m_grouped_fp8_gemm_nt_masked(a, experts.b, slab, masked_m, 40)),
        (1, lambda: deep_gemm.k_grouped_fp8_gemm_nt_contiguous(*flat, gradients, KS, None)),
        (0, lambda: deep_gemm.fp8_gemm_nt(p.a, p.b, dense)),
        # torch's allocator knows nothing of this stream.
        (0, lambda: deep_gemm.fp8_gemm_nt(*p.operands(), dense, stream=other)),
    ]:
        count = lambda: torch.cuda.memory_stats()["allocation.all.allocated"]
        before = count()
        call()
        assert count() - before == blocks
        torch.cuda.synchronize()
    assert p.wrong(dense) == 0


def test_config_keys():
    key = deep_gemm.get_best_gemm_config_key
    for kind in ("MGroupedContiguous", "MGroupedContiguousWithPsumLayout", "MGroupedMasked"):
        keys = {m: key(kind, "fp8", m, 4096, 7168, 32) for m in (1, 2, 8192)}
        assert keys[1] == keys[2] and len(set(keys.values())) == 2
        assert keys[1] != key("Normal", "fp8", 1, 4096, 7168, 1)
    assert key("KGroupedContiguous", "fp8", 4096, 7168, 8192, 8) == key("KGroupedContiguous", "fp8", 4096, 7168, 8320, 8)
