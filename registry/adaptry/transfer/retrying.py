"""How long we keep trying when a connection or a server goes away: a value, so that tests need not wait."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Persistence:
    """Up to `tries` attempts in a row that get nothing done; the wait before each doubles (seconds)."""

    tries: int = 8
    first_wait: float = 0.2
    longest_wait: float = 10.0

    def gives_up(self, failures: int) -> bool:
        return failures >= self.tries

    def wait(self, failures: int) -> None:
        """Waits before the try that follows `failures` fruitless ones."""
        time.sleep(min(self.first_wait * 2 ** max(failures - 1, 0), self.longest_wait))


PATIENT = Persistence()
"""About half a minute without a single byte: a server that restarts is back by then."""
