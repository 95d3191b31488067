"""The installed wheel by itself: no torch, no NumPy, nothing but the standard library's buffers."""

import struct
import sys
from array import array

import deep_gemm


def matrix(data, code, rows, cols):
    return memoryview(data).cast("B").cast(code, (rows, cols))


def e4m3(byte):
    sign, exponent, mantissa = byte >> 7, byte >> 3 & 15, byte & 7
    value = mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
    return -value if sign else value


m, n, k = 3, 5, 130
# Every finite number in turn, never NaN (0x7f and 0xff).
a = bytes(i * 37 % 127 | (i % 2) << 7 for i in range(m * k))
b = bytes(i * 53 % 127 | (i % 3 == 0) << 7 for i in range(n * k))
scale_a, scale_b = [1.0, 0.5, 2.0, 0.25, 4.0, 1.0], [0.5, 2.0]
d = array("f", [float("nan")] * (m * n))
operand_a = matrix(a, "B", m, k), matrix(array("f", scale_a), "f", m, 2)
operand_b = matrix(b, "B", n, k), matrix(array("f", scale_b), "f", 1, 2)
out = matrix(d, "f", m, n)
deep_gemm.fp8_gemm_nt(operand_a, operand_b, out, dtype="e4m3")
for i in range(m):
    for j in range(n):
        terms = [scale_a[2 * i + p // 128] * scale_b[p // 128] * e4m3(a[i * k + p]) * e4m3(b[j * k + p]) for p in range(k)]
        assert abs(d[i * n + j] - sum(terms)) <= sum(map(abs, terms)) * 2.0**-20, (i, j, d[i * n + j], sum(terms))

try:
    deep_gemm.fp8_gemm_nt(operand_a, operand_b, out)
except ValueError as error:
    assert "a is uint8, expected e4m3 or e5m2" in str(error) and "dtype=" in str(error)
else:
    raise AssertionError("uint8 without dtype")
try:
    deep_gemm.fp8_gemm_nt(operand_a, operand_a, out, dtype="e4m3")
except ValueError as error:
    assert str(error).startswith("fp8_gemm_nt: "), error
else:
    raise AssertionError("scales of the wrong shape")
assert deep_gemm.get_best_gemm_config_key("Normal", "fp8", 64, 4096, 7168, 1)
assert not {"torch", "numpy"} & set(sys.modules)
print(f"Python {sys.version.split()[0]}, {8 * struct.calcsize('P')} bits: deep_gemm {deep_gemm.__version__} works")
