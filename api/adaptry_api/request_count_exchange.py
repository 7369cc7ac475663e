"""Exchanges counts of requests, by name, with the other processes of a registry.

No request waits for this. A separate thread writes at most every tenth of a second, while some name is
due. If the database is slow, locked or away, each process continues with its own counts: limits then hold for
each process alone, and no request is refused because of the database.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
from anyio import to_thread

from adaptry.core.quotas import QuotaSubject
from adaptry.storage.catalog.request_use import RequestCharge
from adaptry_api.request_limits import RequestLimits

LOG = logging.getLogger("adaptry.api")
_RETRY_DELAY = 0.1
_PAUSE_AFTER_FAILURE = 5.0

ChargeRequests = Callable[[list[RequestCharge]], dict[QuotaSubject, float]]


async def share_requests(
    limits: RequestLimits, charge: ChargeRequests, record: Callable[[bool], object]
) -> None:
    """Shares requests until it is cancelled; calls `record` with whether each try succeeded."""
    thread, has_warned = anyio.CapacityLimiter(1), False
    while True:
        due = anyio.Event()
        limits.on_due = due.set
        if charges := limits.take_charges():
            try:
                ahead = await to_thread.run_sync(charge, charges, limiter=thread)
            except Exception:  # requests must continue after any error
                if not has_warned:
                    LOG.exception("request limits hold for each server process alone until this works again")
                has_warned = True
                record(False)
                await anyio.sleep(_PAUSE_AFTER_FAILURE)
                continue
            has_warned = False
            limits.note_shared(ahead)
            record(True)
            await anyio.sleep(_RETRY_DELAY)
        else:
            await due.wait()
