"""Contract of the event feed: a reader that continues from its last number gets every event that it may see,
and can wait for new ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from adaptry.core.errors import Invalid
from adaptry.core.identity import ANONYMOUS, LOCAL
from adaptry.core.refs import AdapterName, Number, Ref
from adaptry.operations.transfer import push
from adaptry.operations.watch import RefChange, RefWatcher
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, Event, EventBatch, PushOptions, StateChange
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

LONG = 60.0
"""Seconds; a wait this long ends only because of an event."""
VOICE = AdapterName.parse("acme/voice")


class EventsContract(ContractFixtures):
    """`events`, and `operations.watch`, which builds on it."""

    def test_events_are_delivered_in_order_with_the_fields_a_watcher_needs(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        digest = push(registry, lora(), TONE, options=PushOptions(alias="prod")).version.digest
        registry.versions.set_state(TONE, digest, StateChange(state="yanked", reason="for a test"), was=0)
        registry.aliases.remove(TONE, "prod", was=1)
        happened = all_events(registry)
        assert [event.seq for event in happened] == sorted(event.seq for event in happened)
        assert {event.name for event in happened} == {TONE}
        pushed, moved, yanked, removed = happened[-4:]
        assert [event.kind for event in happened[-4:]] == [
            "version.pushed",
            "alias.moved",
            "version.yanked",
            "alias.removed",
        ]
        assert [event.number for event in happened[-4:]] == [1, 1, 1, 1]
        assert pushed.detail["digest"] == moved.detail["to"] == yanked.detail["digest"] == str(digest)
        assert moved.detail["alias"] == removed.detail["alias"] == "prod"

    def test_pages_of_events_continue_after_the_last_number(self, registry: Registry) -> None:
        for name in ("a", "b", "c"):
            registry.adapters.create(AdapterName("acme", name), AdapterEdit())
        first = registry.events.read(0, limit=2)
        second = registry.events.read(first.seq, limit=2)
        assert [str(event.name) for event in (*first.items, *second.items)] == ["acme/a", "acme/b", "acme/c"]
        assert registry.events.read(second.seq) == EventBatch(seq=second.seq, epoch=first.epoch)

    def test_reading_from_now_returns_no_earlier_events(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        now = registry.events.read()
        assert now.items == ()
        registry.adapters.create(VOICE, AdapterEdit())
        assert [event.name for event in registry.events.read(now.seq).items] == [VOICE]

    def test_a_future_event_number_reports_that_the_registry_was_restored(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        now = registry.events.read()
        assert registry.events.read(now.seq + 100, wait=LONG) == now

    def test_a_wait_ends_with_the_first_event(self, make_registry: MakeRegistry) -> None:
        waiting, acting = make_registry(ADA), make_registry(LOCAL)
        start = waiting.events.read().seq
        with wait_in_background(lambda: waiting.events.read(start, wait=LONG)) as heard:
            acting.adapters.create(TONE, AdapterEdit())
        assert [event.kind for event in heard.result().items] == ["adapter.created"]

    def test_a_wait_from_now_on_ends_with_the_first_event(self, make_registry: MakeRegistry) -> None:
        waiting, acting = make_registry(ADA), make_registry(LOCAL)
        waiting.events.read()
        with wait_in_background(lambda: waiting.events.read(wait=LONG)) as heard:
            # The event may precede the wait, so it is repeated until the wait receives one.
            for number in range(10_000):
                acting.adapters.create(AdapterName("acme", f"tone-{number}"), AdapterEdit())
                if heard.done():
                    break
        assert heard.result().items

    def test_a_wait_without_events_ends(self, registry: Registry) -> None:
        start = registry.events.read()
        assert registry.events.read(start.seq, wait=0.01) == start

    def test_all_waiting_listeners_get_an_event(self, make_registry: MakeRegistry) -> None:
        registry = make_registry(ADA)
        start = registry.events.read().seq
        with ThreadPoolExecutor(8) as pool:
            heard = [pool.submit(registry.events.read, start, 50, LONG) for _ in range(8)]
            make_registry(LOCAL).adapters.create(TONE, AdapterEdit())
            assert {one.result(LONG).items[0].name for one in heard} == {TONE}

    def test_listeners_get_no_events_of_adapters_they_cannot_read(self, make_registry: MakeRegistry) -> None:
        make_registry(ADA).adapters.create(TONE, AdapterEdit())
        make_registry(ADA).adapters.create(VOICE, AdapterEdit(visibility="public"))
        names = {
            who.name: {event.name for event in all_events(make_registry(who))}
            for who in (RON, EVE, ANONYMOUS)
        }
        assert names == {"ron": {TONE, VOICE}, "eve": {VOICE}, "anonymous": {VOICE}}

    def test_a_public_adapter_does_not_publish_the_events_of_a_deleted_one_of_its_name(
        self, make_registry: MakeRegistry
    ) -> None:
        ada = make_registry(ADA)
        ada.adapters.create(TONE, AdapterEdit(description="secret"))
        ada.adapters.delete(TONE)
        ada.adapters.create(TONE, AdapterEdit(visibility="public"))
        kinds = {
            who.name: (
                [event.kind for event in all_events(make_registry(who))],
                [event.kind for event in make_registry(who).adapters.history(TONE).items],
            )
            for who in (RON, EVE, ANONYMOUS)
        }
        created, deleted = "adapter.created", "adapter.deleted"
        public = ([created], [created])
        assert kinds == {
            "ron": ([created, deleted, created], [created, deleted, created]),
            "eve": public,
            "anonymous": public,
        }

    def test_an_event_hidden_from_the_caller_ends_no_wait(self, make_registry: MakeRegistry) -> None:
        eve, ada = make_registry(EVE), make_registry(ADA)
        start = eve.events.read().seq
        with wait_in_background(lambda: eve.events.read(start, wait=LONG)) as heard:
            ada.adapters.create(TONE, AdapterEdit())
            eve.adapters.create(AdapterName.parse("evil/tone"), AdapterEdit())
        assert [str(event.name) for event in heard.result().items] == ["evil/tone"]

    def test_globs_select_the_adapters_of_events(self, registry: Registry) -> None:
        for name in ("acme/tone", "acme/voice", "other/tone"):
            registry.adapters.create(AdapterName.parse(name), AdapterEdit())
        told = [
            {str(event.name) for event in registry.events.read(0, adapters=globs).items}
            for globs in (
                ("acme/*",),
                ("*/tone", "acme/v*"),
                ("acme/?",),
                ("acme/tone", "o*/[t]one"),
                ("acme/ton", "*"),
            )
        ]
        everything = {"acme/tone", "acme/voice", "other/tone"}
        assert told == [
            {"acme/tone", "acme/voice"}, everything, set(), {"acme/tone", "other/tone"}, everything
        ]  # fmt: skip

    def test_events_are_filtered_by_many_namespaces_and_few_long_globs(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        namespaces = tuple(f"{'n' * 90}{number:02}/*" for number in range(63))
        assert [event.name for event in registry.events.read(0, adapters=(*namespaces, "acme/*")).items] == [
            TONE
        ]
        with pytest.raises(Invalid, match="512 characters together"):
            registry.events.read(0, adapters=("?" * 171,) * 3)

    def test_listeners_to_a_name_get_its_rename(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        seen = registry.events.read().seq
        registry.adapters.rename(TONE, AdapterName.parse("other/tone"))
        (event,) = registry.events.read(seen, adapters=("acme/*",)).items
        assert (str(event.name), event.detail["was"]) == ("other/tone", str(TONE))

    @pytest.mark.parametrize(
        ("after", "limit", "wait", "adapters"),
        [
            (-1, 50, 0, ()),
            (2**63, 50, 0, ()),
            (0, 0, 0, ()),
            (0, 201, 0, ()),
            (0, 50, -1, ()),
            (0, 50, math.nan, ()),
            (0, 50, math.inf, ()),
            (0, 50, 0, ("*",) * 65),
            (0, 50, 0, ("*" * 201,)),
        ],
    )
    def test_invalid_event_filters_are_refused(
        self, registry: Registry, after: int, limit: int, wait: float, adapters: tuple[str, ...]
    ) -> None:
        with pytest.raises(Invalid):
            registry.events.read(after, limit, wait, adapters)

    def test_a_watch_returns_the_current_state_and_then_its_changes(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        first = push(registry, lora(1), TONE, options=PushOptions(alias="prod")).version
        push(registry, lora(3), AdapterName.parse("other/tone"), options=PushOptions(alias="prod"))
        watch = RefWatcher(registry, ["acme/*@prod", "acme/tone@1"])
        assert [
            (change.ref, change.now and change.now.number, change.was) for change in watch.next_changes()
        ] == [
            ("acme/tone@1", 1, None),
            ("acme/tone@prod", 1, None),
        ]
        second = push(registry, lora(2), TONE).version
        registry.metrics.log(Ref(TONE, Number(first.number)), {"accuracy": 0.5})
        registry.aliases.move(TONE, "prod", second.digest, was=1)
        assert next_changes(watch) == [("acme/tone@prod", 2)]
        registry.versions.set_state(
            TONE, second.digest, StateChange(state="revoked", reason="for a test"), was=0
        )
        assert next_changes(watch) == [("acme/tone@prod", 2)]
        assert watch.versions["acme/tone@prod"].state == "revoked"
        registry.aliases.remove(TONE, "prod", was=2)
        assert next_changes(watch) == [("acme/tone@prod", None)]
        assert watch.versions.keys() == {"acme/tone@1"}

    def test_a_watch_follows_renames(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(), TONE, options=PushOptions(alias="prod"))
        watch = RefWatcher(registry, ["*/*@*"])
        watch.next_changes()
        registry.adapters.rename(TONE, VOICE)
        assert next_changes(watch) == [("acme/tone@prod", None), ("acme/voice@prod", 1)]
        registry.aliases.remove(VOICE, "prod", was=1)
        registry.adapters.delete(VOICE)
        assert next_changes(watch) == [("acme/voice@prod", None)]


def all_events(registry: Registry) -> list[Event]:
    """All events that the caller may see, page by page."""
    found: list[Event] = []
    after = -1
    news = registry.events.read(0)
    while news.seq > after:
        found += news.items
        after = news.seq
        news = registry.events.read(after)
    return found


@contextmanager
def wait_in_background(wait: Callable[[], EventBatch]) -> Iterator[Future[EventBatch]]:
    """Runs a wait in another thread; it must end within the block."""
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(wait)
        yield heard
        heard.result(LONG)


def next_changes(watch: RefWatcher) -> list[tuple[str, int | None]]:
    """The next non-empty changes, each with the version's number."""
    changes: tuple[RefChange, ...] = ()
    while not changes:
        changes = watch.next_changes(LONG)
    return [(change.ref, change.now.number if change.now else None) for change in changes]
