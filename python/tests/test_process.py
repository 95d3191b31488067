"""Settings, logging, kernels ahead of time, threads, and many processes that start with one cold cache."""

import json
import logging
import os
import subprocess
import sys
import threading

import pytest
import torch

import deep_gemm
from deep_gemm import _C, _warmup
from support import Product


def has_compiler():
    try:
        deep_gemm.warmup([(64, 64, 128)], progress=False)
        return True
    except RuntimeError as error:
        return str(error)


COMPILER = has_compiler()
needs_compiler = pytest.mark.skipif(COMPILER is not True, reason=f"NO COMPILER FOR KERNELS HERE: {COMPILER}")


def run(code, cache, *arguments, **environment):
    command = [sys.executable, "-c", code, *arguments] if code else [sys.executable, "-m", "deep_gemm", *arguments]
    env = {**os.environ, "DG_JIT_CACHE_DIR": str(cache), **environment}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_settings_are_kept_and_checked():
    for name, default, other, bad in [
        ("tc_util", 100, 50, 101),
        ("pdl", False, True, None),
        ("compile_mode", 0, 1, 2),
        ("num_sms", deep_gemm.get_num_sms(), 20, -1),
        ("num_sms", deep_gemm.get_num_sms(), 20, 1.5),
    ]:
        get, put = getattr(deep_gemm, "get_" + name), getattr(deep_gemm, "set_" + name)
        assert get() == default
        put(other)
        assert get() == other
        if bad is not None:
            with pytest.raises(ValueError, match=f"^set_{name}: "):
                put(bad)
        put(default)
        assert get() == default
    deep_gemm.set_num_sms(0)


@pytest.mark.parametrize("setting", [("num_sms", 7), ("pdl", True), ("tc_util", 30)])
def test_settings_change_no_result(device, setting):
    name, value = setting
    put, before = getattr(deep_gemm, "set_" + name), getattr(deep_gemm, "get_" + name)()
    p = Product(100, 300, 512, device)
    put(value)
    try:
        for _ in range(3):
            d = p.out()
            deep_gemm.fp8_gemm_nt(*p.operands(), d)
            assert p.wrong(d) == 0
    finally:
        put(0 if name == "num_sms" else before)


@needs_compiler
def test_compile_mode_launches_nothing(device, caplog):
    p = Product(60, 200, 384, device)
    d = p.out(torch.float32)
    deep_gemm.set_compile_mode(1)
    try:
        with caplog.at_level(logging.DEBUG, "deep_gemm"):
            deep_gemm.fp8_gemm_nt(*p.operands(), d, c=d)
        with pytest.raises(ValueError, match=r"d is \["):
            deep_gemm.fp8_gemm_nt(*p.operands(), d[:-1])
    finally:
        deep_gemm.set_compile_mode(0)
    assert bool(torch.isnan(d).all())
    if not torch.cuda.is_available():  # with a GPU, tests before this one have compiled and loaded the same kernel
        assert any("compiled by" in record.getMessage() for record in caplog.records)


@needs_compiler
def test_log_records(caplog):
    code = """
import logging, deep_gemm
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s %(message)s")
for _ in range(2): deep_gemm.warmup([(32, 128, 128)], progress=False)
"""
    cache = os.path.join(os.environ["DG_JIT_CACHE_DIR"], "log")
    process = run(code, cache)
    _, text = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert "deep_gemm INFO kernel fp8_gemm_nt_" in text and "compiled by" in text and " s, " in text
    assert f"read from {cache}" in text


def test_config_keys():
    keys = [deep_gemm.get_best_gemm_config_key("Normal", "fp8", m, 4096, 7168, 1) for m in (1, 2, 64, 4096)]
    assert all(isinstance(key, tuple) and hash(key) for key in keys)
    assert keys[0] == keys[1] and keys[0] != keys[3]
    assert keys[3] == deep_gemm.get_best_gemm_config_key(gemm_type="Normal", mma="fp8", m=4096, n=4096, k=7168, num_groups=1)
    for bad in [("Normal", "bf16", 1, 1, 1, 1), ("Batched", "fp8", 1, 1, 1, 1), ("Normal", "fp8", -7, 4096, 7168, 1), ("Normal", "fp8", 7, -1, 7168, 1)]:
        with pytest.raises(ValueError, match="^get_best_gemm_config_key: "):
            deep_gemm.get_best_gemm_config_key(*bad)


