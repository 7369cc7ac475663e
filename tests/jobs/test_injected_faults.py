"""Any fault, at any stage of a job, leaves the job ended once, with the same effect as without the fault.

Six faults are injected at each of twelve stages: four that only a merge has, and eight that every job has,
tested with two of the four kinds in turn; on two kinds of database. That makes 240 cases; the quick run has
`QUICK`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from adaptry.core.failpoints import RUNNER, STEPS
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.runners import live_processes, wait_until

from .clocks import DAY, REMEDY, library
from .scenes import Scene
from .stages import Player, Stage

Happening = Callable[[Scene, Player, Player], None]
Case = tuple[str, str, str, str]
GetStage = Callable[[str, bool], Stage]

_SHOWN = {
    "merge.adopted",
    "runner.before_finish",
    "runner.after_finish",
}  # the result is visible before these


def killed(scene: Scene, one: Player, other: Player) -> None:
    """The runner and its step die there; another runner continues."""
    one.runner.kill()
    wait_until(lambda: not live_processes(one.pid), "its step to have ended")


def left_behind(scene: Scene, one: Player, other: Player) -> None:
    """The parent of the process that gets there dies: the runner of a step, or the server of a runner."""
    waits = scene.stage.gate.wait_for_arrival()
    if waits != one.pid:
        one.kill()
    else:
        one.lose_its_server()
        scene.stage.gate.open()
    wait_until(lambda: not live_processes(one.pid), "what was left behind to end")


def asleep(scene: Scene, one: Player, other: Player) -> None:
    """The runner and its step are suspended there, another runner does the work, and the first one wakes up
    and does it too.
    """
    stage = scene.stage
    stage.put_to_sleep(one)
    wait_until(scene.is_over, "the end of the job")
    wait_until(stage.is_idle, "the engine to have ended everything")
    wait_until(lambda: not stage.hears(one), "the sleeper to be taken for dead")
    ended = scene.ended_once()
    stage.gate.open()
    one.runner.resume()
    wait_until(lambda: stage.hears(one), "the sleeper to say that it lives")
    wait_until(lambda: not one.has_steps(), "its step to end")
    assert scene.ended_once() == ended


def lapsed(scene: Scene, one: Player, other: Player) -> None:
    """Its lease expires while it is suspended there, and it continues immediately: two runners do the same
    work.
    """
    scene.stage.put_to_sleep(one)
    wait_until(lambda: not scene.stage.hears(one), "the sleeper to be taken for dead")
    scene.stage.gate.open()
    one.runner.resume()


def put_forward(scene: Scene, one: Player, other: Player) -> None:
    """Its clock, and that of its step, is set a day ahead; the other runner has the right time."""
    wander(scene, one, DAY)


def put_back(scene: Scene, one: Player, other: Player) -> None:
    """Its clock, and that of its step, is set back by a day."""
    wander(scene, one, -DAY)


def wander(scene: Scene, one: Player, by: int) -> None:
    assert one.clock is not None
    one.clock.put(by)
    scene.stage.gate.open()
    wait_until(scene.is_over, "the end of the job")
    wait_until(scene.stage.is_idle, "the engine to have ended everything")
    one.clock.put(0)


HAPPENINGS: tuple[Happening, ...] = (killed, left_behind, asleep, lapsed, put_forward, put_back)


def every_case() -> Iterator[Case]:
    for number, database in enumerate(("sqlite", "postgresql")):
        for happening in HAPPENINGS:
            for place in STEPS[1:]:
                yield "merge", place, happening.__name__, database
            for place in (*RUNNER, STEPS[0]):
                number += 1
                yield ("merge", "verify")[number % 2], place, happening.__name__, database
                yield ("combine", "export")[number // 2 % 2], place, happening.__name__, database
            number += 1  # so that the next fault is tested with the other kinds


QUICK: set[Case] = {
    ("merge", "merge.stored", "killed", "sqlite"),
    ("merge", "merge.before_adoption", "asleep", "sqlite"),
}
CASES = [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.heavy) for case in every_case()]


def test_the_number_of_cases_is_as_documented() -> None:
    assert len(set(every_case())) == len(CASES) == 240
    assert set(every_case()) >= QUICK


@pytest.fixture(scope="module")
def stages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GetStage]:
    """One stage at a time; a new one is made if another kind is requested, or if the current one was
    abandoned.
    """
    made: dict[tuple[str, bool], Stage] = {}

    def close() -> None:
        for each in made.values():
            each.close()
        made.clear()

    def stage(database: str, has_clocks: bool) -> Stage:
        if (database, has_clocks) not in made or not made[database, has_clocks].is_usable:
            close()
            postgres: PostgresServer | None = None
            if database == "postgresql":
                postgres = request.getfixturevalue("postgres")
            made[database, has_clocks] = Stage(
                tmp_path_factory.mktemp("stage"), postgres, has_clocks=has_clocks
            )
        return made[database, has_clocks]

    yield stage
    close()


_numbers = itertools.count(1)


@pytest.mark.parametrize(("kind", "place", "happening", "database"), CASES)
def test_a_job_ends_once_under_any_fault(
    kind: str, place: str, happening: str, database: str, stages: GetStage
) -> None:
    happens = next(each for each in HAPPENINGS if each.__name__ == happening)
    if happens in (put_forward, put_back) and not library():
        pytest.skip(REMEDY)
    stage = stages(database, happens in (put_forward, put_back))
    with stage.unless_broken():
        first, _ = stage.ready()
        if place == "runner.after_registration":  # only a starting runner passes this stage
            stage.leave(first)
        stage.gate.arm(place)
        if place == "runner.after_registration":
            stage.enter()
        scene = Scene(stage, kind, next(_numbers))
        one, other = stage.whose(stage.gate.wait_for_arrival())
        scene.happens(is_seen=place in _SHOWN or (place == "runner.concluded" and kind != "merge"))

        happens(scene, one, other)

        stage.gate.open()
        wait_until(scene.is_over, "the end of the job")
        wait_until(stage.is_idle, "the engine to have ended everything")
        stage.ready()
        # A runner that came too late may be starting the process with torch at that moment, and is then
        # refused.
        wait_until(lambda: not one.has_steps() and not other.has_steps(), "all steps to end")
        scene.ended_once()
