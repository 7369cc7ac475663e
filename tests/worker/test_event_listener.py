"""Listening to a registry's events on an event loop: only the relevant ones are reported."""

from __future__ import annotations

import asyncio

from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.event_listener import EventListener
from adaptry.registry.records import AdapterEdit
from adaptry.storage.local import LocalRegistry

TONE = AdapterName.parse("acme/tone")


def test_only_events_of_the_selected_namespaces_are_received(registry: LocalRegistry) -> None:
    async def test() -> None:
        ear = EventListener(registry)
        ear.subscribe([TONE])
        assert await ear.wait(60) == frozenset()  # earlier events are unknown, so everything must be checked
        for name in ("other/tone", "acme/voice"):
            await asyncio.to_thread(registry.adapters.create, AdapterName.parse(name), AdapterEdit())
        assert await ear.wait(60) == {AdapterName.parse("acme/voice")}

    asyncio.run(test())


def test_a_renamed_adapters_events_are_found_under_both_names(registry: LocalRegistry) -> None:
    registry.adapters.create(TONE, AdapterEdit())

    async def test() -> None:
        ear = EventListener(registry)
        ear.subscribe([TONE])
        await ear.wait(60)
        await asyncio.to_thread(registry.adapters.rename, TONE, AdapterName.parse("other/tone"))
        assert await ear.wait(60) == {TONE, AdapterName.parse("other/tone")}

    asyncio.run(test())


def test_without_names_of_interest_no_request_is_sent(registry: LocalRegistry) -> None:
    async def test() -> None:
        ear = EventListener(registry)
        ear.subscribe([])
        assert await ear.wait(0.05) == frozenset()

    asyncio.run(test())
