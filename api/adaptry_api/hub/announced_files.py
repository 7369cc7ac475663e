"""Files that clients announce before they send them, remembered for minutes, separately in each server
process.

Clients announce a large upload in batches, and older ones commit all of it at once: only all announcements
together show that it is too large, or that a batch in which no file is kept is one of many. One client,
`upload_large_folder` of `huggingface_hub` before 2.0, repeats a refused announcement endlessly, whatever the
status; it stops only when the response marks the files as ignored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from threading import Lock
from typing import Generic, TypeVar

from adaptry.core.lazy_dataclass import dataclass

IDLE_SECONDS = 600.0
"""Seconds without an announcement after which an upload counts as ended."""
LOOP_SECONDS = 10.0
LOOP_TIMES = 4
"""A client that repeats a refused announcement so often in so short a time does so by itself; people are
slower.
"""

FULL_BATCHES = frozenset({100, 256})
"""Maximum batch sizes of clients: 256 files in Python, 100 in JS and in `upload_large_folder`."""

_MAX_KEYS = 256
Key = tuple[str, ...]
Value = TypeVar("Value")


class _LruMap(Generic[Value]):
    """The values of the most recently used keys, each with the time when it was set."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key, since: float) -> Value | None:
        at, value = self._kept.get(key, (since - 1, None))
        return value if at >= since else None

    def set(self, key: Key, at: float, value: Value) -> None:
        self._kept.pop(key, None)
        self._kept[key] = at, value
        if len(self._kept) > _MAX_KEYS:
            self._kept.popitem(last=False)

    def drop(self, key: Key) -> None:
        self._kept.pop(key, None)


@dataclass(frozen=True, slots=True)
class AnnouncedUpload:
    """The files of one upload announced so far: the paths to be stored, and whether they come in batches."""

    paths: frozenset[str] = frozenset()
    is_in_batches: bool = False


class Announcements:
    """`key` names an uploader and a branch; `now` is a clock's seconds. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._announced = _LruMap[AnnouncedUpload]()
        self._refused = _LruMap[tuple[float, ...]]()

    def add(self, key: Key, paths: Collection[str], now: float, *, is_full: bool = False) -> AnnouncedUpload:
        """The upload with these paths added; `is_full`: they come from a full batch, so another batch may
        follow.
        """
        with self._lock:
            before = self._announced.get(key, now - IDLE_SECONDS) or AnnouncedUpload()
            upload = AnnouncedUpload(before.paths | frozenset(paths), before.is_in_batches or is_full)
            self._announced.set(key, now, upload)
        return upload

    def is_repeated(self, key: Key, paths: Collection[str], now: float) -> bool:
        """Whether the same refusal has been sent too often already.

        This ends the upload that `add` recorded.
        """
        same = (*key, *sorted(paths))
        with self._lock:
            self._announced.drop(key)
            times = tuple(
                at for at in self._refused.get(same, now - LOOP_SECONDS) or () if at >= now - LOOP_SECONDS
            )
            self._refused.set(same, now, (*times, now))
        return len(times) + 1 >= LOOP_TIMES
