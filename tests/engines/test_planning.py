"""Plans: from any state of an engine to any desired state, the steps respect the number of slots, avoid gaps
where possible, and reach the desired state.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.engines import EngineAdapter, RequestCounts
from adaptry.integrations.serving.follow.plan import (
    ActualAdapter,
    DesiredAdapter,
    FollowPlan,
    LoadAction,
    SwapAction,
    UnloadAction,
    plan_actions,
)
from adaptry.integrations.serving.follow.problem_rank import ranked_problems
from adaptry.integrations.serving.worker.backoff import Backoff
from adaptry.integrations.serving.worker.status_report import WorkerIdentity, build_report
from adaptry.registry.records import VersionInfo

NAMES = [f"acme/{letter}@prod" for letter in "abcdef"]
DIGESTS = [Digest.of(bytes([number])) for number in range(5)]
names, digests = st.sampled_from(NAMES), st.sampled_from(DIGESTS)


def version(digest: Digest) -> VersionInfo:
    return VersionInfo(
        name=AdapterName.parse("acme/a"),
        number=DIGESTS.index(digest) + 1,
        digest=digest,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        created_by="ada",
        method="lora",
        weights=digest,
    )


wanted_sets = st.dictionaries(names, st.tuples(digests, st.booleans())).map(
    lambda chosen: [DesiredAdapter(name, version(digest), first) for name, (digest, first) in chosen.items()]
)
had_sets = st.dictionaries(names, st.tuples(digests, st.booleans())).map(
    lambda chosen: [ActualAdapter(name, digest, is_ours) for name, (digest, is_ours) in chosen.items()]
)
slot_counts = st.none() | st.integers(1, 6)


def carried_out(
    had: Sequence[ActualAdapter], made: FollowPlan, slots: int | None
) -> dict[str, Digest | None]:
    """The engine's final adapters; checks that it never had more than there are slots, unless it had more at
    first.
    """
    now = {one.served_as: one.digest for one in had}
    most = max(slots or len(NAMES), len(now))
    for step in made.actions:
        match step:
            case UnloadAction(one):
                assert now.pop(one.served_as) == one.digest
            case LoadAction(one):
                assert one.served_as not in now
                now[one.served_as] = one.digest
            case SwapAction(one, was):
                assert now[one.served_as] == was.digest != one.digest
                now[one.served_as] = one.digest
        assert len(now) <= most
    return now


@given(wanted_sets, had_sets, slot_counts, st.sets(digests, max_size=2))
def test_a_plan_reaches_the_desired_state_within_the_slots(
    wanted: list[DesiredAdapter], had: list[ActualAdapter], slots: int | None, withdrawn: set[Digest]
) -> None:
    made = plan_actions(wanted, had, slots, withdrawn)
    now = carried_out(had, made, slots)
    assert not withdrawn & set(now.values())
    usable = {one.served_as: one.digest for one in wanted if one.digest not in withdrawn}
    left_out = {one.served_as for one in made.without_slot}
    foreign = {one.served_as for one in had if not one.is_ours and one.digest not in withdrawn}
    assert now.keys() == (usable.keys() - left_out) | (foreign - usable.keys())
    assert all(now[name] == digest for name, digest in usable.items() if name not in left_out)
    assert slots is not None or not left_out
    after = [ActualAdapter(name, digest, name not in foreign) for name, digest in now.items()]
    assert plan_actions(wanted, after, slots, withdrawn).actions == ()


@given(wanted_sets, had_sets, slot_counts)
def test_names_of_higher_priority_are_left_out_last(
    wanted: list[DesiredAdapter], had: list[ActualAdapter], slots: int | None
) -> None:
    made = plan_actions(wanted, had, slots)
    if any(one.is_preloaded for one in made.without_slot):
        taken = {one.served_as for one in wanted} - {one.served_as for one in made.without_slot}
        assert all(one.is_preloaded for one in wanted if one.served_as in taken)


def test_with_a_free_slot_loading_precedes_unloading() -> None:
    wanted = [DesiredAdapter("acme/b@prod", version(DIGESTS[1]))]
    had = [ActualAdapter("acme/a@prod", DIGESTS[0], True)]
    assert [type(step) for step in plan_actions(wanted, had, slots=2).actions] == [LoadAction, UnloadAction]
    assert [type(step) for step in plan_actions(wanted, had, slots=1).actions] == [UnloadAction, LoadAction]


def test_failures_are_retried_at_growing_intervals() -> None:
    now = 0.0
    failures = Backoff(lambda: now)
    place = ("acme/a@prod", DIGESTS[0])
    waited = []
    for _ in range(8):
        failures.record_failure(place, "no")
        began = now
        while failures.is_blocked(place):
            now += 10.0
        waited.append(now - began)
    assert waited == [30, 60, 120, 240, 480, 900, 900, 900]
    failures.record_success(place)
    assert failures.failure_reason(place) is None


def test_errors_count_since_a_version_is_served_and_not_from_before() -> None:
    failures = Backoff()
    place = ("acme/a@prod", DIGESTS[0])
    assert failures.check_error_rate(place, None) is None
    assert failures.check_error_rate(place, RequestCounts(1000, 900)) is None
    assert failures.check_error_rate(place, RequestCounts(1002, 902)) is None
    assert failures.check_error_rate(place, RequestCounts(1100, 903)) is None
    assert failures.check_error_rate(place, RequestCounts(1100, 910)) == (
        "10 of 100 requests to the engine have failed since it began to serve the version"
    )
    assert failures.check_error_rate(place, RequestCounts(5, 5)) is None


@given(st.permutations(range(4)), st.integers(1, 3))
def test_slots_go_to_pinned_names_then_to_preloaded_ones_then_to_those_used_last(
    uses: list[int], slots: int
) -> None:
    wanted = [
        DesiredAdapter(name, version(DIGESTS[0]), last_used=float(use) if use else None)
        for name, use in zip(NAMES, uses, strict=False)
    ]
    wanted.append(DesiredAdapter(NAMES[4], version(DIGESTS[0]), is_preloaded=True))
    wanted.append(DesiredAdapter(NAMES[5], version(DIGESTS[0]), is_pinned=True))
    by_use = sorted((one for one in wanted[:4] if one.last_used), key=lambda one: -(one.last_used or 0))
    never = [one for one in wanted[:4] if not one.last_used]
    order = [NAMES[5], NAMES[4], *(one.served_as for one in (*by_use, *never))]
    made = plan_actions(wanted, [], slots)
    assert [one.desired.served_as for one in made.actions if isinstance(one, LoadAction)] == order[:slots]
    assert [one.served_as for one in made.without_slot] == order[slots:]


def test_an_unrequested_name_takes_no_slot_from_a_loaded_one() -> None:
    had = [ActualAdapter(NAMES[1], DIGESTS[0], is_ours=True)]
    wanted = [DesiredAdapter(name, version(DIGESTS[0])) for name in NAMES[:2]]
    assert plan_actions(wanted, had, 1).actions == ()


def test_a_report_has_the_most_serious_problems_and_the_number_of_the_others() -> None:
    """First come names that the engine does not have, then those with another version, then those without a
    slot.
    """
    waiting = [DesiredAdapter(f"acme/a{number:03}@prod", version(DIGESTS[0])) for number in range(200)]
    stale = [f"acme/m{number}@prod" for number in range(100)]
    problems = dict.fromkeys((*stale, "acme/z@prod", "acme/y@prod"), "it failed")
    ranked = ranked_problems(problems, [EngineAdapter(name, "") for name in stale], waiting, 102)
    report = build_report(
        WorkerIdentity("gpu-1", "vllm"), None, None, last_event=None, names=(), residents=(), problems=ranked
    )
    found = [one.served_as for one in report.problems]
    assert found[:2] == ["acme/y@prod", "acme/z@prod"]
    assert found[2:102] == sorted(stale)
    assert found[102:] == [*(one.served_as for one in waiting[:153]), "(47 other names)"]
    assert "no slot is free for acme/a@1 (102 are in use)" in report.problems[102].reason
