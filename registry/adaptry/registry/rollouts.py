"""Rollouts: a version is served under an alias on a few workers first, then on more; a reported failure stops
it.

The rules (which workers, when the next step is due, what stops a rollout) are pure functions. The registry
evaluates them in the transaction of each worker's report, so no timer is needed: a rollout without live
workers pauses. At 100 % the alias itself moves, unless it was moved in the meantime.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.core.value import FreeText
from adaptry.registry.records import Value

RolloutStage = Literal["running", "done", "stopped", "aborted"]


class RolloutPlan(Value):
    """The percentages of workers, and the `interval`: the seconds to wait at each (None: until a user
    continues).
    """

    steps: tuple[int, ...] = Field(default=(10, 50, 100), min_length=1, max_length=32)
    interval: int | None = Field(default=None, ge=1, le=30 * 86_400)

    @model_validator(mode="after")
    def _check_increasing(self) -> Self:
        rising = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if not rising or not self.steps[0] >= 1 or self.steps[-1] > 100:
            raise ValueError(
                "the steps of a rollout must be rising percentages from 1 to 100, such as 10,50,100"
            )
        return self

    @property
    def whole(self) -> tuple[int, ...]:
        """The steps up to 100 %, where the alias moves."""
        return self.steps if self.steps[-1] == 100 else (*self.steps, 100)


class RolloutInfo(Value):
    """A rollout: its target, origin and progress. `generation` grows with every change; pass it as `was`."""

    id: int
    name: AdapterName
    alias: str
    number: int
    digest: Digest
    was_number: int
    was_digest: Digest
    alias_generation: int
    steps: tuple[int, ...]
    step: int
    interval: int | None = None
    stage: RolloutStage
    reason: str | None = None
    generation: int
    started_at: datetime
    started_by: str
    step_at: datetime
    ended_at: datetime | None = None

    @property
    def percent(self) -> int:
        return self.steps[self.step]


class RolloutChange(Value):
    """A change of a rollout: continue to the next step, or abort."""

    to: Literal["advance", "abort"]
    reason: FreeText | None = Field(default=None, max_length=1024)


def choose_workers(id: int, percent: int, workers: Collection[str]) -> frozenset[str]:
    """The selected workers, at least one. The selection depends only on the set of workers, and a larger
    percentage includes the workers of a smaller one.
    """
    ranked = sorted(workers, key=lambda worker: hashlib.sha256(f"{id}:{worker}".encode()).digest())
    return frozenset(ranked[: -(-len(ranked) * percent // 100)])


def is_due(rollout: RolloutInfo, now: datetime, serving: Mapping[str, Digest | None]) -> bool:
    """Whether the next step is due: the time has passed, and all selected workers serve the version.

    `serving` is the version that each worker serves under the alias, None while that is not certain.
    """
    if rollout.interval is None or now < rollout.step_at + timedelta(seconds=rollout.interval):
        return False
    turn = choose_workers(rollout.id, rollout.percent, serving)
    return bool(turn) and all(serving[worker] == rollout.digest for worker in turn)


class Rollouts(ABC):
    """Rollouts; an alias has at most one at a time."""

    @abstractmethod
    def start(self, name: AdapterName, alias: str, to: Digest, plan: RolloutPlan) -> RolloutInfo:
        """Starts a rollout of an alias to a version. Raises `Conflict` if a rollout is running, or if the
        alias already points, or must not point, at the version; `NotFound`, `PermissionDenied`.
        """

    @abstractmethod
    def list(self, name: AdapterName) -> tuple[RolloutInfo, ...]:
        """The 50 newest rollouts, newest first. Raises `NotFound`."""

    @abstractmethod
    def change(self, name: AdapterName, alias: str, change: RolloutChange, was: int) -> RolloutInfo:
        """Changes the running rollout of an alias if its generation is `was`; at 100 % the alias moves.

        Raises `Conflict` with the current generation, `NotFound` if none is running, `PermissionDenied`.
        """
