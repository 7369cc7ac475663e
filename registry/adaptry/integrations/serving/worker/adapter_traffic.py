"""Requests and tokens by adapter, as the proxy or the plugin sees them end."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping

from adaptry.integrations.serving.engines import AdapterUsage

CLIENT_LEFT = 499
"""The status of a request whose client went away, as other proxies count it; nobody is sent this."""
_MAX_NAMES = 4096


class AdapterTraffic:
    """Counts what the adapters of an engine have answered, by the engine's names, for the names that were
    used most recently: clients may ask for any. Safe to use from any thread."""

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
        """What each adapter has answered so far."""
        with self._lock:
            return dict(self._usage)
