"""Dense products: names, keywords, layouts, wrong inputs. Each element is checked."""

import inspect

import numpy as np
import pytest
import torch

import deep_gemm
from deep_gemm import _torch
from support import E5M2, FP8, Product

SHAPES = [(1, 1, 1), (64, 512, 512), (3, 130, 257), (129, 128, 128), (200, 72, 1000), (16, 1000, 64)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_element_is_within_the_bound(device, shape, dtype):
    p = Product(*shape, device)
    d = p.out(dtype)
    assert deep_gemm.fp8_gemm_nt(*p.operands(), d) is None
    assert p.wrong(d) == 0


def test_the_check_sees_a_lost_tile_and_a_flipped_bit():
    p = Product(256, 256, 512)
    d = p.out(torch.float32)
    deep_gemm.fp8_gemm_nt(*p.operands(), d)
    lost = d.clone()
    lost[128:, 128:] = 0
    assert p.wrong(lost) > 16000
    p.a.view(torch.uint8)[5, 7] ^= 0x40
    assert p.wrong(d) > 100


@pytest.mark.parametrize("scaled", [(True, False), (False, True), (False, False)])
def test_unit_scales(device, scaled):
    p = Product(70, 200, 300, device, *scaled)
    d = p.out()
    deep_gemm.fp8_gemm_nt(*p.operands(), d)
    assert p.wrong(d) == 0
    bare = p.out()
    operands = [o[0] if o[1] is None else list(o) for o in p.operands()]
    deep_gemm.fp8_gemm_nt(*operands, bare)
    assert torch.equal(d, bare)


RECIPES = {
    128: [(None, None, None), ((1, 128, 128), (1, 128), (128, 128)), (None, (1, 128), (128, 128)), ([1, 128, 128], None, None)],
    1: [((1, 1, 128), None, None), ((1, 1, 128), (1, 128), (1, 128)), (None, (1, 128), (1, 128)), (None, None, (1, 128))],
}


@pytest.mark.parametrize("rows_b", RECIPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_c_is_added(device, rows_b, dtype):
    p = Product(33, 65, 400, device, rows_b=rows_b)
    recipe = RECIPES[rows_b][1][0]
    c = torch.randn(33, 65).to(device, dtype)
    d = p.out(dtype)
    deep_gemm.fp8_gemm_nt(*p.operands(), d, c, recipe)
    assert p.wrong(d, c) == 0
    in_place = c.clone()
    deep_gemm.fp8_gemm_nt(*p.operands(), in_place, c=in_place, recipe=recipe)
    assert torch.equal(in_place, d)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("types", [(FP8, E5M2), (E5M2, FP8), (E5M2, E5M2)])
def test_e5m2(device, types, dtype):
    p = Product(70, 136, 300, device, types=types)
    d = p.out(dtype)
    deep_gemm.fp8_gemm_nt(*p.operands(), d)
    assert p.wrong(d) == 0


@pytest.mark.parametrize("recipes", RECIPES[1])
@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 512, 512), (129, 200, 1000)])
def test_1d1d(device, shape, recipes):
    p = Product(*shape, device, rows_b=1)
    for dtype in (torch.bfloat16, torch.float32):
        d = p.out(dtype)
        deep_gemm.fp8_gemm_nt(*p.operands(), d, None, *recipes)
        assert p.wrong(d) == 0
    for scale_a in strange_scales(p.scale_a):
        for scale_b in strange_scales(p.scale_b):
            again = p.out(torch.float32)
            deep_gemm.fp8_gemm_nt((p.a, scale_a), (p.b, scale_b), again, None, *recipes)
            assert torch.equal(again, d)


def test_every_argument_by_position_and_by_name(device):
    names = ["a", "b", "d", "c", "recipe", "recipe_a", "recipe_b", "compiled_dims", "disable_ue8m0_cast", "alpha"]
    p = Product(32, 128, 256, device)
    a, b = p.operands()
    want = p.out()
    deep_gemm.fp8_gemm_nt(a, b, want)
    for name in ("fp8_gemm_nt", "fp8_fp4_gemm_nt"):
        function = getattr(deep_gemm, name)
        assert list(inspect.signature(function).parameters)[:10] == names
        for recipes in RECIPES[128]:
            d = p.out()
            values = [a, b, d, None, *recipes, "mnk", True, None]
            function(*values)
            assert torch.equal(d, want)
            d.fill_(float("nan"))
            function(**dict(zip(names, values)))
            assert torch.equal(d, want)


