"""A cache of the SHA-256 of computed files, by tag, with one small file each in a folder.

A file is hashed while it is read from its beginning; a reader that resumes after a broken connection also
resumes the hash. If an entry is lost, the file is read once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid

_HALF_WAY = 64  # partially read files whose hash is kept


class FileHashCache:
    """Safe for use by many threads, and by many processes that share the folder. Creates the folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._known: dict[Digest, Digest] = {}
        self._begun: OrderedDict[Digest, RunningHash] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tag: Digest) -> Digest | None:
        """The SHA-256 of the file with this tag; None if it has never been read completely."""
        if tag not in self._known:
            try:
                self._known[tag] = Digest.parse((self._folder / tag.hex).read_text("ascii"))
            except (OSError, ValueError, Invalid):
                return None
        return self._known[tag]

    @contextlib.contextmanager
    def hash_stream(self, tag: Digest, size: int, start: int) -> Iterator[RunningHash | None]:
        """The function to call with the bytes from `start` on, in order; None if the hash is known or cannot
        be computed from them.
        """
        running = None if self.get(tag) else self._resume(tag, start)
        try:
            yield running
        finally:
            if running is not None and running.position == size:
                self._remember(tag, running.digest())
            elif running is not None:
                self._suspend(tag, running)

    def _resume(self, tag: Digest, start: int) -> RunningHash | None:
        with self._lock:
            begun = self._begun.get(tag)
            if begun is not None and begun.position >= start:
                del self._begun[tag]
                begun.skip = begun.position - start
                return begun
        return RunningHash() if start == 0 else None

    def _suspend(self, tag: Digest, running: RunningHash) -> None:
        with self._lock:
            other = self._begun.get(tag)
            if other is None or other.position < running.position:
                self._begun[tag] = running
            while len(self._begun) > _HALF_WAY:
                self._begun.popitem(last=False)

    def _remember(self, tag: Digest, sha256: Digest) -> None:
        self._known[tag] = sha256
        place = self._folder / f".{secrets.token_hex(8)}"
        with contextlib.suppress(OSError):  # the digest is still cached in memory
            place.write_text(str(sha256), "ascii")
            place.replace(self._folder / tag.hex)


class RunningHash:
    """The hash of a file's first `position` bytes; the next `skip` bytes of the input are already in the
    hash."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.position = 0
        self.skip = 0

    def update(self, data: memoryview | bytes) -> None:
        fresh = memoryview(data)[self.skip :]
        self.skip = max(0, self.skip - len(data))
        self._hash.update(fresh)
        self.position += len(fresh)

    def digest(self) -> Digest:
        return Digest(self._hash.hexdigest())
