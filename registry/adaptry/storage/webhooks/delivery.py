"""One delivery attempt: claims a message, sends it, and stores the outcome."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from adaptry.core.errors import AdaptryError
from adaptry.core.failpoints import reach
from adaptry.core.identity import Identity
from adaptry.core.outgoing_requests.addresses import Network
from adaptry.core.outgoing_requests.connector import GuardedConnector
from adaptry.registry.webhooks import WebhookInfo
from adaptry.storage.catalog import webhook_deliveries, webhooks
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record, set_actor
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.webhook_deliveries import ClaimBounds, ClaimedDelivery, DeliveryOutcome
from adaptry.storage.webhooks.messages import body_of, headers_of
from adaptry.storage.webhooks.retry_schedule import EXPIRY, HTTP_GONE, MAX_ATTEMPTS, next_try

_SECONDS = 5.0  # per attempt, from the name look-up to the end of the response
_ANSWER_BYTES = 64 << 10
LEASE = timedelta(seconds=60)
"""After this time, another process may send a message whose sender has not reported a result: it must have
died.
"""
_SENDER = Identity("server")


def webhook_connector(allowed: Sequence[Network], ca_bundle: str | None) -> GuardedConnector:
    """The connector for deliveries; `allowed` are private networks that may be sent to."""
    return GuardedConnector(allowed, seconds=_SECONDS, max_bytes=_ANSWER_BYTES, ca_bundle=ca_bundle)


def deliver_next(
    catalog: Catalog, connector: GuardedConnector, webhook: int, clock: Callable[[], datetime]
) -> bool:
    """Sends the webhook's next message; returns whether there was one. Failures are outcomes, not errors."""
    now = clock()
    bounds = ClaimBounds(until=now + LEASE, most_tries=MAX_ATTEMPTS, oldest=now - EXPIRY)
    with catalog.write_nondurable() as tx:
        claimed = webhook_deliveries.claim(tx, webhook, now, bounds)
    if claimed is None:
        return False
    outcome = _send(connector, claimed, clock)
    reach("webhooks.after_send")
    with catalog.write_nondurable() as tx:  # after a power failure, the message is sent again
        webhook_deliveries.store_outcome(tx, claimed, outcome)
        if outcome.status == HTTP_GONE:
            _disable(tx, claimed.webhook.info, clock())
    return True


def _disable(tx: Transaction, webhook: WebhookInfo, now: datetime) -> None:
    reason = "the receiver wants no more messages (410)"
    webhooks.disable(tx, webhook.id, reason, now)
    webhook_deliveries.fail_pending(tx, webhook.id, reason)
    set_actor(tx, _SENDER)
    target = AuditTarget(webhook.namespace, webhook.namespace)
    record(tx, "webhook.disable", target, now, after={"webhook": webhook.id, "reason": reason})


def _send(
    connector: GuardedConnector, claimed: ClaimedDelivery, clock: Callable[[], datetime]
) -> DeliveryOutcome:
    now, began = clock(), time.monotonic()
    body = body_of(claimed)
    headers = headers_of(claimed.message, now, body, claimed.webhook.secrets)
    status, error = None, None
    try:
        answer = connector.request("POST", claimed.webhook.info.url, body=body, headers=headers)
        status = answer.status
        error = _failure_reason(status)
    except AdaptryError as refused:
        error = refused.public_message  # the full message may name addresses in the server's network
    milliseconds = round(1000 * (time.monotonic() - began))
    if error is None:
        return DeliveryOutcome(True, now, milliseconds, status)
    is_last = status == HTTP_GONE or claimed.event is None
    retry_at = None if is_last else next_try(claimed.attempt, claimed.created_at, clock(), random.random())
    return DeliveryOutcome(False, now, milliseconds, status, error, retry_at)


def _failure_reason(status: int) -> str | None:
    """The reason why a response status is a failure; None if the receiver accepted the message."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"the receiver redirects ({status}), which is not followed; change the webhook's URL"
    if status == HTTP_GONE:
        return "the receiver wants no more messages (410)"
    return f"the receiver answered {status}"