@pytest.mark.parametrize("layout", ["nn", "tn", "tt"])
@pytest.mark.parametrize("prefix", ["fp8_gemm_", "fp8_fp4_gemm_"])
def test_other_layouts_as_views(device, layout, prefix):
    p = Product(48, 96, 320, device)
    a, b = p.operands()
    want, d = p.out(), p.out()
    deep_gemm.fp8_gemm_nt(a, b, want)
    function = getattr(deep_gemm, prefix + layout)
    flip = lambda operand: (operand[0].T, operand[1].T)
    first = flip(a) if layout[0] == "t" else a
    second = flip(b) if layout[1] == "n" else b
    function(first, second, d)
    assert torch.equal(d, want)
    function(a=first, b=second, d=d.zero_(), c=None, recipe=(1, 128, 128), recipe_a=None, recipe_b=None, compiled_dims="nk", disable_ue8m0_cast=False, alpha=None)
    assert torch.equal(d, want)
    wrong = [(o[0].contiguous(), o[1]) for o in (first, second)]
    with pytest.raises(ValueError, match=f"^{prefix.replace('fp8_fp4', 'fp8')}{layout}: [ab] is .*stride 1 along its first dimension"):
        function(wrong[0] if layout[0] == "t" else first, wrong[1] if layout[1] == "n" else second, d)
    for bad, error, text in [
        (None, TypeError, "[ab] is of type NoneType, expected a tensor"),
        ("x", TypeError, "[ab] is of type str, expected a tensor"),
        ((*first, 1), TypeError, "[ab] is not a tensor and not a pair"),
        ((first[0], 1.0), TypeError, "scale_[ab] is of type float, expected a tensor"),
        ((first[0][None], first[1]), ValueError, "[ab] has 3 dimensions, expected 2"),
    ]:
        with pytest.raises(error, match=f"^fp8_gemm_{layout}: {text}"):
            function(bad if layout[0] == "t" else first, bad if layout[1] == "n" else second, d)


@pytest.mark.parametrize("m, n, k", [(0, 64, 128), (64, 0, 128), (5, 64, 0)])
def test_empty_dimensions(device, m, n, k):
    p = Product(m, n, k, device)
    d, c = p.out(), torch.ones(m, n, dtype=torch.bfloat16, device=device)
    deep_gemm.fp8_gemm_nt(*p.operands(), d)
    assert torch.equal(d, torch.zeros_like(d))
    deep_gemm.fp8_gemm_nt(*p.operands(), d, c)
    assert torch.equal(d, c)


def strange_scales(scale):
    """The same numbers, however they lie."""
    rows, cols = scale.shape
    yield scale.T.contiguous().T
    yield deep_gemm.get_mn_major_tma_aligned_tensor(scale)
    wide = scale.new_full((2 * rows, 3 * cols), float("nan"))
    wide[::2, ::3] = scale
    yield wide[::2, ::3]
    if rows > 1 and bool((scale == scale[:1]).all()):
        yield scale[:1].expand(rows, cols)


@pytest.mark.parametrize("equal_rows", [False, True])
def test_scales_in_any_layout(device, equal_rows):
    p = Product(37, 260, 400, device)
    if equal_rows:
        p.scale_a[:] = p.scale_a[:1].clone()
    want = p.out()
    deep_gemm.fp8_gemm_nt(*p.operands(), want)
    assert p.wrong(want) == 0
    for scale_a in strange_scales(p.scale_a):
        for scale_b in strange_scales(p.scale_b):
            d = p.out()
            deep_gemm.fp8_gemm_nt((p.a, scale_a), (p.b, scale_b), d)
            assert torch.equal(d, want)


def test_wide_rows_of_d_and_c(device):
    p = Product(40, 77, 256, device)
    want = p.out()
    c = torch.randn(40, 77).to(device, torch.bfloat16)
    deep_gemm.fp8_gemm_nt(*p.operands(), want, c)
    for pitch, offset in [(77, 0), (81, 1), (128, 3)]:
        memory = torch.full((40 * pitch + offset,), 7.0, dtype=torch.bfloat16, device=device)
        d = memory[offset:].view(40, pitch)[:, :77]
        deep_gemm.fp8_gemm_nt(*p.operands(), d, c)
        assert torch.equal(d, want)
        memory[offset:].view(40, pitch)[:, :77] = 7.0
        assert bool((memory == 7.0).all()), "written outside of d"


