"""Passes the bytes of an arriving xorb to the thread that stores the file that they probably belong to.

Only the bytes that this thread did not write go into the xorb's own file, where a trailer lists the locations
of the others (`stored_xorb`). So the xorb is complete even if the thread does not start in time, stops
half-way, or needs only the first bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from threading import Condition

from adaptry_api.hub.upload_spool import batches
from adaptry_api.hub.xet.chunk_tables import ChunkTable
from adaptry_api.hub.xet.stored_xorb import Run, hashed, xorb_trailer

TURN_SECONDS = 1.0
"""Longest time that a xorb waits until those before it are stored. Meanwhile, the client can send only as
much as the connection buffers.
"""
_QUEUE_LENGTH = 4  # pieces of about 1 MiB

Part = bytes | memoryview


class IncomingXorb:
    """One xorb, shared by the thread that receives it (`split`), and the one that may take its first bytes
    (`accept`, then `pieces`). `path` is the xorb's own file, `body_size` the size of the request's body.
    """

    def __init__(self, path: Path, body_size: int) -> None:
        self.path = path
        self.body_size = body_size
        self._changed = Condition()
        self._is_declined = False
        self._taken_to: Run | None = None  # where the bytes go; they are at most as many as its length
        self._pieces: deque[bytes] = deque()
        self._written = 0
        self._has_all = False  # no more pieces will follow
        self._is_stopped = False  # no more pieces will be taken

    def split(self, chunks: Iterable[Part], begin: Callable[[bytes], None] | None = None) -> Iterator[Part]:
        """The content of the xorb's own file: the bytes that were not taken, and a trailer. `begin` is called
        with the first bytes, before they can be taken.
        """
        table: list[tuple[bytes, int]] = []
        own = 0
        is_taken: bool | None = None
        for batch in batches(hashed(chunks, table)):
            if is_taken is None:
                if begin is not None:
                    begin(b"".join(batch))
                is_taken = self._has_turn()
            left: list[Part] = self._send(b"".join(batch)) if is_taken else batch
            is_taken = is_taken and not left
            own += sum(map(len, left))
            yield from left
        left = self._finish() if is_taken else []
        own += sum(map(len, left))
        yield from left
        yield from xorb_trailer(ChunkTable.of(table), self._runs(own))

    def accept(self, run: Run) -> bool:
        """Announces that `pieces` will be written to this run, up to its length. Returns False if it is too
        late.
        """
        with self._changed:
            if self._is_declined:
                return False
            self._taken_to = run
            self._changed.notify_all()
            return True

    def decline(self) -> None:
        """Announces that no bytes, or no more of them, will be taken."""
        with self._changed:
            self._is_declined = self._is_stopped = True
            self._changed.notify_all()

    def pieces(self) -> Generator[bytes]:
        """The bytes as they arrive. A piece counts as written when the next one is requested."""
        try:
            while (piece := self._next()) is not None:
                yield piece
                self._count(piece)
        finally:
            self.decline()

    def _has_turn(self) -> bool:
        """Whether the other thread takes the bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_declined or self._taken_to is not None, TURN_SECONDS)
            if self._taken_to is None:
                self._is_declined = True
            return not self._is_declined

    def _send(self, piece: bytes) -> list[Part]:
        """Passes the piece on. Returns the bytes that will not be written; once there are some, all that
        follow belong to them.
        """
        assert self._taken_to is not None, "it has its turn"
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or len(self._pieces) < _QUEUE_LENGTH)
            room = self._taken_to.length - self._written - sum(map(len, self._pieces))
            self._pieces.append(piece[:room])
            self._changed.notify_all()
            if len(piece) <= room and not self._is_stopped:
                return []
        return [*self._finish(), piece[room:]]

    def _finish(self) -> list[Part]:
        """Waits until all pieces are written, and returns those that will not be."""
        with self._changed:
            self._has_all = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_stopped)
            left: list[Part] = list(self._pieces)
            self._pieces.clear()
            return left

    def _runs(self, own: int) -> tuple[Run, ...]:
        """The locations of the bytes, of which `own` are in the xorb's own file; none if all are there."""
        if self._taken_to is None or not self._written:
            return ()
        taken = Run(self._taken_to.source, self._taken_to.begin, self._written)
        return (taken, Run(self.path, 0, own)) if own else (taken,)

    def _next(self) -> bytes | None:
        """The oldest piece. It stays in the queue until it is written."""
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._has_all or self._is_stopped)
            return self._pieces[0] if self._pieces and not self._is_stopped else None

    def _count(self, piece: bytes) -> None:
        with self._changed:
            if not self._is_stopped:
                self._pieces.popleft()
                self._written += len(piece)
                self._changed.notify_all()
