"""Counts requests and tokens by adapter, when they end in the proxy or in vLLM's plugin."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping

from adaptry.integrations.serving.engines import AdapterUsage

CLIENT_LEFT = 499
"""The status under which a request is counted if its client disconnects, as in other proxies. It is never
sent."""
_MAX_NAMES = 4096


class AdapterTraffic:
    """Counts answers and tokens by the engine's names for adapters. Only the most recently used names are
    kept, because clients may send any name. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage: OrderedDict[str, AdapterUsage] = OrderedDict()

    def record(self, adapter: str, status: int, tokens: Mapping[str, int]) -> None:
        """Counts an answer that has ended."""
        with self._lock:
            before = self._usage.pop(adapter, AdapterUsage(0.0, {}, {}))
            self._usage[adapter] = AdapterUsage(
                time.time(),
                {**before.requests, status: before.requests.get(status, 0) + 1},
                {**before.tokens, **{kind: before.tokens.get(kind, 0) + n for kind, n in tokens.items()}},
            )
            if len(self._usage) > _MAX_NAMES:
                self._usage.popitem(last=False)

    def usage(self) -> Mapping[str, AdapterUsage]:
        """The counts of each adapter so far."""
        with self._lock:
            return dict(self._usage)