def test_single_row_with_any_stride(device):
    p = Product(1, 64, 256, device)
    want, d = p.out(), p.out()
    deep_gemm.fp8_gemm_nt(*p.operands(), want)
    odd = p.a.as_strided((1, 256), (1, 1))
    deep_gemm.fp8_gemm_nt((odd, p.scale_a.as_strided((1, 2), (99, 1))), (p.b, p.scale_b), d.as_strided((1, 64), (3, 1)))
    assert torch.equal(d, want)


def test_parameters_and_tensors_that_require_gradients(device):
    p = Product(8, 16, 128, device)
    want = p.out()
    deep_gemm.fp8_gemm_nt(*p.operands(), want)
    for grad in (False, True):
        d = p.out()
        b = torch.nn.Parameter(p.b, requires_grad=False), torch.nn.Parameter(p.scale_b, requires_grad=grad)
        deep_gemm.fp8_gemm_nt((p.a, p.scale_a), b, d)
        assert torch.equal(d, want)


def test_numpy():
    p = Product(20, 150, 300)
    want = p.out(torch.float32)
    deep_gemm.fp8_gemm_nt(*p.operands(), want)
    a, b = p.a.contiguous().view(torch.uint8).numpy(), p.b.contiguous().view(torch.uint8).numpy()
    sa, sb = p.scale_a.numpy(), np.asfortranarray(p.scale_b.numpy())
    for dtype in ("e4m3", "float8_e4m3fn"):
        d = np.full((20, 150), np.nan, np.float32)
        deep_gemm.fp8_gemm_nt((a, sa), (b, sb), d, dtype=dtype)
        assert np.array_equal(d, want.numpy())
    other = Product(20, 150, 300, types=(E5M2, E5M2))
    wide = [t.contiguous().view(torch.uint8).numpy() for t in (other.a, other.b)]
    deep_gemm.fp8_gemm_nt((wide[0], other.scale_a.numpy()), (wide[1], other.scale_b.numpy()), d, dtype="e5m2")
    assert other.wrong(torch.from_numpy(d)) == 0
    bits = np.zeros((20, 150), np.uint16)
    deep_gemm.fp8_gemm_nt((a, sa), (b, sb), bits, dtype="e4m3")
    assert np.array_equal(bits, want.bfloat16().view(torch.uint16).numpy())
    d.flags.writeable = False
    with pytest.raises(ValueError, match="^fp8_gemm_nt: d is read-only, expected memory that can be written to"):
        deep_gemm.fp8_gemm_nt((a, sa), (b, sb), d, dtype="e4m3")
    a.flags.writeable = False
    deep_gemm.fp8_gemm_nt((a, sa), (b, sb), bits, dtype="e4m3", stream=None)
    with pytest.raises(ValueError, match='a is uint8, expected e4m3 or e5m2; say what its bytes are with dtype="e4m3"'):
        deep_gemm.fp8_gemm_nt((a, sa), (b, sb), bits)
    with pytest.raises(ValueError, match="dtype is 'fp8', expected"):
        deep_gemm.fp8_gemm_nt((a, sa), (b, sb), bits, dtype="fp8")


