"""What is found of a checkpoint: a verdict for each tensor, and one of the whole."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

TensorState = Literal["same", "within", "rounding", "differs", "missing", "extra", "shape"]
"""`same`: the same bytes. `within`: at most so many units in the last place apart as are tolerated.
`rounding`: the same sum, added or rounded in another order. The rest refute.
"""

_PROVED = ("same", "within", "rounding")


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class TensorVerdict(_Value):
    """One tensor of the checkpoint (or one that it lacks).

    `ulp`: the most units in the last place between an element and what it should be; `share`: of the elements
    that differ in their bits. `error`: ‖found − should be‖ / ‖should be − base‖, of an untouched tensor by
    ‖base‖. `hint`: what it is instead, where that can be told.
    """

    tensor: str
    state: TensorState
    ulp: int | None = None
    share: float = 0.0
    error: float | None = None
    hint: str | None = None
    wrong: float = 0.0
    """‖found − should be‖²"""
    change: float = 0.0
    """‖found − base‖²"""

    @property
    def is_proved(self) -> bool:
        return self.state in _PROVED

    @property
    def relative_to_change(self) -> float | None:
        """‖found − should be‖ / ‖found − base‖; None of a tensor that was not looked at twice."""
        return None if self.error is None else _relative(self.wrong, self.change)


class Verification(_Value):
    """The verdicts in the order of the base's files; `config`: what differs there; `notes` of the plan."""

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
        """‖found − should be‖ / ‖found − base‖ over all tensors looked at twice; 0 where none was."""
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
