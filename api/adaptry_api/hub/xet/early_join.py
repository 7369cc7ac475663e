"""Stores the first weights file of a Xet upload while its xorbs arrive.

Only the shard, which comes last, lists the chunks of a file. But clients send chunks in the order of the
file, so the bytes of the xorbs, in the order in which their requests began, usually are the file. They are
copied into an upload without a digest (`storage/local/unhashed_uploads`), which hashes and inspects them
while the client prepares the next xorb. The shard decides: if other bytes were copied, they are dropped, and
the file is joined as usual.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore, Condition, Lock, Thread

from adaptry.core.errors import AdaptryError
from adaptry.core.refs import AdapterName
from adaptry.registry.uploads import Uploads
from adaptry.registry.versions import MAX_SENT
from adaptry_api.hub.xet.reassembly import JoinedFile, ReadStored, read_spooled
from adaptry_api.hub.xet.stored_xorb import Run, StoredXorb, merge_runs
from adaptry_api.hub.xet.xorb import MAX_CHUNK_BYTES, MAX_XORB_BYTES

IDLE_SECONDS = 60.0
"""Seconds without another xorb after which an upload is considered abandoned."""
_MOST = 4  # files stored early at once, with a thread each
_KNOWN = 64  # uploads whose xorbs are followed
_LONGEST_HEADER = 1 << 20
_ENDS = re.compile(rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*(\d{1,15})\s*\]')
_FULL = MAX_XORB_BYTES - MAX_CHUNK_BYTES
_places = BoundedSemaphore(_MOST)


class EarlyJoins:
    """The uploads of one server process whose xorbs are arriving. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._joins: OrderedDict[str, EarlyJoin] = OrderedDict()

    @contextmanager
    def receiving(self, id: str, uploads: Uploads, name: AdapterName, path: Path) -> Iterator[None]:
        """Surrounds the receipt of the next xorb of the upload `id`; it is at `path` when the block ends."""
        with self._lock:
            join = self._joins.get(id)
            if join is None:
                join = self._joins[id] = EarlyJoin(uploads, name)
            forgotten = [self._joins.popitem(last=False)[1] for _ in range(len(self._joins) - _KNOWN)]
        for other in forgotten:
            other.cancel()
        number = join.announce()
        try:
            yield
            join.add(number, StoredXorb.open(path))
        except BaseException:
            join.cancel()
            raise

    def take(self, id: str) -> EarlyJoin | None:
        """The file that is being stored for this upload. The caller claims it, and then discards it."""
        with self._lock:
            return self._joins.pop(id, None)

    def close(self) -> None:
        """Ends all threads."""
        with self._lock:
            joins, self._joins = list(self._joins.values()), OrderedDict()
        for join in joins:
            join.discard()


