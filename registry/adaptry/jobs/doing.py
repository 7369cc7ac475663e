"""How each kind of job is done: a table, beside that of what can be asked.

A kind is one step, `start`; or three: `start` cuts the job into pieces, each is done by whoever is free, and `end` puts what
they came to together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adaptry.jobs import keeping, making, merging
from adaptry.jobs.desk import Desk
from adaptry.jobs.paper import Outcome
from adaptry.jobs.tasks import Task

# (`Any`: each takes its own kind of task, which `do` has just parsed.)
One = Callable[[Any, Desk], Outcome]


@dataclass(frozen=True, slots=True)
class Way:
    """The steps of a kind."""

    start: One
    piece: Callable[[Any, Desk, str], Outcome] | None = None
    end: One | None = None


WAYS: Mapping[str, Way] = {
    "merge": Way(merging.start, merging.piece, merging.end),
    "combine": Way(making.combine),
    "convert": Way(making.convert),
    "fingerprint": Way(keeping.fingerprint),
    "verify": Way(keeping.verify),
    "replicate": Way(keeping.replicate),
}


def do(kind: str, task: Task, step: str, desk: Desk) -> Outcome:
    """Does one step of a job, and says what it came to."""
    way = WAYS[kind]
    if step == "start":
        return way.start(task, desk)
    if step == "end":
        assert way.end is not None
        return way.end(task, desk)
    assert way.piece is not None
    return way.piece(task, desk, step)
