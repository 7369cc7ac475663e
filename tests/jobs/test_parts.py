"""The parts of a runner: attempts and fencing, heartbeats, queues, and memory."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from adaptry.core.errors import Conflict
from adaptry.core.identity import LOCAL
from adaptry.core.refs import AdapterName
from adaptry.jobs.capacity import CapacityLimiter
from adaptry.jobs.liveness import LivenessMonitor
from adaptry.jobs.queues import runner_queues, step_queue
from adaptry.registry.job_types.cron import Cron
from adaptry.registry.job_types.records import GIB, JobNeeds, JobOrder, RunnerInfo
from adaptry.registry.job_types.tasks import TASKS
from adaptry.registry.records import AdapterEdit
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog import job_steps, jobs, runners, schedules
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.contract.fixtures import ADA, EVE

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TONE = AdapterName.parse("acme/tone")


@pytest.fixture
def registry() -> LocalRegistry:
    return LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs()))


@pytest.fixture
def job(registry: LocalRegistry) -> str:
    return registry.jobs.submit(JobOrder(kind="verify", task={})).id


def test_only_the_latest_attempt_of_a_step_may_change_anything(registry: LocalRegistry, job: str) -> None:
    first, second = begun(registry, job, "one"), begun(registry, job, "two")

    with pytest.raises(Conflict, match="another runner took over"):
        fenced(registry, job, first).adapters.create(TONE, AdapterEdit())
    fenced(registry, job, second).adapters.create(TONE, AdapterEdit())

    assert (first, second) == (1, 2)
    assert registry.jobs.get(job).runners == ("two",)
    assert [each.name for each in registry.adapters.list().items] == [TONE]
    with registry.catalog.write() as tx, pytest.raises(Conflict):
        job_steps.finish_step(tx, job, "start", first, {}, {})


def test_a_finished_step_is_not_repeated(registry: LocalRegistry, job: str) -> None:
    turn = begun(registry, job, "one")
    with registry.catalog.write() as tx:
        job_steps.finish_step(tx, job, "start", turn, {"came": "to this"}, {"piece-1": 10, "piece-2": 30})

    with registry.catalog.write() as tx:
        again = job_steps.begin_attempt(tx, job, "start", "two", NOW)
        piece = job_steps.begin_attempt(tx, job, "piece-1", "two", NOW)
        assert piece is not None
        job_steps.report(tx, job, "piece-1", piece.attempt, "merging", 5, 10)

    assert again == job_steps.StepAttempt(1, {"came": "to this"})
    seen = registry.jobs.get(job)
    assert (seen.pieces, seen.stage and (seen.stage.done, seen.stage.total)) == (2, (5, 40))


@pytest.mark.parametrize("end", ["cancelled", "done", "failed"])
def test_steps_of_an_ended_job_do_not_begin_and_change_nothing(
    registry: LocalRegistry, job: str, end: str
) -> None:
    turn = begun(registry, job, "one")
    with registry.catalog.write() as tx:
        assert jobs.finish(tx, job, end, NOW)  # type: ignore[arg-type]  # one of the states, as written above
        assert not jobs.finish(tx, job, "done", NOW)

    with registry.catalog.write() as tx:
        assert job_steps.begin_attempt(tx, job, "start", "two", NOW) is None
    with pytest.raises(Conflict):
        fenced(registry, job, turn).adapters.create(TONE, AdapterEdit())
    assert registry.jobs.get(job).state == end


def test_ending_a_job_twice_has_one_effect(registry: LocalRegistry, job: str) -> None:
    with registry.catalog.write() as tx:
        ends = [jobs.finish(tx, job, "done", NOW, result={"from": who}) for who in ("one", "two")]
    assert ends == [True, False]
    assert registry.jobs.get(job).result == {"from": "one"}


def test_a_log_keeps_its_last_lines_in_order(registry: LocalRegistry, job: str) -> None:
    for start in range(0, 5_200, 400):
        with registry.catalog.write() as tx:
            jobs.append_log(tx, job, "start", [f"line {start + n}\0" for n in range(400)], NOW)

    told, cursor = [], None
    while True:
        page = registry.jobs.log(job, cursor, 200)
        told += [line.text for line in page.items]
        if (cursor := page.next) is None:
            break

    assert told == [f"line {n}\\0" for n in range(5_000)]


def test_a_runner_counts_as_dead_when_its_counter_stops_regardless_of_clocks() -> None:
    watch = LivenessMonitor(10.0)
    assert watch.find_dead({"a": 1, "b": 1}, now=100.0) == frozenset()
    assert watch.find_dead({"a": 2, "b": 1}, now=109.0) == frozenset()
    assert watch.find_dead({"a": 2, "b": 1}, now=110.5) == {"b"}
    assert watch.find_dead({"a": 3, "b": 2}, now=119.5) == frozenset()  # it was only slow, and is back
    assert watch.find_dead({"a": 3}, now=200.0) == {"a"}


def test_a_runner_declared_dead_is_alive_again_with_the_same_count(
) -> None:  # fmt: skip
    watch = LivenessMonitor(2.0)
    watch.find_dead({"one": 1}, 100.0)
    assert watch.find_dead({"one": 1}, 102.5) == {"one"}

    assert watch.find_dead({"one": 1}, 103.0) == frozenset()
    assert watch.find_dead({"one": 2}, 105.5) == frozenset()


def test_a_runner_deleted_too_early_is_registered_again_at_its_next_heartbeat(
    registry: LocalRegistry,
) -> None:
    runner = RunnerInfo(id="r", host="h", devices=(), tags=("t",), concurrency=1, memory=GIB, seen_at=NOW)
    with registry.catalog.write() as tx:
        runners.beat(tx, runner)
        runners.beat(tx, runner)
        assert runners.beats(tx) == {"r": 2}
        runners.delete(tx, ["r"])
        runners.beat(tx, runner)
    assert registry.jobs.runners() == (runner,)


def test_only_administrators_see_a_runners_host(registry: LocalRegistry) -> None:
    runner = RunnerInfo(id="r", host="h", devices=(), tags=("t",), concurrency=1, memory=GIB, seen_at=NOW)
    with registry.catalog.write() as tx:
        runners.beat(tx, runner)
    told = {
        who.name: [each.host for each in registry.on_behalf_of(who).jobs.runners()]
        for who in (LOCAL, ADA, EVE)
    }
    assert told == {"local": ["h"], "ada": [None], "eve": [None]}


@pytest.mark.parametrize(
    ("needs", "takers"),
    [
        (JobNeeds(), {"small", "gpu", "tagged", "large"}),
        (JobNeeds(device="cpu"), {"small", "gpu", "tagged", "large"}),
        (JobNeeds(device="cuda"), {"gpu"}),
        (JobNeeds(tag="eu"), {"tagged"}),
        (JobNeeds(device="cuda", tag="eu"), set()),
        (JobNeeds(memory=60 * GIB), {"large"}),
        (JobNeeds(memory=4096 * GIB), set()),
    ],
)
def test_a_step_waits_for_a_runner_that_has_what_it_needs(needs: JobNeeds, takers: set[str]) -> None:
    runners = {
        "small": runner_queues((), (), 4 * GIB),
        "gpu": runner_queues(("cuda",), (), 32 * GIB),
        "tagged": runner_queues((), ("eu", "night"), 32 * GIB),
        "large": runner_queues((), (), 256 * GIB),
    }
    assert {name for name, queues in runners.items() if step_queue(needs) in queues} == takers


def test_steps_are_claimed_within_limits_of_number_and_memory() -> None:
    room = CapacityLimiter(3, 10)
    order: list[str] = []
    let_go = threading.Event()

    def step(name: str, memory: int) -> None:
        with room.reserve(memory):
            order.append(name)
            let_go.wait(30)

    with room.reserve(6):
        waits = threading.Thread(target=step, args=("needs more than is free", 5))
        waits.start()
        with room.reserve(4):
            assert order == []
        assert order == []
    let_go.set()
    waits.join(30)
    assert order == ["needs more than is free"]
    with room.reserve(1_000):  # it runs alone, rather than never
        order.append("needs more than there is")
    assert order[1:] == ["needs more than there is"]


@pytest.mark.parametrize(
    ("cron", "last"),
    [
        ("* * * * *", "2026-01-01 12:34"),
        ("*/15 * * * *", "2026-01-01 12:30"),
        ("0 3 * * *", "2026-01-01 03:00"),
        ("10,50 8-17/4 * * *", "2026-01-01 12:10"),
        ("0 0 * * 3", "2025-12-31 00:00"),  # a Wednesday
        ("0 0 1 * 3", "2026-01-01 00:00"),  # the first, or a Wednesday
        ("0 0 * * 7", None),
        ("35 12 * * *", "2025-12-31 12:35"),
    ],
)
def test_a_schedule_knows_its_last_time(cron: str, last: str | None) -> None:
    until = datetime(2026, 1, 1, 12, 34, 56, tzinfo=UTC)
    found = Cron.parse(cron).last(until - timedelta(days=1, hours=13), until)
    assert (f"{found:%Y-%m-%d %H:%M}" if found else None) == last


def test_a_schedule_submits_once_per_time_and_catches_up_once(registry: LocalRegistry) -> None:
    registry.jobs.schedule("hourly", "0 * * * *", JobOrder(kind="verify", task={}))
    made = registry.jobs.schedules()[0].created_at
    begun = made.replace(minute=30, second=0, microsecond=0) + timedelta(hours=1)

    def jobs_at(moment: datetime) -> int:
        for _ in range(3):  # as if many runners looked
            with registry.catalog.write() as tx:
                schedules.submit_due(tx, moment)
        return len(registry.jobs.list().items)

    assert jobs_at(begun) == 1
    assert jobs_at(begun + timedelta(minutes=29)) == 1
    assert jobs_at(begun + timedelta(minutes=31)) == 2
    assert jobs_at(begun + timedelta(hours=9)) == 3  # no runner was running for hours
    assert jobs_at(begun - timedelta(minutes=20)) == 3  # a clock that was set back
    registry.jobs.unschedule("hourly")
    assert jobs_at(begun + timedelta(hours=12)) == 3


def test_every_kind_of_job_has_a_description_and_a_handler() -> None:
    from adaptry.jobs.dispatch import HANDLERS

    assert HANDLERS.keys() == TASKS.keys()
    assert all(task.summary.endswith(".") for task in TASKS.values())


def begun(registry: LocalRegistry, job: str, runner: str) -> int:
    with registry.catalog.write() as tx:
        found = job_steps.begin_attempt(tx, job, "start", runner, NOW)
    assert found is not None
    return found.attempt


def fenced(registry: LocalRegistry, job: str, turn: int) -> LocalRegistry:
    catalog = job_steps.FencedCatalog(
        registry.catalog, lambda tx: job_steps.require_current(tx, job, "start", turn)
    )
    return LocalRegistry(RegistryContext(catalog, registry.blobs, registry.identity))
