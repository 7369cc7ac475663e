"""Ensures that an engine has only one `adaptry follow`.

Two would unload each other's adapters, and each restart of llama.cpp would remove those of the other.

Until it ends, the process holds a lock in the cache's folder, so that followers with one cache notice each
other, also in several containers. On Linux it also holds a name in the network namespace (an abstract socket,
unix(7)): followers on one machine notice each other whatever their caches are, while in containers with their
own networks, `localhost` is a different engine for each.
"""

from __future__ import annotations

import errno
import hashlib
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

from adaptry.core.errors import Conflict
from adaptry.core.files.locks import FileLock
from adaptry.integrations.serving.cache.engine_holds import EngineAddress


def claim_engine(folder: Path, engine: EngineAddress) -> ExitStack:
    """Claims an engine, in an existing folder and on this machine, whichever name of this machine its address
    uses. The claim ends when the result is closed, or the process ends.

    Raises `Conflict` if another living process follows it; `Unavailable`.
    """
    parts = urlsplit(engine.url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    place = f"{engine.host or parts.hostname}:{port}{parts.path.rstrip('/')}"
    key = hashlib.sha256(place.encode()).hexdigest()[:16]
    lock = FileLock.try_exclusive(folder / f".engine-{key}.lock")
    if lock is None:
        raise _conflict(engine)
    with ExitStack() as claim:
        claim.callback(lock.release)
        if (name := _socket_with_name(f"adaptry-follow-{key}", engine)) is not None:
            claim.enter_context(closing(name))
        return claim.pop_all()


def _socket_with_name(name: str, engine: EngineAddress) -> socket.socket | None:
    """A socket that has the name until it is closed; None on systems without such names. Raises `Conflict` if
    another process has the name."""
    if sys.platform != "linux":
        return None
    with ExitStack() as stack:
        try:
            found = stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)))
            found.bind(f"\0{name}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _conflict(engine) from error
            return None  # a sandbox without Unix sockets
        stack.pop_all()
        return found


def _conflict(engine: EngineAddress) -> Conflict:
    return Conflict(
        f"another `adaptry follow` already manages the adapters of the engine at {engine.url}, and two"
        " would conflict over them: stop that one, or let it follow these refs too (--watch)"
    )
