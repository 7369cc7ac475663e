"""Whatever happens at whichever place of a job, it ends once, with the effect that it would have had.

Six things happen at each of twelve places: four that only a merge comes to, and eight that every job does, where it is two of
five kinds in turn; on two kinds of database: 240 cases, of which the quick run has `QUICK`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adaptry.failpoints import RUNNER, STEPS
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.running import Gate, Runner, living, runner, wait_until

from .clocks import DAY, Clock
from .scenes import ORDERS, Scene, a_registry

Happening = Callable[[Scene, str, Path], None]
Case = tuple[str, str, str, str]

_SHOWS = {
    "merge.adopted",
    "runner.before_finish",
    "runner.after_finish",
}  # what was made is seen before these


def killed(scene: Scene, place: str, scraps: Path) -> None:
    """Whoever gets there dies, and the runner with its step; another runner goes on."""
    armed = place if place in RUNNER else f"parent:{place}"
    with runner(scene.data, armed=armed) as dying:
        assert dying.ended() == -signal.SIGKILL
        wait_until(lambda: not living(dying.process.pid), "its step to have ended")
    scene.happened(is_seen(scene, place))
    with scene.taken_over():
        pass


def left_behind(scene: Scene, place: str, scraps: Path) -> None:
    """Who started the one that gets there dies, not it itself: the runner of a step, or the server of a runner."""
    gate = Gate(scraps / "gate", place)
    serve = ("serve", "--work", "--port", "0") if place in RUNNER else ()
    with runner(scene.data, environ=gate.environ, command=serve) as dying:
        left = gate.waiting()
        assert left != dying.process.pid
        os.kill(dying.process.pid, signal.SIGKILL)
        if serve:
            gate.open()
        wait_until(lambda: not living(dying.process.pid), "what it left behind to end")
    # A runner whose server died goes on until it notices: what it did meanwhile counts, and is not done again.
    scene.happened(is_seen=bool(serve) or is_seen(scene, place))
    with scene.taken_over():
        pass


def asleep(scene: Scene, place: str, scraps: Path) -> None:
    """The runner is put to sleep there with its step, another does the work, and it wakes up and does it as well."""
    with sleeping(scene, place, scraps) as (sleeper, gate):
        with scene.taken_over():
            pass
        ended = scene.ended_once()
        sleeper.thaw()
        gate.open()
        wait_until(lambda: scene.is_heard_of(sleeper), "the sleeper to say that it lives")
        wait_until(lambda: len(living(sleeper.process.pid)) == 1, "its step to end")
        wait_until(scene.nothing_under_way, "the engine to have ended everything")
        assert sleeper.stop() == 0
    assert scene.ended_once() == ended


def lapsed(scene: Scene, place: str, scraps: Path) -> None:
    """Its lease runs out while it is asleep there, and it goes on as soon as another was given its work: both are at it."""
    with sleeping(scene, place, scraps) as (sleeper, gate), scene.taken_over() as other:
        wait_until(
            lambda: scene.is_heard_of(other) and not scene.is_heard_of(sleeper), "it to be taken for dead"
        )
        sleeper.thaw()
        gate.open()
        wait_until(lambda: not scene.registry.job(scene.job).is_open, "the end of the job")
        wait_until(lambda: len(living(sleeper.process.pid)) == 1, "its step to end")
        assert sleeper.stop() == 0


def put_forward(scene: Scene, place: str, scraps: Path) -> None:
    """Its clock, and that of its step, is put forward by a day; another with the right time works beside it."""
    with_another_clock(scene, place, scraps, DAY)


def put_back(scene: Scene, place: str, scraps: Path) -> None:
    """Its clock is put back by a day."""
    with_another_clock(scene, place, scraps, -DAY)


def with_another_clock(scene: Scene, place: str, scraps: Path, by: int) -> None:
    clock, gate = Clock(scraps / "clock"), Gate(scraps / "gate", place)
    with runner(scene.data, environ={**clock.environ, **gate.environ}) as astray:
        gate.waiting()
        scene.happened(is_seen(scene, place))
        clock.put(by)
        with scene.taken_over():
            gate.open()
            wait_until(lambda: not scene.registry.job(scene.job).is_open, "the end of the job")
            wait_until(scene.nothing_under_way, "the engine to have ended everything")
            assert astray.stop() == 0


HAPPENINGS: tuple[Happening, ...] = (killed, left_behind, asleep, lapsed, put_forward, put_back)


def every_case() -> Iterator[Case]:
    for number, database in enumerate(("sqlite", "postgresql")):
        for happening in HAPPENINGS:
            for place in STEPS[1:]:
                yield "merge", place, happening.__name__, database
            for place in (*RUNNER, STEPS[0]):
                number += 1
                yield ("merge", "verify")[number % 2], place, happening.__name__, database
                yield ("combine", "export", "fingerprint")[number % 3], place, happening.__name__, database
            number += 1  # so that the next happening meets the other kinds


QUICK: set[Case] = {
    ("merge", "merge.stored", "killed", "sqlite"),
    ("merge", "merge.before_adoption", "asleep", "sqlite"),
    ("verify", "runner.concluded", "lapsed", "postgresql"),
}
CASES = [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.heavy) for case in every_case()]


def test_there_are_as_many_cases_as_we_say() -> None:
    assert len(CASES) == 240
    assert set(every_case()) >= QUICK


@pytest.mark.parametrize(("kind", "place", "happening", "database"), CASES)
def test_a_job_ends_once_whatever_happens_to_it_wherever(
    kind: str, place: str, happening: str, database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    postgres: PostgresServer | None = None
    name = ""
    if database == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        postgres, name = server, server.migrated()
    catalog = postgres.url(name) if postgres else None
    shards = 2 if place.startswith("merge.") else 1
    registry = a_registry(tmp_path / "data", tmp_path / "scraps", kind, shards, catalog)
    job = registry.submit_job(ORDERS[kind]).id
    scene = Scene(kind, shards, tmp_path / "data", registry, job, postgres, name)

    next(each for each in HAPPENINGS if each.__name__ == happening)(scene, place, tmp_path)

    scene.ended_once()
    registry.close()


def is_seen(scene: Scene, place: str) -> bool:
    """Whether what a job makes is there when it comes to a place for the first time."""
    return place in _SHOWS or (place == "runner.concluded" and scene.kind != "merge")


@contextmanager
def sleeping(scene: Scene, place: str, scraps: Path) -> Iterator[tuple[Runner, Gate]]:
    """A runner that was put to sleep, with its step, when it came to a place, and the gate there."""
    gate = Gate(scraps / "gate", place)
    with runner(scene.data, environ=gate.environ) as sleeper:
        gate.waiting()
        scene.freeze(sleeper)
        scene.happened(is_seen(scene, place))
        yield sleeper, gate
