"""What clients announce before they send it, remembered for minutes and by each server process for itself.

A client announces a large upload 256 files at a time, and older ones commit all of it at once: only the announcements
together tell that it is too large. And one client, `upload_large_folder` of `huggingface_hub` before 2.0, repeats an
announcement that is refused for ever, whatever the status; it stops only when it is told to ignore the files.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from threading import Lock
from typing import Generic, TypeVar

IDLE_SECONDS = 600.0
"""An upload whose client announced nothing for so long has come to its end."""
LOOP_SECONDS = 10.0
LOOP_TIMES = 4
"""A client that is refused the same so often in so short a time repeats it by itself; people are slower."""

_MOST = 256
Key = tuple[str, ...]
Value = TypeVar("Value")


class _Recent(Generic[Value]):
    """The values of the last keys that were used, each with the time it was set at."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key, since: float) -> Value | None:
        at, value = self._kept.get(key, (since - 1, None))
        return value if at >= since else None

    def set(self, key: Key, at: float, value: Value) -> None:
        self._kept.pop(key, None)
        self._kept[key] = at, value
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)

    def drop(self, key: Key) -> None:
        self._kept.pop(key, None)


class Announcements:
    """`key` names an uploader and a branch; `now` is a clock's seconds. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._announced = _Recent[frozenset[str]]()
        self._refused = _Recent[tuple[float, ...]]()

    def add(self, key: Key, paths: Collection[str], now: float) -> frozenset[str]:
        """These paths and those announced before them in the same upload."""
        with self._lock:
            together = (self._announced.get(key, now - IDLE_SECONDS) or frozenset()) | frozenset(paths)
            self._announced.set(key, now, together)
        return together

    def is_repeated(self, key: Key, paths: Collection[str], now: float) -> bool:
        """Whether the refusal that is about to be answered was answered so often before that it must not be again.

        The upload that `add` knew of is over with it.
        """
        same = (*key, *sorted(paths))
        with self._lock:
            self._announced.drop(key)
            times = tuple(
                at for at in self._refused.get(same, now - LOOP_SECONDS) or () if at >= now - LOOP_SECONDS
            )
            self._refused.set(same, now, (*times, now))
        return len(times) + 1 >= LOOP_TIMES
