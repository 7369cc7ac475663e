"""A token that is revoked during a request: nothing looked up before the revocation is returned after it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from adaptry.core.errors import Unauthenticated
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName
from adaptry.registry.events import NameFilter
from adaptry.registry.records import AdapterEdit
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry_api import auth
from adaptry_api.auth import TokenAuthenticator
from adaptry_api.event_stream import EventBroadcaster
from adaptry_api.shutdown import DrainState

ADA = Identity.with_role("ada", "writer", ("acme",))
SHOWN = "Bearer adr_secret"


def test_a_token_revoked_during_its_look_up_is_not_cached() -> None:
    is_asked, is_revoked = threading.Event(), threading.Event()

    def look_up(secret: str) -> Identity:
        if is_revoked.is_set():
            raise Unauthenticated("revoked")
        is_asked.set()
        assert is_revoked.wait(30)
        return ADA  # it was valid when it was looked up

    async def scene() -> None:
        callers = TokenAuthenticator(look_up, anonymous_read=False)
        first = asyncio.ensure_future(callers.identify(SHOWN))
        await asyncio.to_thread(is_asked.wait, 30)
        is_revoked.set()
        callers.clear_cache()
        with pytest.raises(Unauthenticated):
            await callers.identify(SHOWN)
        assert await first == ADA
        with pytest.raises(Unauthenticated):
            await callers.identify(SHOWN)

    asyncio.run(scene())


def test_a_token_in_use_is_looked_up_again_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_RENEWED_SECONDS", auth.BELIEVED_SECONDS + 1)  # at each use
    looked_up: list[str] = []

    def look_up(secret: str) -> Identity:
        looked_up.append(secret)
        if len(looked_up) > 2:
            raise Unauthenticated("revoked")
        return ADA

    async def scene() -> None:
        callers = TokenAuthenticator(look_up, anonymous_read=False)
        key = callers.token_key(SHOWN)
        assert key is not None
        assert await callers.identify(SHOWN) == ADA
        assert callers.identify_key(key) is None, "the look-up takes the token itself"
        assert callers.identify_from_cache(SHOWN) == ADA
        assert callers.identify_key(key) == ADA, "it is being looked up"
        async with asyncio.timeout(30):
            while callers.identify_from_cache(SHOWN) is not None:
                await asyncio.sleep(0)
        assert len(looked_up) == 3
        with pytest.raises(Unauthenticated):
            await callers.identify(SHOWN)

    asyncio.run(scene())


def test_a_sign_in_makes_only_the_tokens_of_its_user_be_looked_up_again() -> None:
    people = {"a": Identity("ann", principal=1), "b": Identity("bob", principal=2)}
    looked_up: list[str] = []

    def look_up(secret: str) -> Identity:
        looked_up.append(secret)
        return people[secret]

    async def scene() -> None:
        callers = TokenAuthenticator(look_up, anonymous_read=False)
        for shown in ("Bearer a", "Bearer b"):
            await callers.identify(shown)
        callers.forget(1)
        assert callers.identify_from_cache("Bearer a") is None
        assert callers.identify_from_cache("Bearer b") == people["b"]
        await callers.identify("Bearer a")
        assert looked_up == ["a", "b", "a"]

    asyncio.run(scene())


def test_a_token_whose_rights_change_during_its_look_up_is_not_cached() -> None:
    is_asked, has_changed = threading.Event(), threading.Event()

    def look_up(secret: str) -> Identity:
        is_asked.set()
        assert has_changed.wait(30)
        return ADA

    async def scene() -> None:
        callers = TokenAuthenticator(look_up, anonymous_read=False)
        first = asyncio.ensure_future(callers.identify(SHOWN))
        await asyncio.to_thread(is_asked.wait, 30)
        callers.forget(7)  # only the look-up knows the token's owner
        has_changed.set()
        assert await first == ADA
        assert callers.identify_from_cache(SHOWN) is None

    asyncio.run(scene())


def test_a_full_cache_drops_the_tokens_that_were_looked_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_MAX_ENTRIES", 2)

    async def scene() -> None:
        callers = TokenAuthenticator(lambda secret: ADA, anonymous_read=False)
        for shown in ("Bearer a", "Bearer b", "Bearer c"):
            await callers.identify(shown)
        known = [callers.identify_from_cache(f"Bearer {name}") is not None for name in "abc"]
        assert known == [False, True, True]

    asyncio.run(scene())


def test_a_caller_revoked_during_a_read_gets_no_events() -> None:
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs()))
    registry.adapters.create(AdapterName.parse("acme/unheard"), AdapterEdit())
    answers = iter([ADA])

    async def identify() -> Identity:
        try:
            return next(answers)
        except StopIteration:
            raise Unauthenticated("revoked") from None

    async def scene() -> None:
        listening = EventBroadcaster(registry.catalog, DrainState())
        with pytest.raises(Unauthenticated):
            await listening.next_events(identify, 0, 50, 0.0, NameFilter(()))
        await listening.close()

    asyncio.run(scene())
    registry.close()


def test_an_unchanged_identity_stays_the_same_object_when_it_is_looked_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auth, "BELIEVED_SECONDS", 0.0)
    roles = iter(("writer", "writer", "reader"))
    callers = TokenAuthenticator(
        lambda secret: Identity.with_role("ada", next(roles), ("acme",)), anonymous_read=False
    )

    async def scene() -> None:
        first = await callers.identify(SHOWN)
        assert await callers.identify(SHOWN) is first  # so answers cached for it stay valid
        assert (await callers.identify(SHOWN)).role == "reader"

    asyncio.run(scene())
