"""Keeps the cache's holds in step with an engine's adapters, so that no file that it may read is deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from adaptry.core.errors import Unavailable
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engines import Engine, EngineAdapter


def release_unused(cache: Cache, engine: Engine, loaded: Sequence[EngineAdapter]) -> None:
    """Ends the leases and holds on versions that the engine no longer has, given the adapters `loaded` now.

    A version keeps its hold while a request uses a name that it was loaded under, unless that name already
    belongs to another version. Versions that the engine has without a hold, such as those that an earlier
    worker loaded, get one. Raises `Unavailable` if the engine does not answer.
    """
    readable = engine.readable_digests(loaded)
    listed = {one.name: one.digest for one in loaded}
    held = dict(cache.holds_of(engine.address))
    unlisted = [] if readable is None else [digest for digest in held if digest not in readable]
    busy = engine.names_in_use() if unlisted else frozenset()
    for digest in unlisted:
        names = held[digest].names
        if not any(name in busy and listed.get(name, digest) == digest for name in names):
            cache.release_hold(digest, engine.address)
            del held[digest]
    for one in loaded:
        if one.digest is not None and one.digest not in held and cache.has_files(one.digest):
            with contextlib.suppress(Unavailable):  # a full disk: the next pass tries again
                cache.hold(one.digest, engine.address, one.name)
    loaded_digests = {one.digest for one in loaded}
    for entry in cache.entries():
        if entry.digest not in loaded_digests:
            cache.release(entry.digest)