class EarlyJoin:
    """A file that is stored for the adapter `name` from the xorbs of one upload."""

    def __init__(self, uploads: Uploads, name: AdapterName) -> None:
        self._uploads = uploads
        self._name = name
        self._changed = Condition()
        self._announced = 0
        self._xorbs: dict[int, StoredXorb | None] = {}  # those not taken yet; None while one arrives
        self._taken: list[Run] = []  # the first bytes of the file, presumably
        self._rest: Callable[[int], Iterator[bytes]] | None = (
            None  # reads the other bytes, once they are certain
        )
        self._is_cancelled = False
        self._size = 0
        self._thread: Thread | None = None
        self._complete: str | None = None  # the upload that has all bytes

    def announce(self) -> int:
        """Numbers a xorb that begins to arrive."""
        with self._changed:
            number, self._announced = self._announced, self._announced + 1
            self._xorbs[number] = None
            return number

    def add(self, number: int, xorb: StoredXorb) -> None:
        """Adds the xorb with this number, which is complete."""
        with self._changed:
            if self._is_cancelled:
                self._xorbs.clear()  # their tables of chunks take memory
                return
            self._xorbs[number] = xorb
            self._changed.notify_all()
        if number == 0:
            self._begin(xorb)

    def cancel(self) -> None:
        """Drops the stored bytes, without waiting for it."""
        with self._changed:
            self._is_cancelled = True
            self._changed.notify_all()

    def claim(self, files: Iterable[JoinedFile], stored: ReadStored) -> tuple[JoinedFile, str] | None:
        """One of the files, and the id of the upload that has its bytes and waits for its digest. None if
        other bytes were taken, or storing them failed: then they are dropped, since they would count against
        the quotas of the files.
        """
        with self._changed:
            file = next(filter(self._is_begun, files), None)
            if file is not None:
                self._rest = partial(file.read, stored=stored)
                self._changed.notify_all()
        if file is not None and (complete := self._result()) is not None:
            return file, complete
        self.discard()
        return None

    def _is_begun(self, file: JoinedFile) -> bool:
        """Whether what was taken is the beginning of this file."""
        taken = sum(run.length for run in self._taken)
        return self._size == file.size and merge_runs(self._taken) == merge_runs(_first(taken, file.runs))

    def discard(self) -> None:
        """Drops the stored bytes, unless they have become a file of the adapter."""
        self.cancel()
        if (left := self._result()) is not None:
            with suppress(AdaptryError):  # finished
                self._uploads.drop(left)

    def _result(self) -> str | None:
        """Waits until storing has ended; the id of the complete upload, or None."""
        if self._thread is not None:
            self._thread.join()
        return self._complete

    def _begin(self, first: StoredXorb) -> None:
        self._size = _declared_size(first)
        if self._size <= MAX_SENT or not _places.acquire(blocking=False):
            self.cancel()
            return
        self._thread = Thread(target=self._store, name="early-join", daemon=True)
        self._thread.start()

    def _store(self) -> None:
        try:
            with suppress(AdaptryError):  # if it persists, storing the joined file raises it again
                session = self._uploads.open(self._name, None, self._size)
                try:
                    sent = self._uploads.append(session, 0, self._bytes(), self._size)
                    self._complete = session.id if sent.offset == self._size else None
                finally:
                    if self._complete is None:
                        self._uploads.drop(session.id)
        finally:
            _places.release()

    def _bytes(self) -> Iterator[bytes]:
        """The bytes of the xorbs as they become complete, then the rest of the file."""
        position = 0
        while runs := self._take(position):
            for run in runs:
                assert isinstance(run.source, Path)
                for piece in read_spooled(run.source, run.begin, run.length):
                    if self._is_cancelled:
                        return
                    yield piece
                position += run.length
        if self._rest is not None and position < self._size:
            yield from self._rest(position)

    def _take(self, position: int) -> tuple[Run, ...]:
        """The bytes that probably follow those before `position`; none if others certainly do."""
        with self._changed:
            while position < self._size and not self._is_cancelled and self._rest is None:
                xorb = self._pop(self._size - position)
                if xorb is not None:
                    runs = tuple(_first(self._size - position, xorb.runs))
                    self._taken += runs
                    return runs
                if not self._changed.wait(IDLE_SECONDS):
                    self._is_cancelled = True
        return ()

    def _pop(self, left: int) -> StoredXorb | None:
        """The next xorb of the file, of which `left` bytes are left, if it is complete. All but the last one
        are full. Clients send that one at the same time as the one before it.
        """
        for number, xorb in self._xorbs.items():
            if xorb is None:
                return None
            if xorb.table.size >= min(left, _FULL):
                return self._xorbs.pop(number)
        return None


def _first(size: int, runs: Iterable[Run]) -> Iterator[Run]:
    """The first `size` bytes of the runs."""
    for run in runs:
        if size <= 0:
            return
        yield Run(run.source, run.begin, min(size, run.length))
        size -= run.length


def _declared_size(first: StoredXorb) -> int:
    """The size of the safetensors file that begins with this xorb, according to its header; 0 if the xorb
    begins otherwise. A misread header does no harm: the sizes then differ.
    """
    run = first.runs[0]
    if not isinstance(run.source, Path):
        return 0
    head = b"".join(read_spooled(run.source, run.begin, min(run.length, 8 + _LONGEST_HEADER)))
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length > len(head) - 8:
        return 0
    return 8 + length + max((int(end) for end in _ENDS.findall(head[8 : 8 + length])), default=0)
