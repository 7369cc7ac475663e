"""Signatures: a few numbers from which the similarity of two updates is estimated."""

from __future__ import annotations

import pytest

from .matrices import cosine, joined

torch = pytest.importorskip("torch")
from adaptry.compute.comparison.signature import Signature, cosine_margin, estimate_cosine  # noqa: E402
from adaptry.compute.lazy_adapters.deltas import open_adapter_deltas  # noqa: E402


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 1.0, 4.0])
def test_a_signature_estimates_the_cosine_within_its_margin(lora, mixed, dense, weight: float) -> None:
    a = lora("a", hidden=64, layers=1)
    for seed in range(2, 12):
        b = lora(f"b{seed}", seed=seed, hidden=64, layers=1)
        both = mixed(f"both{seed}", a, b, weight) if weight else lora(f"both{seed}", hidden=64, layers=1)
        exact = cosine(*joined(dense("a"), dense(both.label)))

        found = estimate_cosine(Signature.of(open_adapter_deltas(a)), Signature.of(open_adapter_deltas(both)))

        assert abs(found - exact) <= cosine_margin(exact)


def test_a_signature_depends_on_the_update_and_not_on_its_factors(lora, mixed) -> None:
    a, b = lora("a"), lora("b", seed=2)
    exact = mixed("exact", a, b, 1.0)  # rank 8, by concatenating the factors
    split = mixed("split", a, b, 1.0, rank=8)  # the same by a singular value decomposition

    one, other = Signature.of(open_adapter_deltas(exact)), Signature.of(open_adapter_deltas(split))

    assert torch.allclose(one.numbers(), other.numbers(), atol=1e-6 * one.norm)
    assert one.norm == pytest.approx(other.norm, rel=1e-6)


def test_a_signature_is_the_same_on_every_machine(lora) -> None:
    """Stored signatures are compared with new ones, so a change in the computation must change their
    format.
    """
    signature = Signature.of(open_adapter_deltas(lora("a")))

    largest = signature.numbers().abs().topk(4).indices.tolist()
    assert (signature.layout, sorted(largest)) == (1, [75, 316, 419, 809])
