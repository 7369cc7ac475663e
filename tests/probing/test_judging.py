"""The verdict of a probe is computed from numbers: the share of the trained effect that is measured, relative
to the engine's noise.
"""

from __future__ import annotations

import random

import pytest

from adaptry.integrations.engine_test.verdict import PromptLogprobs, compute_verdict


def answered(strength: float, noise: float, effect: float = 1.0, seed: int = 1) -> list[PromptLogprobs]:
    """Ten prompts, five tokens each; the engine answers with `strength` of the adapter's effect, and with
    noise.
    """
    dice = random.Random(seed)
    found = []
    for _ in range(10):
        base = {token: -3 + dice.gauss(0, 1) for token in range(5)}
        moved = {token: dice.gauss(0, effect) for token in base}
        trained = {token: base[token] + moved[token] for token in base}
        engine = {token: base[token] + strength * moved[token] + dice.gauss(0, noise) for token in base}
        found.append(
            PromptLogprobs({t: v + dice.gauss(0, noise) for t, v in base.items()}, engine, base, trained)
        )
    return found


@pytest.mark.parametrize("noise", [0.0, 1e-4, 0.05])
@pytest.mark.parametrize(
    ("strength", "outcome"),
    [(1.0, "as_trained"), (0.0, "no_op"), (0.5, "differs"), (4.0, "differs"), (-1.0, "differs")],
)
def test_the_verdict_estimates_how_much_of_the_change_arrives(
    strength: float, outcome: str, noise: float
) -> None:
    found = compute_verdict(answered(strength, noise))

    assert found.outcome == outcome
    assert found.strength == pytest.approx(strength, abs=0.1)


@pytest.mark.parametrize(("noise", "effect"), [(0.5, 1.0), (0.0, 1e-4), (0.0, 0.0)])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_difference_within_the_noise_is_never_proof(strength: float, noise: float, effect: float) -> None:
    assert compute_verdict(answered(strength, noise, effect)).outcome == "cannot_tell"
