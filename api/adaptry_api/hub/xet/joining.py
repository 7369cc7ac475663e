"""Files from the chunks of xorbs: first it is decided whether all is there, then bytes move.

The chunks were unpacked and checked when they came, so here only the file's SHA-256 can still be wrong, and the
registry finds that out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from adaptry.digest import Digest
from adaptry.errors import Invalid, NotFound, TooLarge
from adaptry.manifest import MAX_FILE, MAX_REVISION
from adaptry_api.hub.xet.shard import XetFile
from adaptry_api.hub.xet.xorb import Xorb


@dataclass(frozen=True, slots=True)
class Joined:
    """A file that can be made: runs of bytes in unpacked xorbs, as (xorb, beginning, length)."""

    sha256: Digest
    size: int
    runs: tuple[tuple[Xorb, int, int], ...]

    def read(self, start: int) -> Iterator[bytes]:
        """The file's bytes from `start` on, in pieces of at most 1 MiB."""
        for xorb, begin, length in self.runs:
            passed = min(start, length)
            start -= passed
            yield from xorb.read(begin + passed, length - passed)


def join(files: Sequence[XetFile], find: Callable[[str], Xorb]) -> tuple[Joined, ...]:
    """The files, each over the xorbs that `find` gives. Raises `Invalid` where they do not fit, and `TooLarge`."""
    if sum(file.size for file in files) > MAX_REVISION:
        raise TooLarge(f"the files of one upload are at most {MAX_REVISION >> 30} GiB together")
    known: dict[str, Xorb] = {}
    return tuple(_join(file, find, known) for file in files)


def _join(file: XetFile, find: Callable[[str], Xorb], known: dict[str, Xorb]) -> Joined:
    if file.size > MAX_FILE:
        raise TooLarge(f"a file of {file.size:,} bytes; at most {MAX_FILE >> 30} GiB are stored")
    runs: list[tuple[Xorb, int, int]] = []
    for segment in file.segments:
        try:
            xorb = known.get(segment.xorb) or known.setdefault(segment.xorb, find(segment.xorb))
            begin, length = xorb.span(segment.start, segment.end)
        except (Invalid, NotFound) as error:
            raise Invalid(
                f"the file {file.sha256.brief} needs xorb {segment.xorb[:12]}…, which does not fit: {error.message}"
            ) from None
        if length != segment.length:
            raise Invalid(
                f"the file {file.sha256.brief} takes {segment.length:,} bytes from xorb {segment.xorb[:12]}…, where "
                f"{length:,} are"
            )
        runs.append((xorb, begin, length))
    return Joined(file.sha256, file.size, tuple(runs))
