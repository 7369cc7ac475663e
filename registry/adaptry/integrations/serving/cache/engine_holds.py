"""Holds: records on disk of the engines that may read an entry of the cache again.

A lease ends with its process. But an engine may read the files of a loaded adapter again long after that
process has ended: vLLM loads an evicted adapter from its folder again, and exits if the folder no longer
exists. So a hold is written before an engine gets a version, and removed only when the engine no longer has
the version, or is known to have ended. Each version and engine has one small file; an unreadable file counts
as a hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from adaptry.core.digest import Digest
from adaptry.core.files.durable import flush_folder, write_error
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.cache.layout import CacheLayout

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """An engine that loads from a cache. `reads_at_start`: it is started with a list of files, so it may read
    them again after a restart, too.

    Two containers may both call their engine `localhost`, so such an address is valid on one host only.
    """

    engine: str
    url: str
    reads_at_start: bool = False

    @property
    def host(self) -> str | None:
        """This machine's name if the address means this machine; else None."""
        return socket.gethostname() if _is_loopback(self.url) else None

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.host or ''} {self.url}".encode()).hexdigest()[:16]


class EngineHold(BaseModel):
    """A version that an engine may read again: its label, and the names under which it was loaded. `boot` is
    the machine's boot id, if the engine runs on this machine."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    engine: str
    url: str
    host: str | None = None
    boot: str | None = None
    reads_at_start: bool = False
    version: str = ""
    names: tuple[str, ...] = ()
    since: datetime

    @classmethod
    def new(cls, engine: EngineAddress, version: str, names: tuple[str, ...]) -> Self:
        host = engine.host
        return cls(
            engine=engine.engine,
            url=engine.url,
            host=host,
            boot=_boot_id() if host else None,
            reads_at_start=engine.reads_at_start,
            version=version,
            names=names,
            since=datetime.now(UTC),
        )

    @property
    def address(self) -> str:
        """The engine's URL; if it is a loopback address, followed by the host: `http://… on gpu-1`."""
        return f"{self.url} on {self.host}" if self.host else self.url

    @property
    def engine_label(self) -> str:
        return f"{self.engine} at {self.address}"

    def is_of(self, address: str) -> bool:
        """Whether this is a hold of the engine at `address`; an address without a host means this host."""
        is_here = self.host in (None, socket.gethostname())
        return address == self.address or (is_here and address == self.url)

    @property
    def is_over(self) -> bool:
        """Whether the machine has been restarted since, so that the engine's process is gone."""
        boot = _boot_id()
        return not self.reads_at_start and None not in (self.boot, boot) and self.boot != boot


def hold(layout: CacheLayout, digest: Digest, engine: EngineAddress, version: str, name: str) -> None:
    """Holds a version for an engine that is about to load it under `name`. It is durable before this returns.

    Raises `StorageFull`, `Unavailable`.
    """
    path = layout.held_folder(digest) / engine.key
    known = _read(path)
    if known is not None and name in known.names and known.engine == engine.engine and not known.is_over:
        return
    names = (*known.names, name) if known is not None and not known.is_over else (name,)
    text = EngineHold.new(engine, version, names).model_dump_json()
    for attempt in range(_MAX_ATTEMPTS):
        try:
            _write(path, text)
            return
        except (FileNotFoundError, FileExistsError) as error:
            # Another process removes the folder with its last hold: before the file is created, or while
            # `mkdir` checks whether the existing path is a folder.
            if attempt == _MAX_ATTEMPTS - 1:
                raise write_error(error, path) from error
        except OSError as error:
            raise write_error(error, path) from error


def release(layout: CacheLayout, digest: Digest, key: str) -> None:
    """Ends an engine's hold. Without a hold, this has no effect."""
    folder = layout.held_folder(digest)
    (folder / key).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other holds are in it, or it is gone
        folder.rmdir()


def find(layout: CacheLayout, digest: Digest) -> tuple[EngineHold, ...]:
    """The holds on a version."""
    return tuple(found for _, found in _holds(layout.held_folder(digest)))


def all_holds(layout: CacheLayout) -> Iterator[tuple[Digest, str, EngineHold]]:
    """Every hold with its version's digest and its engine's key."""
    for digest, folder in layout.held_folders():
        for key, found in _holds(folder):
            yield digest, key, found


def sweep(layout: CacheLayout) -> None:
    """Removes holds that are over."""
    for digest, key, found in list(all_holds(layout)):
        if found.is_over:
            release(layout, digest, key)


def _holds(folder: Path) -> Iterator[tuple[str, EngineHold]]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(".") and (found := _read(path)) is not None:
                yield path.name, found


def _read(path: Path) -> EngineHold | None:
    """Reads a hold; None if there is no file. A file that cannot be read counts as a hold of an unknown
    engine.
    """
    try:
        return EngineHold.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        return EngineHold(engine="an unknown engine", url=path.name, since=datetime.fromtimestamp(0, UTC))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
        flush_folder(path.parent.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _boot_id() -> str | None:
    """An id that stays the same until the machine is restarted; None if the system has no such id."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
