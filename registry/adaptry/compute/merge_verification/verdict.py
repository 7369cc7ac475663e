"""The result for a checkpoint: a verdict for each tensor, and one in total."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

TensorState = Literal["same", "within", "rounding", "differs", "missing", "extra", "shape"]
"""`same`: equal bytes. `within`: at most the tolerated number of units in the last place apart. `rounding`:
the same sum, added or rounded in another order. All others refute.
"""

_PROVED = ("same", "within", "rounding")


class _Value(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)


class TensorVerdict(_Value):
    """One tensor of the checkpoint (or one that it lacks).

    `ulp`: the largest difference of an element in units in the last place. `share`: the share of elements
    whose bits differ. `error`: ‖found − expected‖ / ‖expected − base‖, or relative to ‖base‖ for an unchanged
    tensor. `hint`: the diagnosis, if there is one.
    """

    tensor: str
    state: TensorState
    ulp: int | None = None
    share: float = 0.0
    error: float | None = None
    hint: str | None = None
    wrong: float = 0.0
    """‖found − expected‖²"""
    change: float = 0.0
    """‖found − base‖²"""

    @property
    def is_proved(self) -> bool:
        return self.state in _PROVED

    @property
    def relative_to_change(self) -> float | None:
        """‖found − expected‖ / ‖found − base‖; None if there was no second pass for the tensor."""
        return None if self.error is None else _relative(self.wrong, self.change)


class Verification(_Value):
    """The verdicts in the order of the base's files; `config`: differences of the configs; `notes`: those of
    the plan.
    """

    tensors: tuple[TensorVerdict, ...]
    config: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tolerance: int = 1

    @property
    def is_proved(self) -> bool:
        return not self.config and all(verdict.is_proved for verdict in self.tensors)

    @property
    def failed(self) -> tuple[TensorVerdict, ...]:
        return tuple(verdict for verdict in self.tensors if not verdict.is_proved)

    @property
    def error(self) -> float:
        """‖found − expected‖ / ‖found − base‖ over all tensors with a second pass; 0 without such tensors."""
        change = sum(verdict.change for verdict in self.tensors)
        wrong = sum(verdict.wrong for verdict in self.tensors)
        return _relative(wrong, change)

    def counts(self) -> dict[TensorState, int]:
        found: dict[TensorState, int] = {}
        for verdict in self.tensors:
            found[verdict.state] = found.get(verdict.state, 0) + 1
        return found


def _relative(wrong: float, change: float) -> float:
    return float((wrong / change) ** 0.5) if change else float(wrong > 0)
