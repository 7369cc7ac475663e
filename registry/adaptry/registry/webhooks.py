"""The webhooks role: sends events to other systems, and logs the deliveries.

A webhook receives the events of one namespace that its owner, who added it, may read. Messages are signed as
Standard Webhooks describes (https://www.standardwebhooks.com), and their bodies are CloudEvents 1.0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from adaptry.registry.access import AccessRequest
from adaptry.registry.records import Page, Value

MAX_WEBHOOKS = 20
"""Maximum number of webhooks of a namespace."""
TEST_KIND = "webhook.tested"
"""The kind of a test message; no event of the registry has it."""
DeliveryState = Literal["pending", "delivered", "failed", "withheld"]
Kind = Annotated[str, Field(pattern=r"^[a-z]{1,32}\.([a-z_]{1,32}|\*)$")]


class WebhookRequest(AccessRequest):
    """A new webhook: the events of a namespace go to `url`.

    `adapters` is a glob of names in the namespace (`tone-*`), `kinds` are kinds of events (`alias.moved`,
    `version.*`); without any, all are sent.
    """

    namespace: str = Field(min_length=1, max_length=96)
    url: str = Field(min_length=1, max_length=2048)
    adapters: str = Field(default="*", pattern=r"^[A-Za-z0-9._*?-]{1,96}$")
    kinds: tuple[Kind, ...] = Field(default=(), max_length=64)


class WebhookChange(AccessRequest):
    """Disables a webhook, or enables it again for new events."""

    is_enabled: bool


class SecretRotation(AccessRequest):
    """Rotates the secret; messages are also signed with the old one for `hours`."""

    hours: float = Field(default=24, ge=0, le=24 * 30)


class WebhookInfo(Value):
    """A webhook. `failures` counts the failed attempts since the last success; `old_secret_until` is set
    while messages are signed with two secrets.
    """

    id: int
    namespace: str
    url: str
    adapters: str
    kinds: tuple[str, ...] = ()
    owner: str
    created_at: datetime
    failures: int = 0
    old_secret_until: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: str | None = None


class CreatedSecret(Value):
    """A webhook with its new secret (`whsec_…`), which is not shown again."""

    webhook: WebhookInfo
    secret: str


class WebhookDelivery(Value):
    """A message to a webhook: `message` is its `webhook-id`, the same at each attempt.

    `event` is the number of the event, None for a test. A `pending` one is tried again at `due_at`; a
    `withheld` one is about an event that the owner may no longer read. `status`, `error` and `milliseconds`
    are those of the last attempt.
    """

    message: str
    event: int | None = None
    kind: str
    state: DeliveryState
    created_at: datetime
    due_at: datetime | None = None
    attempts: int = 0
    tried_at: datetime | None = None
    status: int | None = None
    error: str | None = None
    milliseconds: int | None = None


class Webhooks(ABC):
    """Manages webhooks, for holders of `webhook.manage` in the namespace; for other callers, a webhook does
    not exist.
    """

    @abstractmethod
    def add(self, request: WebhookRequest) -> CreatedSecret:
        """Adds a webhook. Raises `Invalid` (the URL), `InvalidRef`, `Conflict` (too many),
        `PermissionDenied`.
        """

    @abstractmethod
    def list(self, namespace: str | None = None) -> tuple[WebhookInfo, ...]:
        """Webhooks, oldest first: those of a namespace, or all that the caller manages. Raises
        `PermissionDenied`.
        """

    @abstractmethod
    def get(self, id: int) -> WebhookInfo:
        """Gets a webhook. Raises `NotFound`."""

    @abstractmethod
    def set_enabled(self, id: int, is_enabled: bool) -> WebhookInfo:
        """Enables or disables a webhook. Raises `NotFound`."""

    @abstractmethod
    def remove(self, id: int) -> None:
        """Deletes the webhook and its deliveries. Raises `NotFound`."""

    @abstractmethod
    def test(self, id: int) -> WebhookDelivery:
        """Adds a message of the kind `webhook.tested`, which is sent once. Raises `NotFound`."""

    @abstractmethod
    def rotate(self, id: int, rotation: SecretRotation) -> CreatedSecret:
        """Replaces the secret. The current secret becomes the old one, instead of any earlier one. Raises
        `NotFound`.
        """

    @abstractmethod
    def deliveries(self, id: int, cursor: str | None = None, limit: int = 50) -> Page[WebhookDelivery]:
        """Deliveries, newest first; those that ended more than 30 days ago are deleted. Raises `NotFound`,
        `Invalid`.
        """

    @abstractmethod
    def redeliver(self, id: int, message: str) -> WebhookDelivery:
        """Sends a message again immediately, with the same id. Raises `NotFound`."""
