"""The same tests on every device: CPU tensors always, CUDA ones where there is a Hopper GPU."""

import os
import tempfile

# Before the package reads it: tests neither use nor fill the user's cache.
_cache = tempfile.TemporaryDirectory(prefix="deep_gemm_test_")
os.environ["DG_JIT_CACHE_DIR"] = _cache.name

import pytest  # noqa: E402
import torch  # noqa: E402

HAS_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
needs_hopper = pytest.mark.skipif(not HAS_HOPPER, reason="NO HOPPER GPU HERE: this test ran on the CPU only")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_hopper)])
def device(request):
    return request.param


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def cold_cache(tmp_path):
    return tmp_path / "cache"


def pytest_terminal_summary(terminalreporter):
    if not HAS_HOPPER:
        terminalreporter.write_line("No Hopper GPU: every CUDA variant was skipped.", yellow=True)
