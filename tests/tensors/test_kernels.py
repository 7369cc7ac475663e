"""Both CPU kernels are bit-equal to PEFT's arithmetic for every shape, and do not change other memory."""

from __future__ import annotations

from typing import Any

import pytest

from adaptry.compute.tensors.kernel import DEEP, KernelWeight, block_buffer_size, row_blocks
from adaptry.compute.tensors.llvm_kernel import LlvmKernel
from adaptry.compute.tensors.torch_kernel import TorchKernel

from .conftest import DTYPES, merged, term, torch

KERNELS = [LlvmKernel, TorchKernel]
RANKS = [1, 2, 3, 7, 8, 16, 33, 64, 192, 256]
SCALES = [2.0, 1.375, 0.1, -3.0, 2.0**-20, 1.0]


def made(seed: int, *shape: int, dtype: Any = torch.float32) -> Any:
    """Seeded values of the magnitude of weights."""
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02).to(dtype)


def by_peft(stored: Any, up: Any, down: Any, scale: float, transposed: bool) -> Any:
    """PEFT 0.21's `get_delta_weight` and unsafe merge on CPU, of factors held in fp32."""
    delta = up.float() @ down.float()
    return (stored.float() + (delta.T if transposed else delta) * scale).to(stored.dtype)


def assert_same_bits(found: Any, wanted: Any) -> None:
    assert found.dtype == wanted.dtype
    differing = found.view(torch.uint8) != wanted.view(torch.uint8)
    assert not differing.any(), f"{int(differing.sum())} bytes of {differing.numel()} differ"


def factors(
    stored: Any, rank: int, transposed: bool, dtype: Any = torch.float32, seed: int = 1
) -> tuple[Any, Any]:
    fan_out, fan_in = stored.shape[::-1] if transposed else stored.shape
    return made(seed, fan_out, rank, dtype=dtype), made(seed + 1, rank, fan_in, dtype=dtype)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", RANKS)
def test_a_kernel_gives_the_same_bits_as_peft(kernel: Any, dtype: str, transposed: bool, rank: int) -> None:
    scale = SCALES[rank % len(SCALES)]
    stored = made(rank, 333, 416, dtype=DTYPES[dtype])
    up, down = factors(stored, rank, transposed)

    if kernel.supports(KernelWeight(dtype, dtype, 333, 416, transposed), rank):
        found = merged(kernel, stored, [term(up, down, scale)], transposed=transposed)
        assert_same_bits(found, by_peft(stored, up, down, scale, transposed))
    else:
        assert kernel is LlvmKernel and rank > DEEP


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("held", DTYPES)
def test_factors_of_any_dtype_are_held_in_fp32(kernel: Any, held: str, scale: float) -> None:
    stored = made(3, 96, 160, dtype=torch.bfloat16)
    up, down = factors(stored, 16, False, DTYPES[held])

    found = merged(kernel, stored, [term(up, down, scale)])

    assert_same_bits(found, by_peft(stored, up, down, scale, False))


@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("columns", [1, 2, 7, 31, 32, 64, 333, 1024])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 8, 9, 31, 333])
def test_odd_sizes_give_the_same_bits_as_peft_in_every_kernel(
    rows: int, columns: int, transposed: bool
) -> None:
    stored = made(rows, rows, columns)
    weight = KernelWeight("F32", "F32", rows, columns, transposed)
    for rank, scale in ((1, 1.375), (8, 2.0), (16, 1.375), (64, 0.5)):
        up, down = factors(stored, rank, transposed)
        wanted = by_peft(stored, up, down, scale, transposed)
        for kernel in KERNELS:
            if kernel.supports(weight, rank):
                assert_same_bits(
                    merged(kernel, stored, [term(up, down, scale)], transposed=transposed), wanted
                )


@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_several_updates_are_the_same_bits_in_both_kernels(dtype: str, transposed: bool) -> None:
    stored = made(5, 200, 96, dtype=DTYPES[dtype])
    terms = [
        term(*factors(stored, rank, transposed, seed=10 * rank), scale)
        for rank, scale in ((8, 2.0), (3, -0.7), (16, 0.1))
    ]

    ours = merged(LlvmKernel, stored, terms, transposed=transposed)

    assert_same_bits(ours, merged(TorchKernel, stored, terms, transposed=transposed))


def test_several_updates_are_rounded_once() -> None:
    stored = made(5, 64, 64, dtype=torch.bfloat16)
    pairs = [factors(stored, 8, False, seed=seed) for seed in (20, 30, 40)]

    found = merged(LlvmKernel, stored, [term(up, down, 1.5) for up, down in pairs])

    exact = stored.double() + sum(1.5 * (up.double() @ down.double()) for up, down in pairs)
    assert (found == exact.to(torch.bfloat16)).float().mean() > 0.999