def wrong_inputs(p):
    """Keyword arguments of a call, its error, and what that says after the function's name."""
    (a, sa), (b, sb), d = *p.operands(), p.out()
    good = {"a": (a, sa), "b": (b, sb), "d": d}
    bad = lambda **changed: {**good, **changed}
    yield bad(a=(a[:, :-1], sa)), ValueError, r"b is \[.*same k"
    yield bad(a=(a, sa[:, :-1])), ValueError, r"scale_a is \[.*\], expected \[.*ceil\(k / 128\)"
    yield bad(a=(a, sa.double())), ValueError, "scale_a is float64, expected f32"
    yield bad(a=(a.float().to(torch.float8_e4m3fnuz), sa)), ValueError, "a is float8_e4m3fnuz, expected e4m3 or e5m2"
    yield bad(a=(a.view(torch.uint8), sa)), ValueError, "a is uint8, expected e4m3 or e5m2; say what"
    yield bad(d=d.bool()), ValueError, "d is bool, expected bf16 or f32"
    yield bad(d=d.to(torch.complex64)), ValueError, "d is complex64, expected bf16 or f32"
    yield bad(b=(b.to("meta"), sb)), ValueError, r"b is torch.float8_e4m3fn \(torch.strided\) on meta, expected e4m3 or e5m2"
    yield bad(d=d.nan_to_num().to_sparse()), ValueError, r"d is torch.bfloat16 \(torch.sparse_coo\) on .*, expected bf16 or f32 \(torch.strided\)"
    yield bad(a=(a, sa, 1, 2, 3)), TypeError, r"a is not a tensor and not a pair"
    yield bad(a=(1, "e4m3", (24, 256), (256, 1), -1)), TypeError, r"a is not a tensor and not a pair"
    yield bad(a=((1, "e4m3", (24, 256), (256, 1), -1), sa)), TypeError, r"a is of type tuple, expected a tensor"
    yield bad(stream="x"), ValueError, "stream is 'x', expected the address of a CUDA stream"
    yield bad(a=(a, sa.half())), ValueError, "scale_a is f16, expected f32"
    yield bad(b=(b, sb.T)), ValueError, r"scale_b is \["
    yield bad(a=(a.float(), sa)), ValueError, "a is f32, expected e4m3"
    yield bad(a=(a.reshape(1, *a.shape), sa)), ValueError, "a has 3 dimensions, expected 2"
    yield bad(a=(a.reshape(1, 1, *a.shape), sa)), ValueError, "a has 4 dimensions"
    yield bad(b=(b.T.contiguous().T, sb)), ValueError, "b has stride .* along its last dimension"
    yield bad(d=d[:-1]), ValueError, r"d is \[.*\[m, n\]"
    yield bad(d=d.half()), ValueError, "d is f16, expected bf16 or f32"
    yield bad(d=d.T.contiguous().T), ValueError, "d has stride"
    yield bad(d=d[:, :1].expand(*d.shape)), ValueError, "d has stride"
    yield bad(c=d.float()), ValueError, "c is f32, expected bf16"
    yield bad(c=d[:, :-1]), ValueError, r"c is \["
    yield bad(d=None), TypeError, "d is of type NoneType, expected a tensor"
    yield bad(d=[1, 2]), TypeError, "d is of type list"
    yield bad(a=None), TypeError, "a is of type NoneType"
    yield bad(a=(a, sa, sa)), TypeError, r"a is not a tensor and not a pair"
    yield bad(b=(b, "scale")), TypeError, "scale_b is of type str"
    yield bad(recipe=(1, 1, 128)), ValueError, r"scale_b is \[.*\] = \[n, ceil\(k / 128\)\]"
    yield bad(recipe=(1, 1, 64)), ValueError, r"recipe is \(1, 1, 64\), expected \(1, 128, 128\) or \(1, 1, 128\)"
    yield bad(recipe=(1, 1, 128), recipe_b=(128, 128)), ValueError, r"recipe is \(1, 1, 128\), expected what recipe_b says"
    yield bad(recipe=128), ValueError, "recipe is 128, expected"
    yield bad(recipe=(1, "a", 128)), ValueError, "recipe is"
    yield bad(recipe_a=(1, 64)), ValueError, "recipe_a is"
    yield bad(recipe_b=(1, 64)), ValueError, "recipe_b is"
    yield bad(alpha=1.0), ValueError, "alpha is 1.0, expected None"
    if p.device == "cuda":
        yield bad(d=d.cpu()), ValueError, "a lies on cuda:0, expected cpu"
        yield bad(a=(a, sa.cpu())), ValueError, "scale_a lies on cpu, expected cuda:0"
        memory = torch.zeros(p.m * (p.k + 1) + 16, dtype=torch.uint8, device="cuda").view(FP8)
        yield bad(a=(memory[1:].as_strided((p.m, p.k), (256, 1)), sa)), ValueError, "a starts at an address that is no multiple of 16 bytes"
        yield bad(a=(memory.as_strided((p.m, p.k), (p.k + 1, 1)), sa)), ValueError, "a has a row pitch"


