"""Ensures that an engine has only one `adaptry follow`.

Two would unload each other's adapters, and each restart of llama.cpp would remove those of the other.

The process holds a lock in the cache's folder until it ends, so followers with one cache notice each other.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from adaptry.core.errors import Conflict
from adaptry.core.files.locks import FileLock
from adaptry.integrations.serving.cache.engine_holds import EngineAddress


def claim_engine(folder: Path, engine: EngineAddress) -> FileLock:
    """Claims an engine in an existing folder, whatever name of this machine its address has.

    Raises `Conflict` if another living process follows it; `Unavailable`.
    """
    parts = urlsplit(engine.url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    place = f"{engine.host or parts.hostname}:{port}{parts.path.rstrip('/')}"
    lock = FileLock.try_exclusive(folder / f".engine-{hashlib.sha256(place.encode()).hexdigest()[:16]}.lock")
    if lock is None:
        raise Conflict(
            f"another `adaptry follow` already manages the adapters of the engine at {engine.url}, and two"
            " would conflict over them: stop that one, or let it follow these refs too (--watch)"
        )
    return lock