@pytest.mark.parametrize("into", DTYPES)
@pytest.mark.parametrize("stored_as", DTYPES)
@pytest.mark.parametrize("rank", [0, 8], ids=["cast only", "merged"])
def test_a_cast_rounds_the_sum_once(rank: int, stored_as: str, into: str) -> None:
    stored = made(6, 65, 47, dtype=DTYPES[stored_as])
    up, down = factors(stored, max(1, rank), False)
    terms = [term(up, down, 1.375)] if rank else []

    found = merged(TorchKernel, stored, terms, into=DTYPES[into])

    exact = stored.float() + (up @ down) * 1.375 if rank else stored.float()
    assert_same_bits(found, exact.to(DTYPES[into]))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_zeros_and_the_smallest_numbers_are_kept(kernel: Any, dtype: str) -> None:
    kind = DTYPES[dtype]
    smallest = torch.finfo(kind).smallest_normal
    odd = [torch.inf, -torch.inf, 0.0, smallest, smallest / 2, -smallest / 4, torch.finfo(kind).max]
    stored = torch.tensor(odd + [1.0] * 25, dtype=torch.float64).to(kind).repeat(16, 1)
    up, down = torch.zeros(16, 4), torch.zeros(4, 32)

    assert_same_bits(merged(kernel, stored, [term(up, down, 2.0)]), stored)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_nan_and_affects_no_other_element(kernel: Any, dtype: str) -> None:
    stored = made(8, 40, 64, dtype=DTYPES[dtype])
    up, down = factors(stored, 8, False)
    wanted = by_peft(stored, up, down, 2.0, False)
    stored[3, 5] = torch.nan

    found = merged(kernel, stored, [term(up, down, 2.0)])

    assert found.isnan().sum() == 1
    assert found[3, 5].isnan()
    found[3, 5] = wanted[3, 5]
    assert_same_bits(found, wanted)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_sum_beyond_half_precision_becomes_infinite_as_in_torch(kernel: Any) -> None:
    stored = torch.full((16, 32), 65504.0, dtype=torch.float16)
    up, down = torch.full((16, 1), 100.0), torch.full((1, 32), 100.0)

    assert merged(kernel, stored, [term(up, down, 1.0)]).isinf().all()


def test_subnormal_results_are_rounded_not_flushed() -> None:
    stored = torch.full((16, 32), 2.0**-133, dtype=torch.bfloat16)
    up, down = torch.full((16, 1), 2.0**-70), torch.full((1, 32), 2.0**-63)

    found = [merged(kernel, stored, [term(up, down, 1.0)]) for kernel in KERNELS]

    assert all((result == 2.0**-132).all() for result in found)


@pytest.mark.parametrize(
    ("weight", "rank"),
    [
        (KernelWeight("BF16", "BF16", 64, 33), 8),
        (KernelWeight("BF16", "F32", 64, 64), 8),
        (KernelWeight("BF16", "BF16", 15, 64), 8),
        (KernelWeight("BF16", "BF16", 64, 0), 8),
        (KernelWeight("BF16", "BF16", 64, 64), 193),
        (KernelWeight("BF16", "BF16", 64, 64), 0),
    ],
    ids=["odd columns", "a cast", "few rows", "no columns", "a high rank", "no update"],
)
def test_inputs_that_the_compiled_loop_rounds_differently_use_torch(weight: KernelWeight, rank: int) -> None:
    assert not LlvmKernel.supports(weight, rank)
    assert TorchKernel.supports(weight, rank)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_is_used_for_one_weight_after_another(kernel: Any) -> None:
    worker = kernel(block_buffer_size(64, 4 * 64))
    for seed, columns, rank in ((1, 64, 8), (2, 32, 4), (3, 64, 1)):
        stored = made(seed, 64, columns)
        up, down = factors(stored, rank, False)
        worker.begin(KernelWeight("F32", "F32", 64, columns), [term(up, down, 1.375)])
        worker.source[: 4 * stored.numel()] = stored.numpy().tobytes()
        result = torch.frombuffer(bytearray(worker.merge_rows(0, 64)), dtype=torch.float32).view(64, columns)
        assert_same_bits(result, by_peft(stored, up, down, 1.375, False))


@pytest.mark.parametrize("row_bytes", [1, 64, 4096, 1 << 20, 1 << 24])
@pytest.mark.parametrize("rows", [0, 1, 15, 33, 64, 65, 1000, 4097])
def test_blocks_cover_all_rows_in_order_and_none_is_thin(rows: int, row_bytes: int) -> None:
    blocks = list(row_blocks(rows, row_bytes))

    assert sum(count for _, count in blocks) == rows
    assert [first for first, _ in blocks] == [
        sum(count for _, count in blocks[:n]) for n in range(len(blocks))
    ]
    assert all(count >= 16 for _, count in blocks) or len(blocks) == 1
    assert block_buffer_size(rows, row_bytes) == max(count for _, count in blocks) * row_bytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "largest", "-largest"])
@pytest.mark.parametrize("place", [0, 1, 31, 32, 4097, 6143])
def test_the_compiled_kernel_sees_each_value_that_is_not_finite(dtype: str, value: str, place: int) -> None:
    """The update is zero, so the result is the weight, which has a single value at a limit of its dtype."""
    stored = made(place, 48, 128, dtype=DTYPES[dtype])
    limit = torch.finfo(DTYPES[dtype]).max
    values = {"largest": limit, "-largest": -limit}
    stored.view(-1)[place] = values[value] if value in values else float(value)
    kernel = LlvmKernel(stored.numel() * stored.element_size())
    kernel.source[:] = stored.view(torch.uint8).numpy().tobytes()
    kernel.begin(KernelWeight(dtype, dtype, 48, 128), [term(torch.zeros(48, 8), torch.zeros(8, 128), 1.0)])

    result = torch.frombuffer(bytearray(kernel.merge_rows(0, 48)), dtype=DTYPES[dtype])

    tally = kernel.tally()
    assert tally is not None
    assert tally.is_finite is bool(result.isfinite().all())
    assert tally.is_finite is (value in values)
