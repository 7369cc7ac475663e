"""Names of workers in engines, unique among the running engines of a machine.

The process holds a lock on its name in the cache's folder until it ends. So an engine that restarts gets its
previous name and state file again.
"""

from __future__ import annotations

import hashlib
import re
import socket
from pathlib import Path

from adaptry.core.errors import Conflict
from adaptry.core.files.durable import write_error
from adaptry.core.files.locks import FileLock
from adaptry.core.lazy_dataclass import dataclass

_MAX_BYTES = 256


@dataclass(frozen=True, slots=True)
class NameClaim:
    """A name that is held until the process ends, and the file for the worker's state."""

    name: str
    state_path: Path
    lock: FileLock


def claim_name(folder: Path, engine: str, configured: str | None = None) -> NameClaim:
    """Claims `configured`, else the first free one of `HOST-ENGINE-CACHE`, `…-2`, `…-3`.

    Raises `Conflict` if another living process holds `configured`; `StorageFull`, `Unavailable`.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, folder) from error
    if configured:
        claim = _try_claim(folder, configured)
        if claim is None:
            raise Conflict(
                f"another process with this cache reports as {configured}: stop it if it serves the same"
                " engine, or give this one another name (ADAPTRY_WORKER, or --name of `adaptry follow`)"
            )
        return claim
    first = _default_name(folder, engine)
    for number in range(1, _MAX_BYTES):
        if claim := _try_claim(folder, first if number == 1 else f"{first}-{number}"):
            return claim
    raise Conflict(
        f"{_MAX_BYTES} engines on this machine report as {first}-N; name this one (ADAPTRY_WORKER)"
    )


def _try_claim(folder: Path, name: str) -> NameClaim | None:
    lock = FileLock.try_exclusive(folder / f".worker-{name}.lock")
    return NameClaim(name, folder / f"worker-{name}.json", lock) if lock else None


def _default_name(folder: Path, engine: str) -> str:
    """The name without a number. It contains a digest of the cache's folder, since other caches have other
    locks."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:60].strip("-._") or "host"
    return f"{host}-{engine}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"
