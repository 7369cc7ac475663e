"""The distance between two adapters, compared with that of their dense matrices."""

from __future__ import annotations

import struct

import pytest

from adaptry.core.errors import CheckFailed, Unsupported

from .matrices import conflict, cosine, joined, norm, overlap

torch = pytest.importorskip("torch")
from adaptry.compute.comparison.distance import measure_distance  # noqa: E402

Q = "model.layers.0.self_attn.q_proj"
HEAD = "base_model.model.lm_head.weight"


def test_distances_equal_those_of_the_dense_matrices(lora, dense) -> None:
    found = measure_distance(lora("a"), lora("b", rank=8, seed=2))

    a, b = dense("a")[Q], dense("b")[Q]
    module = next(module for module in found.modules if module.module == Q)
    assert module.distance == pytest.approx(norm(a - b) / norm(a), rel=1e-6)
    assert module.cosine == pytest.approx(cosine(a, b), abs=1e-6)
    assert module.ratio == pytest.approx(norm(b) / norm(a), rel=1e-6)
    assert module.ranks == (4, 8)
    assert module.conflict == pytest.approx(conflict(a, b), abs=1e-6)
    assert module.row_overlap == pytest.approx(overlap(a.T, b.T), abs=1e-6)


def test_all_modules_count_as_one_vector_even_if_one_adapter_lacks_some(lora, dense) -> None:
    found = measure_distance(lora("a"), lora("b", seed=2, targets=("q_proj", "k_proj")))

    one, other = joined(dense("a"), dense("b"))
    assert found.distance == pytest.approx(norm(one - other) / norm(one), rel=1e-6)
    assert found.cosine == pytest.approx(cosine(one, other), abs=1e-6)
    assert found.ratio == pytest.approx(norm(other) / norm(one), rel=1e-6)


def test_the_distance_of_an_adapter_from_itself_is_exactly_zero(lora) -> None:
    found = measure_distance(lora("a"), lora("again"))

    assert found.distance == pytest.approx(0, abs=1e-14)
    assert found.cosine == pytest.approx(1, abs=1e-14)


def test_modules_are_listed_farthest_first_with_unshared_ones_at_the_ends(lora) -> None:
    found = measure_distance(
        lora("a", targets=("q_proj", "v_proj")), lora("b", seed=2, targets=("q_proj", "k_proj"))
    )

    kinds = [module.module.rsplit(".", 1)[-1] for module in found.modules]
    assert kinds == ["k_proj", "k_proj", "q_proj", "q_proj", "v_proj", "v_proj"]
    assert found.modules[0].distance is None and found.modules[0].ranks == (0, 4)
    assert found.modules[-1].distance == 1 and found.modules[-1].ranks == (4, 0)


def test_whole_weights_are_compared_by_their_bytes(lora) -> None:
    def head(value: float):
        return {HEAD: ("F32", (32, 16), struct.pack("<512f", *[value] * 512))}

    saved = {"modules_to_save": ["lm_head"]}
    one, same, other = (
        lora(name, extra=head(value), config=saved) for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0))
    )

    assert measure_distance(one, same).notes == ("whole weights, compared by their bytes: 1 the same",)
    assert "0 the same, 1 different (first: lm_head.weight)" in measure_distance(one, other).notes[0]


def test_adapters_that_are_not_plain_loras_are_refused_with_a_remedy(lora) -> None:
    with pytest.raises(Unsupported, match="adaptry convert"):
        measure_distance(lora("a"), lora("d", config={"use_dora": True}))


def test_adapters_of_different_shapes_are_refused(lora) -> None:
    with pytest.raises(CheckFailed, match="have different bases"):
        measure_distance(lora("a"), lora("wide", hidden=32))