def test_wrong_inputs_write_nothing(device):
    p = Product(24, 40, 256, device)
    count = 0
    for arguments, error, text in wrong_inputs(p):
        with pytest.raises(error, match="^fp8_gemm_nt: " + text):
            deep_gemm.fp8_gemm_nt(**arguments)
        if isinstance(arguments["d"], torch.Tensor) and arguments["d"].is_floating_point() and not arguments["d"].is_sparse:
            assert bool(torch.isnan(arguments["d"]).all())
        count += 1
    assert count >= 33
    for given, named, text in [
        ((p.a, p.b), {}, "missing 1 required positional argument: 'd'"),
        ((p.a, p.b), {"c": None}, "missing 1 required positional argument: 'd'"),
        ((p.a, p.b, p.out()), {"bias": None}, "unexpected keyword argument 'bias'"),
        ((p.a, p.b, p.out()), {"a": p.a}, "multiple values for argument 'a'"),
        ((p.a, p.b, p.out(), *[None] * 8), {}, "takes from 3 to 10 positional arguments but 11"),
    ]:
        with pytest.raises(TypeError, match=text):
            deep_gemm.fp8_gemm_nt(*given, **named)


def test_direct_calls_are_what_stands_behind_them(device):
    """The builtin and its Python function have one signature, one text and one result."""
    if not _torch.DIRECT:
        pytest.skip("this torch cannot be told of builtins: every call takes the way through Python")
    assert {f.__name__ for f in _torch.DIRECT} == {"fp8_gemm_nt", "m_grouped_fp8_gemm_nt_contiguous", "m_grouped_fp8_gemm_nt_masked"}
    for builtin, python in _torch.DIRECT.items():
        assert inspect.isbuiltin(builtin) and builtin is getattr(deep_gemm, python.__name__)
        kinds = lambda f: [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]
        assert kinds(builtin) == kinds(python) and builtin.__doc__ == inspect.getdoc(python)
    p = Product(33, 70, 260, device)
    want, d = p.out(), p.out()
    _torch.DIRECT[deep_gemm.fp8_gemm_nt](*p.operands(), want)
    made_at_run_time = "".join(["rec", "ipe"])  # not interned
    deep_gemm.fp8_gemm_nt(*p.operands(), d, **{made_at_run_time: (1, 128, 128)})
    assert torch.equal(d, want) and p.wrong(d) == 0


def test_first_release_name(device):
    p = Product(50, 100, 200, device)
    want, out = p.out(), p.out()
    deep_gemm.fp8_gemm_nt(*p.operands(), want)
    assert deep_gemm.gemm_fp8_fp8_bf16_nt(*p.operands(), out) is out
    assert torch.equal(out, want)
    made = deep_gemm.gemm_fp8_fp8_bf16_nt(lhs=p.operands()[0], rhs=p.operands()[1], out=None)
    assert made.dtype == torch.bfloat16 and torch.equal(made, want)
    bare = deep_gemm.gemm_fp8_fp8_bf16_nt(p.a, p.b)
    unit = Product(50, 100, 200, device, False, False)
    unit.a, unit.b = p.a, p.b
    assert unit.wrong(bare) == 0
    with pytest.raises(TypeError, match="out can be left out for torch tensors alone"):
        deep_gemm.gemm_fp8_fp8_bf16_nt(p.a.cpu().contiguous().view(torch.uint8).numpy(), p.b)
    with pytest.raises(TypeError, match="^gemm_fp8_fp8_bf16_nt: lhs is of type NoneType"):
        deep_gemm.gemm_fp8_fp8_bf16_nt(None, p.b)
    with pytest.raises(ValueError, match=r"^gemm_fp8_fp8_bf16_nt: lhs is \[.*expected at least 2 dimensions"):
        deep_gemm.gemm_fp8_fp8_bf16_nt(p.a[0], p.b)


def test_the_same_bits_every_time(device):
    p = Product(130, 260, 1024, device)
    first = p.out()
    deep_gemm.fp8_gemm_nt(*p.operands(), first)
    for _ in range(5):
        d = p.out()
        deep_gemm.fp8_gemm_nt(*p.operands(), d)
        assert torch.equal(d, first)
