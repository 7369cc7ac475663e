"""Stacks in a cache: made at their first use, and leased by the processes that use them.

A stack counts towards the cache's size like a version. When no process leases it, it is deleted,
because it can be made again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.files.atomic_dir import atomic_directory
from adaptry.core.files.durable import write_error
from adaptry.core.files.locks import FileLock
from adaptry.integrations.serving.cache.eviction import Evictor
from adaptry.integrations.serving.cache.layout import FILES, file_stamps
from adaptry.integrations.serving.cache.stack_layout import METADATA_FILE, StackMetadata

WriteStack = Callable[[Path, Callable[[int], None]], None]
"""Fills an empty folder. Before it writes, it calls the second argument with the bytes it may need."""


class StackFolders:
    """The stacks of a cache, within the size that `evictor` keeps. Safe for many threads, and safe for many
    processes that share the folder."""

    def __init__(self, evictor: Evictor) -> None:
        self._evictor = evictor
        self._layout = evictor.layout.stacks
        self._guard = threading.Lock()
        self._leases: dict[str, FileLock] = {}

    def lease(self, key: str, parts: Sequence[Digest], write: WriteStack) -> Path:
        """The folder of the stack, which `write` makes if it is missing. The lease lasts until `release`,
        which must be called after an error too. Raises the errors of `write`; `StorageFull`, `Unavailable`.
        """
        self._lock_shared(key)
        filling = FileLock.acquire_exclusive(self._layout.fill_lock(key))
        try:
            self._ensure_present(key, parts, write)
        finally:
            self._layout.end_reservation(key)
            filling.remove()
        return self._layout.folder(key) / FILES

    def release(self, key: str) -> None:
        """Ends this object's lease, and deletes the stack unless another process leases it. Idempotent."""
        with self._guard:
            lease = self._leases.pop(key, None)
        if lease is not None:
            lease.release()
            self._layout.discard_if_unused(key)

    def has_part(self, digest: Digest) -> bool:
        """Whether the weights of a version are in any stack here."""
        return any(digest in about.parts for _, about in self._layout.all())

    def discard_unused(self, part: Digest) -> None:
        """Deletes the stacks with this part that no process leases."""
        self._layout.discard_unused(part)

    def sizes(self) -> tuple[int, ...]:
        """The size of each stack in bytes."""
        return self._layout.sizes()

    def _ensure_present(self, key: str, parts: Sequence[Digest], write: WriteStack) -> None:
        folder = self._layout.folder(key)
        about = self._layout.read(key)
        if about is not None and dict(file_stamps(folder)) == about.stamps:
            return
        with atomic_directory(folder, replace=True, require_replaceable=lambda *_: None) as place:
            (place / FILES).mkdir()
            write(place / FILES, lambda size: self._evictor.reserve_stack(key, size))
            made = StackMetadata(parts=tuple(parts), stamps=dict(file_stamps(place)))
            (place / METADATA_FILE).write_text(made.model_dump_json())

    def _lock_shared(self, key: str) -> None:
        root = self._layout.root
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, root) from error
        with self._guard:
            if key not in self._leases:
                self._leases[key] = FileLock.acquire_shared(self._layout.lease_file(key))
