"""The tokens that an engine's answer reports, read from its end as it passes through the proxy."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import field

from adaptry.core.lazy_dataclass import dataclass

_TAIL = 1 << 16  # bytes
_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_KINDS = ("prompt_tokens", "completion_tokens")


@dataclass(slots=True)
class UsageReader:
    """Keeps the end of an answer, where engines report its usage: in JSON, and in a stream's last events if
    the request has the option (`stream_options`)."""

    _kept: deque[bytes] = field(default_factory=deque)
    _size: int = 0

    def add(self, part: bytes) -> None:
        self._kept.append(part)
        self._size += len(part)
        while self._size - len(self._kept[0]) >= _TAIL:
            self._size -= len(self._kept.popleft())

    def tokens(self) -> Mapping[str, int]:
        """The tokens that the answer reports, by kind; empty if it reports none."""
        found = _USAGE.findall(b"".join(self._kept))
        try:
            usage = json.loads(found[-1]) if found else {}
        except ValueError:
            return {}
        return {kind: usage[kind] for kind in _KINDS if type(usage.get(kind)) is int and usage[kind] >= 0}
