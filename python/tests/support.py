"""Operands, and the bound that every element of a product keeps."""

import torch

FP8 = torch.float8_e4m3fn
E5M2 = torch.float8_e5m2


def ceil_div(x, y):
    return (x + y - 1) // y


def padded(rows, cols, dtype, device, pitch_multiple=16):
    """[rows, cols] whose rows lie a multiple of 16 elements apart; NaN in between where the dtype has it."""
    pitch = ceil_div(max(cols, 1), pitch_multiple) * pitch_multiple
    fp8 = dtype in (FP8, E5M2)
    memory = torch.full((max(rows, 1), pitch), 0x7F if fp8 else float("nan"), dtype=torch.uint8 if fp8 else dtype)
    memory = memory.view(dtype)
    return memory.to(device)[:rows, :cols]


def random_fp8(rows, cols, device, dtype=FP8):
    out = padded(rows, cols, dtype, device)
    out.view(torch.uint8).copy_(torch.randn(rows, cols).to(dtype).view(torch.uint8))
    return out


def random_scales(rows, cols, device):
    return (torch.rand(rows, cols) * 2**-6 + 2**-8).to(device)


class Product:
    """Random operands of d = a @ b.T (+ c), and the check of a result. ``rows_b`` rows of b share a scale."""

    def __init__(self, m, n, k, device="cpu", scaled_a=True, scaled_b=True, rows_b=128, types=(FP8, FP8)):
        self.m, self.n, self.k, self.device, self.rows_b = m, n, k, device, rows_b
        self.a, self.b = random_fp8(m, k, device, types[0]), random_fp8(n, k, device, types[1])
        self.scale_a = random_scales(m, ceil_div(k, 128), device) if scaled_a else None
        self.scale_b = random_scales(ceil_div(n, rows_b), ceil_div(k, 128), device) if scaled_b else None

    def out(self, dtype=torch.bfloat16):
        return torch.full((self.m, self.n), float("nan"), dtype=dtype, device=self.device)

    def operands(self):
        return (self.a, self.scale_a), (self.b, self.scale_b)

    def wrong(self, d, c=None):
        """How many elements of d are further from the exact product than the bound allows."""
        a, b = self.a.cpu().double(), self.b.cpu().double()
        blocks = ceil_div(self.k, 128)
        sa = torch.ones(self.m, blocks) if self.scale_a is None else self.scale_a.cpu()
        sb = torch.ones(ceil_div(self.n, self.rows_b), blocks) if self.scale_b is None else self.scale_b.cpu()
        sb = sb.repeat_interleave(self.rows_b, 0)[: self.n]
        exact = torch.zeros(self.m, self.n, dtype=torch.float64)
        size = torch.zeros_like(exact)
        for i in range(blocks):
            at = slice(128 * i, 128 * (i + 1))
            scale = sa[:, i].double()[:, None] * sb[:, i].double()[None]
            exact += scale * (a[:, at] @ b[:, at].T)
            size += scale.abs() * (a[:, at].abs() @ b[:, at].abs().T)
        if c is not None:
            exact += c.cpu().double()
            size += c.cpu().double().abs() * 2**-10
        bits = {torch.bfloat16: 8, torch.float32: 24}[d.dtype]
        half_unit = torch.exp2(torch.frexp(exact).exponent.double() - 1 - bits)
        bound = size * (2**-11 + (blocks + 2) * 2**-24) + half_unit * 1.001
        # Written so that NaN counts.
        return int((~((d.cpu().double() - exact).abs() <= bound)).sum())
