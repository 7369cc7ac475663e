"""Stores the first weights file of a Xet upload while its xorbs arrive.

Only the shard, which comes last, lists the chunks of a file. But clients send chunks in the order of the
file, so the bytes of the xorbs, in the order in which their requests began, usually are the file. They are
written into an upload without a digest (`storage/local/unhashed_uploads`), which hashes and inspects them
while the client prepares the next xorb. The shard decides: if other bytes were written, they are dropped, and
the file is joined as usual.

If a xorb is the next one of the file when it begins to arrive, it is written only there (`incoming_xorb`),
and remains readable through a second name of that file, beside the other xorbs. The others are copied when
they are complete.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore, Condition, Lock, Thread

from adaptry.core.errors import AdaptryError
from adaptry.core.refs import AdapterName
from adaptry.registry.uploads import Uploads
from adaptry.registry.versions import MAX_SENT
from adaptry.storage.blobs import BlobStore
from adaptry_api.hub.xet.incoming_xorb import IncomingXorb, Part
from adaptry_api.hub.xet.reassembly import JoinedFile, ReadStored, read_spooled
from adaptry_api.hub.xet.stored_xorb import Run, StoredXorb, file_beside, merge_runs
from adaptry_api.hub.xet.xorb import MAX_CHUNK_BYTES, MAX_XORB_BYTES

IDLE_SECONDS = 60.0
"""Seconds without another xorb or the shard after which an upload is considered abandoned."""
_MAX_RUNNING = 4  # files stored early at once, with a thread each
_KNOWN = 64  # uploads whose xorbs are followed
_ENDS = re.compile(rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*(\d{1,15})\s*\]')
_FULL = MAX_XORB_BYTES - MAX_CHUNK_BYTES
_places = BoundedSemaphore(_MAX_RUNNING)


class EarlyJoins:
    """The uploads of one server process whose xorbs are arriving. Safe to use from many threads."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._lock = Lock()
        self._joins: OrderedDict[str, EarlyJoin] = OrderedDict()

    def open(self, id: str, uploads: Uploads, name: AdapterName) -> EarlyJoin:
        """The file that is being stored for the upload `id`, a new one if its first xorb arrives."""
        with self._lock:
            join = self._joins.get(id)
            if join is None:
                join = self._joins[id] = EarlyJoin(self._blobs, uploads, name)
            forgotten = [self._joins.popitem(last=False)[1] for _ in range(len(self._joins) - _KNOWN)]
        for other in forgotten:
            other.cancel()
        return join

    def take(self, id: str) -> EarlyJoin | None:
        """Removes the file that is being stored for this upload, and returns it. The caller must `claim` it,
        and then `discard` it.
        """
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

    def __init__(self, blobs: BlobStore, uploads: Uploads, name: AdapterName) -> None:
        self._blobs = blobs
        self._uploads = uploads
        self._name = name
        self._changed = Condition()
        self._announced = self._arriving = 0
        self._xorbs: dict[int, StoredXorb | IncomingXorb] = {}  # not yet written to the file
        self._taken: list[Run] = []  # the first bytes of the file, presumably
        self._streamed: IncomingXorb | None = None  # the xorb that is written as it arrives
        self._rest: Callable[[int], Iterator[bytes]] | None = (
            None  # reads the other bytes when they are certain
        )
        self._is_cancelled = False
        self._is_taking = True  # bytes of further xorbs
        self._size = 0
        self._beside: Path | None = None  # the file's second name
        self._dependents: set[Path] = set()  # xorbs whose bytes are only in this file
        self._thread: Thread | None = None
        self._complete: str | None = None  # the upload that has all bytes, once a shard claims it

    @contextmanager
    def receiving(self, path: Path, body_size: int) -> Iterator[Callable[[Iterable[Part]], Iterator[Part]]]:
        """Surrounds the receipt of the next xorb, whose body has this size. The function takes its chunks,
        and returns what has to be at `path` when the block ends.
        """
        arriving = IncomingXorb(path, body_size)
        with self._changed:
            number, self._announced = self._announced, self._announced + 1
            self._arriving += 1
            if self._is_taking:
                self._xorbs[number] = arriving
            else:
                arriving.decline()
            self._changed.notify_all()
        try:
            yield partial(arriving.split, begin=partial(self._begin, path) if number == 0 else None)
            self._add(number, arriving)
        except BaseException:
            arriving.decline()
            if self._is_taking:
                self.cancel()
            raise
        finally:
            with self._changed:
                self._arriving -= 1
                self._changed.notify_all()

    def cancel(self) -> None:
        """Drops the stored bytes, without waiting until they are deleted."""
        with self._changed:
            self._is_cancelled = True
            if self._streamed is not None:
                self._streamed.decline()
            self._stop_taking()

    def _stop_taking(self) -> None:
        """Leaves all further xorbs to their own files."""
        with self._changed:
            self._is_taking = False
            for xorb in self._xorbs.values():
                if isinstance(xorb, IncomingXorb):
                    xorb.decline()
            self._xorbs.clear()  # their tables of chunks take memory
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
        """Whether the bytes taken so far are the beginning of this file."""
        taken = sum(run.length for run in self._taken)
        is_same = merge_runs(self._taken) == merge_runs(_first(taken, file.runs))
        return is_same and self._size == file.size and self._streamed is None

    def discard(self) -> None:
        """Drops the stored bytes, unless they have become a file of the adapter."""
        self.cancel()
        if (left := self._result()) is not None:
            with suppress(AdaptryError):  # finished
                self._uploads.drop(left)

    def release(self, replaced: Collection[Path]) -> None:
        """Removes the file's second name, unless xorbs other than these still depend on it."""
        if self._beside is not None and self._dependents <= set(replaced):
            self._beside.unlink(missing_ok=True)

    def _result(self) -> str | None:
        """Waits until storing has ended; the id of the complete upload, or None."""
        if self._thread is not None:
            self._thread.join()
        return self._complete

    def _add(self, number: int, arrived: IncomingXorb) -> None:
        """Adds a complete xorb, unless it was already written as it arrived."""
        with self._changed:
            if self._xorbs.get(number) is arrived:
                self._xorbs[number] = StoredXorb.open(arrived.path)
                self._changed.notify_all()

    def _begin(self, first: Path, head: bytes) -> None:
        """Starts to store the file that begins with these bytes, those of the xorb at `first`; or cancels."""
        self._size = _declared_size(head)
        if self._size <= MAX_SENT or not _places.acquire(blocking=False):
            self.cancel()
            return
        self._thread = Thread(target=self._store, args=(first,), name="early-join", daemon=True)
        self._thread.start()

    def _store(self, first: Path) -> None:
        try:
            stored = self._append(first)
        finally:
            _places.release()
            self._stop_taking()
        if stored is not None and self._is_wanted():
            self._complete = stored
        elif stored is not None:
            with suppress(AdaptryError):  # it may have been dropped already
                self._uploads.drop(stored)

    def _append(self, first: Path) -> str | None:
        """Stores the bytes. Returns the upload that has all of them; None if some are missing."""
        with suppress(AdaptryError):  # if it persists, storing the joined file raises it again
            session = self._uploads.open(self._name, None, self._size)
            has_all = False
            try:
                with closing(self._bytes(file_beside(first, session.id), session.id)) as found:
                    has_all = self._uploads.append(session, 0, found, self._size).offset == self._size
            finally:
                if not has_all:
                    self._uploads.drop(session.id)
            return session.id if has_all else None
        return None

    def _is_wanted(self) -> bool:
        """Waits until a shard claims the file; False if none does."""
        with self._changed:
            while self._rest is None and not self._is_cancelled:
                self._wait()
            return self._rest is not None

    def _wait(self) -> None:
        """Waits for a change; cancels if the client seems to be gone. The lock is held."""
        if not self._changed.wait(None if self._arriving else IDLE_SECONDS):
            self.cancel()

    def _bytes(self, beside: Path, session: str) -> Generator[bytes]:
        """The bytes of the xorbs as they arrive or become complete, then the rest of the file."""
        self._beside = beside if self._blobs.link_staged(session, beside) else None
        position = 0
        while (pieces := self._take(position)) is not None:
            with closing(pieces):
                for piece in pieces:
                    if self._is_cancelled:
                        return
                    yield piece
                    position += len(piece)
        self._stop_taking()
        if self._rest is not None and position < self._size:
            yield from self._rest(position)

    def _take(self, position: int) -> Generator[bytes] | None:
        """The bytes that probably follow those before `position`; None if others certainly do."""
        with self._changed:
            while position < self._size and not self._is_cancelled and self._rest is None:
                found = self._pop(position)
                if found is not None:
                    return found
                self._wait()
        return None

    def _pop(self, position: int) -> Generator[bytes] | None:
        """The next bytes of the file, if they are here. All xorbs but the last one are full. Clients send
        that one at the same time as the one before it.
        """
        left = self._size - position
        for number, xorb in self._xorbs.items():
            if isinstance(xorb, IncomingXorb):
                return self._pop_incoming(number, xorb, position)
            if xorb.table.size >= min(left, _FULL):
                del self._xorbs[number]
                runs = tuple(_first(left, xorb.runs))
                self._taken += runs
                return _read(runs)
        return None

    def _pop_incoming(self, number: int, xorb: IncomingXorb, position: int) -> Generator[bytes] | None:
        """The bytes of this xorb as they arrive; None if they have to be taken later: packed chunks may be
        those of a full xorb.
        """
        left = self._size - position
        if self._beside is None or xorb.body_size < min(left, _FULL):
            xorb.decline()
            return None
        if not xorb.accept(Run(self._beside, position, left)):
            return None
        del self._xorbs[number]
        self._dependents.add(xorb.path)
        self._streamed = xorb
        return self._stream(xorb, self._beside, position)

    def _stream(self, xorb: IncomingXorb, beside: Path, begin: int) -> Generator[bytes]:
        end = begin
        with closing(xorb.pieces()) as pieces:
            for piece in pieces:
                yield piece
                end += len(piece)
        with self._changed:
            self._taken.append(Run(beside, begin, end - begin))
            self._streamed = None


def _read(runs: Iterable[Run]) -> Generator[bytes]:
    for run in runs:
        assert isinstance(run.source, Path)
        yield from read_spooled(run.source, run.begin, run.length)


def _first(size: int, runs: Iterable[Run]) -> Iterator[Run]:
    """The first `size` bytes of the runs."""
    for run in runs:
        if size <= 0:
            return
        yield Run(run.source, run.begin, min(size, run.length))
        size -= run.length


def _declared_size(head: bytes) -> int:
    """The size of the safetensors file that begins with these bytes, according to its header; 0 if they are
    anything else, or not the whole header. A misread header does no harm: the sizes then differ.
    """
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length > len(head) - 8:
        return 0
    return 8 + length + max((int(end) for end in _ENDS.findall(head[8 : 8 + length])), default=0)
