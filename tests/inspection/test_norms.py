"""Counts and norms of tensors: computed by the standard library and by numpy, and equal to torch's."""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptry.adapters.inspection import numpy_norms, plain_norms
from adaptry.adapters.inspection.dtypes import WIDTHS
from adaptry.adapters.inspection.process import numpy_folder

TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "C64": torch.float32, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip
WAYS = {"plain": plain_norms.measure, "numpy": numpy_norms.measure}


def by_torch(dtype: str, data: bytes) -> tuple[int, int, float]:
    values = torch.frombuffer(bytearray(data), dtype=TYPES[dtype]).to(torch.float64)
    finite = values[torch.isfinite(values)]
    largest = float(finite.abs().max()) if len(finite) else 0.0
    norm = 0.0
    if largest:
        norm = float((finite / largest).pow(2).sum().sqrt()) * largest
    return int(values.isnan().sum()), int(values.isinf().sum()), norm


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", WIDTHS)
@settings(deadline=None)
@given(data=st.binary(min_size=8, max_size=400))
def test_any_bits_are_counted_and_measured_as_torch_does(way: str, dtype: str, data: bytes) -> None:
    whole = data[: len(data) // 8 * 8]
    nan, infinite, norm = by_torch(dtype, whole)
    found = WAYS[way](dtype, whole)
    assert found[:2] == (nan, infinite)
    assert found[2] == pytest.approx(norm, rel=1e-12, abs=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_every_8_bit_code_decodes_as_in_torch(way: str, dtype: str) -> None:
    for code in range(256):
        assert WAYS[way](dtype, bytes([code])) == by_torch(dtype, bytes([code]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [3.4e38, 1e-45, 1.7e308, 5e-324, 1e-200])
def test_the_largest_and_smallest_numbers_neither_overflow_nor_vanish(way: str, value: float) -> None:
    dtype = "F32" if 1e-46 < value < 1e39 else "F64"
    values = torch.full((16,), value, dtype=TYPES[dtype])
    norm = 4 * float(values[0].to(torch.float64))
    found = WAYS[way](dtype, values.numpy().tobytes())
    assert found == (0, 0, pytest.approx(norm, rel=1e-12))


@pytest.mark.parametrize("way", WAYS)
def test_a_norm_beyond_float64_is_infinite_and_nothing_is_counted(way: str) -> None:
    values = torch.full((16,), 1.7e308, dtype=torch.float64)
    assert WAYS[way]("F64", values.numpy().tobytes()) == (0, 0, math.inf)


@pytest.mark.parametrize("dtype", WIDTHS)
def test_numpy_and_plain_python_agree_on_a_full_block(dtype: str) -> None:
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(1 << 16, generator=generator, dtype=torch.float64).mul(0.02).to(TYPES[dtype])
    data = values.view(torch.uint8).numpy().tobytes()
    plain, numpy = plain_norms.measure(dtype, data), numpy_norms.measure(dtype, data)
    assert plain[:2] == numpy[:2]
    assert plain[2] == pytest.approx(numpy[2], rel=1e-12)
    assert plain[2] == pytest.approx(by_torch(dtype, data)[2], rel=1e-10)


COMPILED = """
import importlib, json, sys
sys.path[:0] = [sys.argv[1]]
sys.path.append(sys.argv[2])
from adaptry.adapters.inspection.numpy_core import use_compiled_numpy
use_compiled_numpy(sys.argv[2])
from adaptry.adapters.inspection.numpy_norms import measure
blocks = [(dtype, bytes.fromhex(data)) for dtype, data in json.load(sys.stdin)]
found = [measure(dtype, data) for dtype, data in blocks]
print(json.dumps([found, sorted(name for name in sys.modules if name.startswith("numpy"))]))
"""


def test_the_compiled_functions_of_numpy_alone_give_the_same_results() -> None:
    extremes = [math.nan, math.inf, -math.inf, 1.7e308, 5e-324, 1e-200, 0.0, 1.0]
    drawn = random.Random(3)
    blocks = [("F64", struct.pack("<8d", *extremes)), ("F64", struct.pack("<8d", *[1.7e308] * 8))]
    blocks += [("F64", struct.pack("<2d", 5e-324, 0.0)), ("F32", b"\0" * 64), ("BF16", b"\x80\x3f" * 7000)]
    blocks += [(dtype, drawn.randbytes(size)) for dtype in WIDTHS for size in (8, 400, 4096)]
    source = str(Path(numpy_norms.__file__).parents[3])
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", COMPILED, source, numpy_folder()],
        input=json.dumps([(dtype, data.hex()) for dtype, data in blocks]),
        capture_output=True,
        text=True,
        check=True,
    )
    found, modules = json.loads(run.stdout)
    assert list(map(tuple, found)) == [numpy_norms.measure(dtype, data) for dtype, data in blocks]
    assert not {"numpy._core.numeric", "numpy.lib", "numpy.linalg"} & set(modules)
