"""Algebra on factors, compared with the same algebra on dense updates in float64."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from adaptry.compute.tensors.lowrank import (  # noqa: E402
    Factors,
    concatenate,
    decompose,
    gram_matrix,
    inner_product,
    numerical_rank,
    orthonormal_bases,
    pad_rank,
    rank_for,
    row_inner_products,
    transpose,
)

SHAPES = {
    "tall": (40, 24, 4),
    "wide": (24, 40, 4),
    "rank 1": (12, 9, 1),
    "more rank than rows": (6, 40, 10),
    "more rank than both sides": (6, 5, 10),
}
EXPERTS = [(), (3,)]


def drawn(
    out: int, width: int, rank: int, seed: int, batch: tuple[int, ...] = (), scale: float = 0.75
) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    up = torch.randn(*batch, out, rank, generator=generator)
    return Factors(up, torch.randn(*batch, rank, width, generator=generator), scale)


def dense(update: Factors) -> torch.Tensor:
    return update.double().dense()


@pytest.mark.parametrize("batch", EXPERTS, ids=["matrix", "experts"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_decomposition_equals_that_of_the_dense_update(
    shape: tuple[int, int, int], batch: tuple[int, ...]
) -> None:
    update = drawn(*shape, seed=0, batch=batch)
    found = decompose(update)
    expected = torch.linalg.svdvals(dense(update))
    count = found.values.shape[-1]
    torch.testing.assert_close(found.values, expected[..., :count], rtol=1e-10, atol=1e-10)
    assert float(expected[..., count:].abs().sum()) < 1e-10
    rebuilt = found.left * found.values.unsqueeze(-2) @ found.right
    torch.testing.assert_close(rebuilt, dense(update), rtol=0, atol=1e-10)
    unit = torch.eye(count, dtype=torch.float64).expand(*batch, count, count)
    torch.testing.assert_close(found.left.mT @ found.left, unit, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.right @ found.right.mT, unit, rtol=0, atol=1e-9)


@pytest.mark.parametrize("batch", EXPERTS, ids=["matrix", "experts"])
def test_orthonormal_bases_reproduce_the_update(batch: tuple[int, ...]) -> None:
    update = drawn(40, 24, 4, seed=1, batch=batch)
    left, core, right = orthonormal_bases(update)
    torch.testing.assert_close(left @ core @ right, dense(update), rtol=0, atol=1e-12)
    unit = torch.eye(4, dtype=torch.float64).expand(*batch, 4, 4)
    torch.testing.assert_close(left.mT @ left, unit, rtol=0, atol=1e-12)
    torch.testing.assert_close(right @ right.mT, unit, rtol=0, atol=1e-12)


NEARLY_DEPENDENT = [1.0, 1e-2, 1e-4, 1e-6, 0.0]


@pytest.mark.parametrize("apart", NEARLY_DEPENDENT)
def test_the_lost_energy_is_exact_even_for_nearly_equal_columns(apart: float) -> None:
    one, noise = drawn(300, 200, 8, seed=2), drawn(300, 200, 8, seed=3)
    other = Factors(one.up + apart * noise.up, -one.down + apart * noise.down, 1.3)
    both = concatenate([one, other])
    expected = torch.linalg.svdvals(dense(both)).square()
    found = decompose(both, 4)
    assert found.energy == pytest.approx(float(expected.sum()), rel=1e-10)
    assert found.lost_energy(4) == pytest.approx(float(expected[4:].sum()), rel=1e-9)
    kept = found.truncate(4)
    lost = float((dense(both) - dense(kept)).square().sum())
    assert lost == pytest.approx(float(expected[4:].sum()), rel=1e-6)


@pytest.mark.parametrize("size", [1e-12, 1e-3, 1e6])
def test_columns_of_very_different_lengths_are_handled_accurately(size: float) -> None:
    update = drawn(60, 50, 6, seed=4)
    lengths = torch.logspace(0, 1, 6) ** torch.log10(torch.tensor(size))
    split = Factors(update.up * lengths, update.down / lengths.unsqueeze(-1), update.scale)
    torch.testing.assert_close(
        decompose(split).values, torch.linalg.svdvals(dense(split))[:6], rtol=1e-10, atol=0
    )


def test_an_untrained_update_decomposes_into_nothing() -> None:
    update = Factors(torch.zeros(10, 3), torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    found = decompose(update)
    assert found.energy == 0.0
    assert not found.truncate(2).dense().any()
    assert numerical_rank(found.values) == 1


def test_with_a_rank_all_singular_values_but_only_that_many_vectors_are_computed() -> None:
    update = drawn(40, 24, 6, seed=5)
    whole, some = decompose(update), decompose(update, 2)
    torch.testing.assert_close(some.values, whole.values)
    assert (some.left.shape, some.right.shape) == ((40, 2), (2, 24))
    torch.testing.assert_close(some.truncate(2).dense(), whole.truncate(2).dense())


def test_factors_in_float32_are_processed_in_float64() -> None:
    update = drawn(3000, 20, 3, seed=6)
    torch.testing.assert_close(
        decompose(update).values, torch.linalg.svdvals(dense(update))[:3], rtol=1e-12, atol=0
    )


def test_updates_side_by_side_are_their_sum() -> None:
    updates = [drawn(20, 30, rank, seed=rank, scale=2.0**-rank) for rank in (1, 2, 5)]
    total = concatenate(updates)
    assert total.rank == 8
    torch.testing.assert_close(dense(total), sum(dense(each) for each in updates), rtol=0, atol=1e-12)


def test_padding_adds_rank_and_nothing_else() -> None:
    update = drawn(20, 30, 2, seed=7)
    assert pad_rank(update, 5).rank == 5
    assert torch.equal(pad_rank(update, 5).dense(), update.dense())
    assert pad_rank(update, 1) is update


@pytest.mark.parametrize("batch", EXPERTS, ids=["matrix", "experts"])
def test_inner_products_equal_those_of_the_dense_updates(batch: tuple[int, ...]) -> None:
    updates = [drawn(20, 30, rank, seed=rank, batch=batch, scale=rank / 3) for rank in (1, 2, 5)]
    thick = torch.stack([dense(each).flatten() for each in updates])
    torch.testing.assert_close(gram_matrix(updates), thick @ thick.T, rtol=1e-12, atol=1e-12)
    assert inner_product(updates[0], updates[2]) == pytest.approx(float(thick[0] @ thick[2]), rel=1e-12)


@pytest.mark.parametrize("batch", EXPERTS, ids=["matrix", "experts"])
def test_rows_and_columns_have_inner_products(batch: tuple[int, ...]) -> None:
    one, other = drawn(20, 30, 2, seed=8, batch=batch), drawn(20, 30, 3, seed=9, batch=batch)
    product = dense(one) * dense(other)
    torch.testing.assert_close(row_inner_products(one, other), product.sum(-1), rtol=1e-12, atol=1e-12)
    columns = row_inner_products(transpose(one), transpose(other))
    torch.testing.assert_close(columns, product.sum(-2), rtol=1e-12, atol=1e-12)


def test_a_share_of_the_energy_selects_the_smallest_rank_that_keeps_it() -> None:
    values = torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert [rank_for(values, share) for share in (0.5, 4 / 6, 0.7, 5 / 6, 1.0)] == [1, 1, 2, 2, 3]
    assert rank_for(torch.stack([values, torch.ones(4, dtype=torch.float64)]), 1.0) == 4
