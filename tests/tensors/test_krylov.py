"""The leading singular triplets of dense updates: as accurate as a full decomposition's, at a fraction of the
cost.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from adaptry.compute.tensors import krylov
from adaptry.compute.tensors.lowrank import decompose_dense


def noisy(height: int, width: int, noise: float, seed: int = 0) -> Tensor:
    """A few strong directions in noise, like a pruned update."""
    generator = torch.Generator().manual_seed(seed)
    strong = torch.randn(height, 12, generator=generator) @ torch.randn(12, width, generator=generator)
    return strong + noise * torch.randn(height, width, generator=generator)


@pytest.mark.parametrize("noise", [0.0, 0.1, 3.0, 100.0])
@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
@pytest.mark.parametrize("rank", [1, 8, 12])
def test_no_approximation_of_the_rank_keeps_more_than_a_millionth_more(
    shape: tuple[int, int], noise: float, rank: int
) -> None:
    delta = noisy(*shape, noise)
    found = decompose_dense(delta, rank)
    values = torch.linalg.svdvals(delta.double())
    best = float(values[:rank].square().sum())
    update = found.truncate(rank)
    assert best - float(found.values.square().sum()) <= 1e-6 * best
    left_over = float((delta.double() - update.double().dense()).square().sum())
    assert left_over - float(values[rank:].square().sum()) <= 1e-6 * best
    assert found.lost_energy(rank) == pytest.approx(left_over, abs=1e-5 * best)
    assert found.energy == pytest.approx(float(delta.double().square().sum()), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_large_update_is_computed_by_the_iteration(dtype: torch.dtype) -> None:
    delta = noisy(300, 200, 1.0).to(dtype)
    found = krylov.leading_triplets(delta, 8)
    assert found is not None
    (left, values, right), energy = found
    assert energy == pytest.approx(krylov.energy_of(delta), rel=1e-12)
    eye = torch.eye(8).double()
    torch.testing.assert_close(left.mT @ left, eye)
    torch.testing.assert_close(right @ right.mT, eye)
    assert bool((values[:-1] >= values[1:]).all())


def test_values_that_float32_does_not_tell_apart_are_computed_in_float64() -> None:
    """The singular values differ by 1e-9, without any gap."""
    left, right = (torch.linalg.qr(torch.randn(300, 300, dtype=torch.float64))[0] for _ in range(2))
    values = 1 - 1e-9 * torch.arange(300, dtype=torch.float64)
    delta = ((left * values) @ right).float()
    found = decompose_dense(delta, 4)
    best = float(torch.linalg.svdvals(delta.double())[:4].square().sum())
    assert best - float(found.values.square().sum()) <= 1e-6 * best


def test_a_large_rank_uses_the_full_decomposition() -> None:
    delta = noisy(60, 60, 1.0)
    assert krylov.leading_triplets(delta, 8) is None
    found = decompose_dense(delta, 8)
    torch.testing.assert_close(found.values, torch.linalg.svdvals(delta.double())[:8])


def test_each_member_of_a_batch_is_decomposed() -> None:
    batch = torch.stack([noisy(300, 200, 1.0, seed) for seed in range(2)])
    found = decompose_dense(batch, 8)
    assert found.left.shape == (2, 300, 8) and found.right.shape == (2, 8, 200)
    for member in range(2):
        alone = decompose_dense(batch[member], 8)
        assert torch.equal(found.values[member], alone.values)


def test_the_same_update_gives_the_same_bits() -> None:
    delta = noisy(300, 200, 3.0)
    assert torch.equal(decompose_dense(delta, 4).left, decompose_dense(delta.clone(), 4).left)


def test_an_empty_update_has_no_energy() -> None:
    found = decompose_dense(torch.zeros(300, 200), 4)
    assert found.energy == 0 and found.lost_energy(4) == 0
    assert not found.truncate(4).dense().any()


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-24, 1e-20, 1e-13, 1e13, 1e22, 1e36])
def test_tiny_and_huge_updates_lose_no_more_than_others(scale: float) -> None:
    """Squares of their values do not fit into float32."""
    delta = (noisy(300, 200, 0.5).double() * (scale / 100)).float()
    found = decompose_dense(delta, 8)
    best = float(torch.linalg.svdvals(delta.double())[:8].square().sum())
    assert best - float(found.values.square().sum()) <= 1e-6 * best


@pytest.mark.parametrize("largest", [1.1, 2.0, 10.0])
@pytest.mark.parametrize("tail", [0.0, 1e-3, 0.1])
def test_a_guess_without_the_largest_direction_does_not_hide_it(largest: float, tail: float) -> None:
    """Updates that cancel in the sum, but not in the elected result: the guess has exact singular vectors of
    the result, except that of the largest value.
    """
    generator = torch.Generator().manual_seed(0)
    sides = (torch.randn(1024, 216, dtype=torch.float64, generator=generator) for _ in range(2))
    left, right = (torch.linalg.qr(side)[0] for side in sides)
    values = torch.tensor([largest, *[1.0] * 15, *[tail] * 200], dtype=torch.float64)
    delta = ((left * values) @ right.mT).float()
    found = decompose_dense(delta, 15, right[:, 1:16].mT.contiguous())
    best = float(values[:15].square().sum())
    assert best - float(found.values.square().sum()) <= 1e-6 * best


_SEVERAL_TIMES = """
import os
import torch
from adaptry.compute.tensors import krylov

torch.set_num_threads(2)
generator = torch.Generator().manual_seed(0)
delta = torch.randn(3001, 1031, generator=generator) * torch.linspace(3, 0, 1031) ** 6
found = []
for processors in (1, 2, 4, 4, 4, 4):
    os.cpu_count = lambda count=processors: count
    found.append(krylov.leading_triplets(delta, 8)[0])
print(all(torch.equal(one, other) for each in found for one, other in zip(each, found[0])))
"""


def test_threads_do_not_change_bits() -> None:
    """The computation runs in a process whose torch uses several threads, unlike that of the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", _SEVERAL_TIMES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
