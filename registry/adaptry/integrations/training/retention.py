"""Which checkpoints of a run are kept: the last few, and the best by a metric. A pure rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.training.runs import TrainingCheckpoint

BestMetric = tuple[str, Literal["min", "max"]]


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Keeps the `last` newest checkpoints (None: all), and the best one by `best`, for example ("eval_loss",
    "min").
    """

    last: int | None = None
    best: BestMetric | None = None

    def __post_init__(self) -> None:
        """Checks the policy. Raises `Invalid`."""
        if self.last is not None and self.last < 1:
            raise Invalid("keep_last must be at least 1; None keeps every checkpoint")
        if self.best is not None and self.best[1] not in ("min", "max"):
            raise Invalid(f"best must be (metric, 'min' or 'max'), not {self.best!r}")


def best_checkpoint(
    checkpoints: Sequence[TrainingCheckpoint], best: BestMetric | None
) -> TrainingCheckpoint | None:
    """The best measured checkpoint, the earliest among equals; None if none was measured."""
    if best is None:
        return None
    metric, sense = best
    measured = [each for each in checkpoints if metric in each.metrics]
    choose = min if sense == "min" else max
    return choose(measured, key=lambda each: each.metrics[metric], default=None)


def expired_checkpoints(
    checkpoints: Sequence[TrainingCheckpoint], policy: RetentionPolicy
) -> tuple[TrainingCheckpoint, ...]:
    """The checkpoints of a run that the policy does not keep, oldest first."""
    if policy.last is None:
        return ()
    by_step = sorted(checkpoints, key=lambda each: each.step)
    best = best_checkpoint(by_step, policy.best)
    return tuple(each for each in by_step[: -policy.last] if each != best)
