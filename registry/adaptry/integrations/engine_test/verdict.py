"""The verdict of an engine test, computed from numbers alone.

For every prompt, an engine returns its most likely next tokens with their logprobs; the reference has those
of every token. This gives four numbers: how far the engine's base is from the reference's (the noise of its
number formats), how much the adapter should change, how far the engine's answer is from that, and how far it
is from no change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from adaptry.core.lazy_dataclass import dataclass

Logprobs = Mapping[int, float]
"""Logprobs of next tokens, by the token's number."""

EngineTestOutcome = Literal["as_trained", "no_op", "differs", "cannot_tell"]

OUTCOMES: Mapping[EngineTestOutcome, str] = {
    "as_trained": "as trained",
    "no_op": "no-op: the answers are the base's",
    "differs": "differs from the reference",
    "cannot_tell": "cannot tell",
}

_NOISES = 3.0
"""Multiple of the base's noise up to which values count as equal."""
_PART = 0.15
"""Fraction of the adapter's effect up to which values count as equal: its modules are rounded too."""
_MIN_DIFFERENCE = 0.003
"""The effect, in nats, below which the test is inconclusive."""


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """One prompt: the logprobs of the engine and of the reference, each for base and adapter."""

    engine_base: Logprobs
    engine: Logprobs
    base: Logprobs
    trained: Logprobs


class EngineTestResult(BaseModel):
    """The result of an engine test. All but `strength` are RMS differences of logprobs, in nats."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    outcome: EngineTestOutcome
    noise: float
    effect: float
    from_trained: float
    from_base: float
    strength: float
    prompts: int

    @property
    def sentence(self) -> str:
        """The numbers in words."""
        if self.outcome == "cannot_tell":
            return (
                f"the adapter changes these prompts by {self.effect:.4f} nats, and the engine's base is"
                f" {self.noise:.4f} from the reference's: use prompts on which it matters (--prompt), or"
                " name the base that is served (--base)"
            )
        return (
            f"the answers are {self.from_trained:.4f} nats from the trained adapter's and"
            f" {self.from_base:.4f} from the base's; the adapter's own effect is {self.effect:.4f}, and the"
            f" engine's base is off by {self.noise:.4f}: about {100 * self.strength:.0f} % of the change"
            " arrives"
        )


def compute_verdict(answers: Sequence[PromptLogprobs]) -> EngineTestResult:
    """The verdict of one or more prompts."""
    noise = _rms(each.engine_base[token] - each.base[token] for each in answers for token in each.engine_base)
    steps = list(_steps(answers))
    effect = _rms(trained for trained, _ in steps)
    from_trained = _rms(trained - came for trained, came in steps)
    from_base = _rms(came for _, came in steps)
    along = sum(trained * came for trained, came in steps)
    length = sum(trained * trained for trained, _ in steps)
    return EngineTestResult(
        outcome=_outcome(noise, effect, from_trained, from_base),
        noise=noise,
        effect=effect,
        from_trained=from_trained,
        from_base=from_base,
        strength=along / length if length else 0.0,
        prompts=len(answers),
    )


def _steps(answers: Sequence[PromptLogprobs]) -> Iterator[tuple[float, float]]:
    """The change of each returned token's logprob by training, and the change in the engine's answers."""
    for each in answers:
        for token, odds in each.engine.items():
            yield each.trained[token] - each.base[token], odds - each.base[token]


def _outcome(noise: float, effect: float, from_trained: float, from_base: float) -> EngineTestOutcome:
    equal = max(_NOISES * noise, _PART * effect)
    if effect < _MIN_DIFFERENCE or effect <= equal:
        return "cannot_tell"
    if from_trained <= equal:
        return "as_trained"
    return "no_op" if from_base <= equal else "differs"


def _rms(values: Iterable[float]) -> float:
    found = list(values)
    return math.sqrt(math.fsum(value * value for value in found) / len(found)) if found else 0.0
