"""A mixture-of-experts layer in FP8, its tokens laid out in three ways that give the same result.

Each token goes to two of eight experts, each a gated network of two products. Contiguous layout: an expert's tokens padded to 128
rows, as training and prefill have them. Offsets: the same without padding. Masked: a slab for each expert whose fill the host does
not know, as decoding in a CUDA graph needs it.

    python examples/python/moe.py [--device cuda]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch
from torch.nn import functional

import deep_gemm

TOKENS, HIDDEN, INNER, EXPERTS, TOP = 96, 512, 256, 8, 2
Fp8 = tuple[torch.Tensor, torch.Tensor]


def quantise_experts(weight: torch.Tensor) -> Fp8:
    """[experts, n, k] with a scale for 128 × 128 of each expert."""
    parts = [deep_gemm.per_block_cast_to_fp8(w, use_ue8m0=False) for w in weight]
    return torch.stack([data.view(torch.uint8) for data, _ in parts]).view(parts[0][0].dtype), torch.stack([s for _, s in parts])


def quantise_tokens(x: torch.Tensor) -> Fp8:
    """[…, k] with a scale for 128 of each token."""
    data, scale = deep_gemm.per_token_cast_to_fp8(x.reshape(-1, x.shape[-1]), use_ue8m0=False)
    return data.view(x.shape), scale.view(*x.shape[:-1], -1)


def experts(x: torch.Tensor, up: Fp8, down: Fp8, product: Callable[[Fp8, Fp8, torch.Tensor], None]) -> torch.Tensor:
    """The gated network of each row's expert; ``product`` knows whose row it is."""
    hidden = x.new_zeros(*x.shape[:-1], 2 * INNER)
    product(quantise_tokens(x), up, hidden)
    gate, value = hidden.chunk(2, -1)
    out = x.new_zeros(*x.shape[:-1], HIDDEN)
    product(quantise_tokens(functional.silu(gate) * value), down, out)
    return out


def run(device: str) -> dict[str, torch.Tensor]:
    """The layer's output [tokens, hidden] by each layout, and by dense products one expert after the other."""
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape).to(device, torch.bfloat16)
    x, router = make(TOKENS, HIDDEN), make(EXPERTS, HIDDEN) / HIDDEN**0.5
    up, down = quantise_experts(make(EXPERTS, 2 * INNER, HIDDEN) / HIDDEN**0.5), quantise_experts(make(EXPERTS, HIDDEN, INNER) / INNER**0.5)
    weights, chosen = (x @ router.T).float().softmax(-1).topk(TOP)

    # Pairs of token and expert, by expert: `rank` counts within one.
    expert, order = chosen.flatten().sort(stable=True)
    token = order // TOP
    counts = torch.bincount(expert, minlength=EXPERTS)
    rank = torch.arange(len(expert), device=device) - (counts.cumsum(0) - counts)[expert]

    def combine(rows: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(TOKENS, HIDDEN, device=device)
        return out.index_add_(0, token, rows.float() * weights.flatten()[order, None])

    def contiguous() -> torch.Tensor:
        align = deep_gemm.get_mk_alignment_for_contiguous_layout()
        padded = (counts + align - 1) // align * align
        at = (padded.cumsum(0) - padded)[expert] + rank
        indices = torch.full((int(padded.sum()),), -1, dtype=torch.int32, device=device)
        indices[at] = expert.int()
        rows = x.new_zeros(len(indices), HIDDEN)
        rows[at] = x[token]
        call = lambda a, b, d: deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, b, d, indices)
        return combine(experts(rows, up, down, call)[at])

    def offsets() -> torch.Tensor:
        ends = counts.cumsum(0).int()
        before = deep_gemm.get_mk_alignment_for_contiguous_layout()
        deep_gemm.set_mk_alignment_for_contiguous_layout(1)
        call = lambda a, b, d: deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, b, d, ends, use_psum_layout=True)
        try:
            return combine(experts(x[token], up, down, call))
        finally:
            deep_gemm.set_mk_alignment_for_contiguous_layout(before)

    def masked() -> torch.Tensor:
        slabs = x.new_zeros(EXPERTS, TOKENS, HIDDEN)
        slabs[expert, rank] = x[token]
        expected = TOKENS * TOP // EXPERTS
        call = lambda a, b, d: deep_gemm.m_grouped_fp8_gemm_nt_masked(a, b, d, counts.int(), expected)
        return combine(experts(slabs, up, down, call)[expert, rank])

    def one_by_one() -> torch.Tensor:
        rows = x.new_zeros(len(token), HIDDEN)
        for e in range(EXPERTS):
            of = [tuple(t[e] for t in weight) for weight in (up, down)]
            rows[expert == e] = experts(x[token[expert == e]], *of, deep_gemm.fp8_gemm_nt)
        return combine(rows)

    return {f.__name__: f() for f in (one_by_one, contiguous, offsets, masked)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    results = run(parser.parse_args().device)
    want = results.pop("one_by_one")
    differences = {name: deep_gemm.calc_diff(out, want) for name, out in results.items()}
    for name, difference in differences.items():
        print(f"{name:11} differs from expert after expert by {difference:.1e}")
    if max(differences.values()) > 1e-6:
        sys.exit("moe: the layouts disagree")


if __name__ == "__main__":
    main()
