"""Sums of weighted products in compiled code, compared with numpy in float64 and with exact integers."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("llvmlite")

from adaptry.compute.tensors.weighted_products import weighted_products  # noqa: E402  (needs numpy)
from adaptry.core.errors import InvalidWeights  # noqa: E402

SHAPES = [(1, 1, 1, 1), (7, 3, 5, 31), (12, 2, 16, 64), (13, 40, 1, 33), (6, 1, 300, 100)]


def _expected(ups, down, weights):
    return np.einsum("ink,kj,nj->ij", *(each.astype(np.float64) for each in (ups, down, weights)))


def _arrays(shape, draw):
    rows, terms, ranks, columns = shape
    return [
        draw(size).astype(np.float32) for size in ((rows, terms, ranks), (ranks, columns), (terms, columns))
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_of_integers_are_exact(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    arrays = _arrays(shape, lambda size: random.integers(-9, 10, size))

    assert (weighted_products(*arrays) == _expected(*arrays)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_each_addition_rounds_once_to_float32(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(2)
    arrays = _arrays(shape, random.standard_normal)
    _, terms, ranks, _ = shape

    error = np.abs(weighted_products(*arrays) - _expected(*arrays))

    sizes = _expected(*(np.abs(each) for each in arrays))
    assert (error <= (terms + ranks) * 2.0**-24 * sizes).all()


def test_factors_may_be_parts_of_larger_arrays() -> None:
    random = np.random.default_rng(3)
    ups, down, weights = _arrays((9, 6, 8, 80), lambda size: random.integers(-9, 10, size))
    parts = ups[:, 1:5], down[:, 3:43], weights[1:5, 3:43]

    assert (weighted_products(*parts) == _expected(*parts)).all()


@pytest.mark.parametrize("empty", range(4), ids=["rows", "terms", "ranks", "columns"])
def test_empty_factors_sum_to_zero(empty: int) -> None:
    shape = [0 if place == empty else 3 for place in range(4)]
    found = weighted_products(*_arrays(shape, np.ones))
    assert found.shape == (shape[0], shape[3])
    assert not found.any()


@pytest.mark.parametrize(
    ("down", "weights"), [((4, 8), (2, 8)), ((5, 8), (3, 8)), ((5, 8), (2, 9))], ids=["r", "terms", "columns"]
)
def test_factors_that_do_not_fit_are_refused(down: tuple[int, int], weights: tuple[int, int]) -> None:
    arrays = [np.zeros(shape, np.float32) for shape in ((3, 2, 5), down, weights)]

    with pytest.raises(InvalidWeights, match="shape"):
        weighted_products(*arrays)
