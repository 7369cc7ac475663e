"""The webhooks role of a local registry. `storage.webhooks.sender` sends the messages."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from adaptry.core.access.conditions import Facts
from adaptry.core.errors import Conflict, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.outgoing_requests.url import OutgoingUrl
from adaptry.core.refs import parse_namespace
from adaptry.registry.event_kinds import require_adapter_kind
from adaptry.registry.records import Page
from adaptry.registry.webhooks import (
    MAX_WEBHOOKS,
    CreatedSecret,
    SecretRotation,
    WebhookDelivery,
    WebhookInfo,
    WebhookRequest,
    Webhooks,
)
from adaptry.storage.catalog import cursors, webhook_deliveries, webhooks
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.principals import require_in_namespace
from adaptry.storage.webhooks.messages import new_secret

_MAX_ID = (1 << 31) - 1  # of PostgreSQL's integers


@dataclass(frozen=True)
class LocalWebhooks(Webhooks):
    """The webhooks of a local registry."""

    context: RegistryContext

    def add(self, request: WebhookRequest) -> CreatedSecret:
        namespace = parse_namespace(request.namespace)
        require_in_namespace(self.context, "webhook.manage", namespace)
        for kind in request.kinds:
            require_adapter_kind(kind)
        url, secret = OutgoingUrl.parse(request.url), new_secret()
        with self.context.write() as tx:
            if webhooks.count(tx, namespace) >= MAX_WEBHOOKS:
                raise Conflict(f"{namespace} has {MAX_WEBHOOKS} webhooks, the maximum; remove one first")
            made = webhooks.insert(tx, request, self.context.identity, secret, self.context.clock()).info
            after = {"webhook": made.id, "host": url.host, "adapters": made.adapters}
            after["kinds"] = ", ".join(made.kinds) or "all"
            self.context.record(tx, "webhook.add", _target(made), after=after)
            webhooks.wake_sender(tx)
        return CreatedSecret(webhook=made, secret=secret)

    def list(self, namespace: str | None = None) -> tuple[WebhookInfo, ...]:
        if namespace is not None:
            require_in_namespace(self.context, "webhook.manage", namespace)
        with self.context.catalog.read() as tx:
            found = webhooks.every(tx, self.context.clock(), namespace)
        return tuple(one.info for one in found if self._manages(one.info))

    def get(self, id: int) -> WebhookInfo:
        with self.context.catalog.read() as tx:
            return self._managed(tx, id)

    def set_enabled(self, id: int, is_enabled: bool) -> WebhookInfo:
        with self.context.write() as tx:
            was = self._managed(tx, id)
            if is_enabled == (was.disabled_at is None):
                return was
            now = self.context.clock()
            if is_enabled:
                self.context.record(tx, "webhook.enable", _target(was), after={"webhook": id})
                webhooks.wake_sender(tx)
                return webhooks.enable(tx, id, now).info
            reason = f"disabled by {self.context.identity.name}"
            self.context.record(tx, "webhook.disable", _target(was), after={"webhook": id, "reason": reason})
            webhook_deliveries.fail_pending(tx, id, reason)
            return webhooks.disable(tx, id, reason, now).info

    def remove(self, id: int) -> None:
        is_last = False
        while not is_last:  # in parts: there may be hundreds of thousands, and other writers wait
            with self.context.write() as tx:
                self._managed(tx, id)
                is_last = webhook_deliveries.delete_some(tx, id)
        with self.context.write() as tx:
            was = self._managed(tx, id)
            webhooks.remove(tx, id)
            before = {"webhook": id, "host": urlsplit(was.url).hostname}
            self.context.record(tx, "webhook.remove", _target(was), before=before)

    def test(self, id: int) -> WebhookDelivery:
        with self.context.write() as tx:
            webhook = self._managed(tx, id)
            _require_enabled(webhook)
            made = webhook_deliveries.add_test(tx, id, self.context.clock())
            self.context.record(
                tx, "webhook.test", _target(webhook), after={"webhook": id, "message": made.message}
            )
            webhooks.wake_sender(tx)
            return made

    def rotate(self, id: int, rotation: SecretRotation) -> CreatedSecret:
        secret, now = new_secret(), self.context.clock()
        until = now + timedelta(hours=rotation.hours)
        with self.context.write() as tx:
            was = self._managed(tx, id)
            self.context.record(
                tx, "webhook.rotate", _target(was), after={"webhook": id, "old_secret_until": until}
            )
            return CreatedSecret(webhook=webhooks.rotate(tx, id, secret, until, now).info, secret=secret)

    def deliveries(self, id: int, cursor: str | None = None, limit: int = 50) -> Page[WebhookDelivery]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            self._managed(tx, id)
            return webhook_deliveries.page(tx, id, cursor, limit)

    def redeliver(self, id: int, message: str) -> WebhookDelivery:
        with self.context.write() as tx:
            webhook = self._managed(tx, id)
            _require_enabled(webhook)
            found = webhook_deliveries.send_again(tx, id, message, self.context.clock())
            if found is None:
                raise NotFound(
                    f"webhook {id} has no message {message[:40]!a}; `adaptry webhook deliveries {id}` lists"
                    " those of the last 30 days"
                )
            self.context.record(
                tx, "webhook.redeliver", _target(webhook), after={"webhook": id, "message": message}
            )
            webhooks.wake_sender(tx)
            return found

    def _managed(self, tx: Transaction, id: int) -> WebhookInfo:
        """The webhook, if the caller manages it. Raises `NotFound`, with the same message for a webhook that
        the caller does not manage.
        """
        found = webhooks.find(tx, id, self.context.clock()) if 0 < id <= _MAX_ID else None
        if found is None or not self._manages(found.info):
            raise NotFound(f"no webhook {id}; `adaptry webhook ls` shows those that you manage")
        return found.info

    def _manages(self, webhook: WebhookInfo) -> bool:
        facts = Facts(now=self.context.clock())
        return self.context.identity.may_in("webhook.manage", webhook.namespace, facts)


def _require_enabled(webhook: WebhookInfo) -> None:
    """Raises `Conflict` if the webhook is disabled."""
    if webhook.disabled_at is not None:
        raise Conflict(
            f"webhook {webhook.id} is disabled ({webhook.disabled_reason}); to enable it: adaptry webhook"
            f" enable {webhook.id}"
        )


def _target(webhook: WebhookInfo) -> AuditTarget:
    return AuditTarget(webhook.namespace, webhook.namespace)