@needs_compiler
def test_warmup(tmp_path, capsys):
    shapes = [(256, 512), (64, 512, 512)]
    reports = deep_gemm.warmup(shapes, max_m=64)
    assert "kernel" in capsys.readouterr().err
    assert reports and all(report["spill_bytes"] == 0 and report["registers"] > 0 for report in reports)
    again = deep_gemm.warmup(shapes=shapes, model=None, max_m=64, device="h100", jobs=2, progress=False)
    assert [report["name"] for report in again] == [report["name"] for report in reports]
    assert all(report["cached"] for report in again) and capsys.readouterr().err == ""
    csv = tmp_path / "shapes.csv"
    csv.write_text("layout,m,n,k,groups,loads\ndense,64,512,512,1,\n")
    assert deep_gemm.warmup(csv, progress=False)[0]["name"] in [report["name"] for report in reports]


@needs_compiler
def test_warmup_of_a_model_takes_the_helpers_along(monkeypatch):
    """Its products' kernels are those of its shapes, which test_warmup compiles; here one stands for them."""
    one = _C.plan(_C.Layout.dense, 64, 512, 512, 1, "h100")
    monkeypatch.setattr(_warmup, "_keys", lambda *given: [one])
    monkeypatch.setattr(_warmup, "_expert_keys", lambda *given: [one])
    names = {report["name"] for report in deep_gemm.warmup(model="deepseek-v3", progress=False)}
    assert {"quantize_1x128_bf16_e4m3", "quantize_128x128_bf16_e4m3", "transpose_scales"} < names and len(names) == 4


def test_warmup_wrong_inputs():
    for arguments, text in [
        ({}, "neither shapes nor model"),
        ({"model": "gpt"}, "model is 'gpt', expected one of 'deepseek-v3'"),
        ({"shapes": [(1,)]}, r"shape \(1,\)"),
        ({"shapes": [(64, 64)], "max_m": 0}, "max_m is 0"),
        ({"shapes": [(64, 64)], "device": "a100"}, "device is a100"),
    ]:
        with pytest.raises(ValueError, match=text):
            deep_gemm.warmup(progress=False, **arguments)


@needs_compiler
def test_command_line(cold_cache):
    csv = cold_cache.parent / "shapes.csv"
    csv.write_text("m,n,k\n32,256,256\n")
    for cached in (False, True):
        process = run(None, "/nonexistent", "compile", "--shapes", str(csv), "--cache", str(cold_cache), "--jobs", "1")
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "1 kernels" in out and ("in the cache" in out) == cached
    assert len(list(cold_cache.glob("*.dgk"))) == 1
    process = run(None, cold_cache, "compile", "--model", "no such model")
    assert "model is 'no such model'" in process.communicate(timeout=300)[1] and process.returncode == 1


@needs_compiler
def test_many_processes_with_one_cold_cache(cold_cache):
    code = """
import json, sys, deep_gemm
print(json.dumps(deep_gemm.warmup([(64, 256, 512), (4096, 256, 512)], progress=False)))
"""
    processes = [run(code, cold_cache) for _ in range(6)]
    compiled = 0
    for process in processes:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        reports = json.loads(out)
        compiled += sum(not report["cached"] for report in reports)
    entries = list(cold_cache.glob("*.dgk"))
    assert compiled == len(entries) == len(reports) > 0, "each kernel is compiled by one process alone"


def test_threads(device):
    problems = [Product(m, 96, 256, device) for m in (1, 17, 64, 100)]
    wrong, failed = [], []

    def work(p):
        try:
            stream = torch.cuda.Stream() if device == "cuda" else None
            with torch.cuda.stream(stream):
                for i in range(20):
                    d = p.out(torch.bfloat16 if i % 2 else torch.float32)
                    if stream:
                        stream.synchronize()
                    deep_gemm.fp8_gemm_nt(*p.operands(), d)
                    if stream:
                        stream.synchronize()
                    wrong.append(p.wrong(d))
                    with pytest.raises(ValueError):
                        deep_gemm.fp8_gemm_nt(*p.operands(), d[:, :-1])
        except BaseException as error:
            failed.append(error)

    if device == "cuda":
        torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=(p,)) for p in problems * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(wrong) == 160 and not any(wrong)


@needs_compiler
def test_threads_compile_and_log_at_once(caplog):
    """A thread that logs needs the GIL while others wait for the kernel it makes."""
    p = Product(8, 8, 128)
    deep_gemm.set_compile_mode(1)
    try:
        with caplog.at_level(logging.DEBUG, "deep_gemm"):
            threads = [
                threading.Thread(target=lambda: deep_gemm.fp8_gemm_nt((p.a, None), p.b, p.out(torch.float32))) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
    finally:
        deep_gemm.set_compile_mode(0)
    assert not any(thread.is_alive() for thread in threads)
    assert sum("compiled by" in record.getMessage() for record in caplog.records) == 1


def test_every_name_is_documented_and_listed():
    for name in deep_gemm.__all__:
        value = getattr(deep_gemm, name)
        assert not callable(value) or value.__doc__, name
    assert deep_gemm.__version__.count(".") == 2
    assert getattr(deep_gemm, "no_such_call", None) is None
