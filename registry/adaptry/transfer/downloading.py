"""One file out of a registry, verified while it streams.

Memory does not grow with the file. A cut connection goes on where it stopped; hashing and flushing run on
threads of their own, so that they cost nothing beside the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from adaptry.beside import Beside, FlushBehind
from adaptry.errors import DigestMismatch, Unavailable
from adaptry.manifest import FileEntry
from adaptry.progress import Progress
from adaptry.transfer.retrying import Persistence

ReadFrom = Callable[[int], Iterator[bytes]]
"""The bytes of a file from an offset on; may raise `Unavailable` midway."""


def download(
    read: ReadFrom, entry: FileEntry, path: Path, progress: Progress, persistence: Persistence
) -> None:
    """Writes the file to `path`, which must not exist; whoever publishes it flushes it.

    Raises `DigestMismatch` where the bytes are not those of `entry`, `Unavailable` after too many cuts in a row.
    """
    hasher = sha256()
    with (
        path.open("xb", buffering=0) as file,
        FlushBehind(file.fileno()) as flushing,
        Beside(hasher.update) as beside,
    ):
        for chunk in resumed(read, entry, progress, persistence):
            piece = memoryview(chunk)
            beside.update(piece)
            while piece:
                piece = piece[file.write(piece) :]
            flushing.wrote(len(chunk))
    found = hasher.hexdigest()
    if found != entry.sha256.hex:
        raise DigestMismatch(
            f"{entry.path} arrived as sha256:{found[:12]}… and not as {entry.sha256.brief}…: its bytes changed on the "
            "way or in the store. Nothing was kept; try again, and if it stays so, mend the store"
        )


def resumed(
    read: ReadFrom, entry: FileEntry, progress: Progress, persistence: Persistence
) -> Iterator[bytes]:
    """The bytes of a file, of the right number, going on where a connection broke; whoever takes them verifies them."""
    position, failures = 0, 0
    while position < entry.size:
        began = position
        try:
            for chunk in read(position):
                position += len(chunk)
                if position > entry.size:
                    raise DigestMismatch(
                        f"{entry.path} is longer than the {entry.size:,} bytes it should have"
                    )
                yield chunk
                progress(f"downloading {entry.path}", position, entry.size)
        except Unavailable:
            failures = 0 if position > began else failures + 1
            if persistence.gives_up(failures):
                raise
            persistence.wait(failures)
        else:
            if position == began:
                raise DigestMismatch(f"{entry.path} ends after {position:,} of {entry.size:,} bytes")
