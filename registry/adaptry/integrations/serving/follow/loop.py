"""Runs a reconciler: until it is stopped, or until the engine has the desired adapters."""

from __future__ import annotations

import time
from threading import Event

from adaptry.core.errors import CheckFailed
from adaptry.integrations.serving.follow.reconciler import Reconciler

_INTERVAL = 5.0  # seconds
_RETRY_DELAY = 1.0
_TIMEOUT = 60.0


def run_forever(reconciler: Reconciler, stop: Event, every: float = _INTERVAL) -> None:
    """Reconciles until `stop`. Waits at most `every` seconds for changes, so that an engine that restarted
    gets its adapters again within that time."""
    wait = 0.0
    while not stop.is_set():
        is_settled = reconciler.reconcile(wait)
        wait = every if is_settled else 0.0
        if not is_settled:
            stop.wait(_RETRY_DELAY)


def converge(reconciler: Reconciler, stop: Event, timeout: float = _TIMEOUT) -> None:
    """Reconciles until actual equals desired, or `stop`. Raises the error if the engine or the registry does
    not answer, and `CheckFailed` if a desired version failed or the engine has not converged after `timeout`
    seconds."""
    until = time.monotonic() + timeout
    while not stop.is_set():
        is_settled = reconciler.reconcile(0.0)
        if reconciler.connection_error:
            raise reconciler.connection_error
        if is_settled and not reconciler.has_pending_loads:
            reconciler.require_served()
            return
        if time.monotonic() > until:
            raise CheckFailed(
                f"the engine does not have all desired adapters after {timeout:.0f} s; the reasons are above"
            )
        stop.wait(_RETRY_DELAY)
