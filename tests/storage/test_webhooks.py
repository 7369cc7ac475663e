"""The webhook sender: attempts and their end, all kinds of receivers, rights, two senders, and crashes.

Receivers are real HTTP servers on this machine, and tests control the clock.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import select
from standardwebhooks import Webhook, WebhookVerificationError

from adaptry.core.errors import NotFound
from adaptry.core.failpoints import VARIABLE
from adaptry.core.identity import Identity
from adaptry.core.outgoing_requests.addresses import parse_network
from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterEdit
from adaptry.registry.webhooks import CreatedSecret, SecretRotation, WebhookDelivery, WebhookRequest
from adaptry.storage import tokens
from adaptry.storage.catalog import webhook_deliveries
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import WebhookDeliveryRow
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.webhooks.delivery import LEASE, webhook_connector
from adaptry.storage.webhooks.retry_schedule import EXPIRY, MAX_ATTEMPTS, PAUSES, next_try
from adaptry.storage.webhooks.sender import DELIVERY_RETENTION, WebhookSender
from adaptry.testing.receivers import receiving

TONE = AdapterName.parse("acme/tone")
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HERE = parse_network("127.0.0.0/8")


class Scene:
    """A registry whose clock changes only when a test moves it, and its senders."""

    def __init__(self, registry: LocalRegistry) -> None:
        self.registry, self.now = registry, NOW
        registry.context.clock = self.clock
        self.sender = self.new_sender()

    def clock(self) -> datetime:
        return self.now

    def new_sender(self, *, is_allowed: bool = True, concurrency: int = 64) -> WebhookSender:
        connector = webhook_connector((HERE,) if is_allowed else (), None)
        return WebhookSender(self.registry.catalog, connector, self.clock, concurrency)

    def add(self, url: str, **options: object) -> CreatedSecret:
        # `Any` kind of field, checked by the request itself.
        request = WebhookRequest.model_validate({"namespace": "acme", "url": url, **options})
        return self.registry.webhooks.add(request)

    def happen(self, name: AdapterName = TONE) -> None:
        """Causes one event: creates an adapter."""
        self.registry.adapters.create(name, AdapterEdit())

    def send(self, sender: WebhookSender | None = None) -> None:
        """Makes messages from events, and sends those that are due."""
        sender = sender or self.sender
        while sender.run_round() == 0.0:
            continue
        sender.run_round()
        sender.wait_until_idle()

    def log(self, made: CreatedSecret) -> tuple[WebhookDelivery, ...]:
        return self.registry.webhooks.deliveries(made.webhook.id).items


@pytest.fixture
def scene(folder: Path) -> Iterator[Scene]:
    with open_local(folder) as registry:
        yield Scene(registry)


def test_a_receiver_that_fails_is_tried_eight_times_within_a_day_with_one_id(scene: Scene) -> None:
    with receiving(500) as receiver:
        made = scene.add(receiver.url)
        scene.happen()
        for _ in range(MAX_ATTEMPTS + 2):
            scene.send()
            (one,) = scene.log(made)
            scene.now = one.due_at or scene.now

        assert len(receiver.messages) == MAX_ATTEMPTS == 8
        assert len({message.id for message in receiver.messages}) == 1
        assert scene.now - NOW <= EXPIRY
        assert (one.state, one.status, one.attempts) == ("failed", 500, 8)
        assert one.error == "the receiver answered 500"
        assert scene.registry.webhooks.get(made.webhook.id).failures == 8

        receiver.status = 200
        scene.registry.webhooks.redeliver(made.webhook.id, one.message)
        scene.send()
        assert receiver.messages[-1].id == one.message
        assert [one.state for one in scene.log(made)] == ["delivered"]
        assert scene.registry.webhooks.get(made.webhook.id).failures == 0


def test_tries_are_spread_by_chance_and_end_within_a_day() -> None:
    for chance in (0.0, 0.5, 1.0):
        at = NOW
        for attempt in range(1, MAX_ATTEMPTS):
            following = next_try(attempt, NOW, at, chance)
            assert following is not None
            assert 0.84 < (following - at).total_seconds() / PAUSES[attempt - 1] < 1.06
            at = following
        assert at - NOW < EXPIRY
        assert next_try(MAX_ATTEMPTS, NOW, at, chance) is None
    assert next_try(7, NOW, NOW + timedelta(hours=23), 0.5) is None


def test_a_message_is_not_tried_after_a_day(scene: Scene) -> None:
    with receiving(503) as receiver:
        made = scene.add(receiver.url)
        scene.happen()
        scene.send()
        scene.now += EXPIRY + timedelta(seconds=1)
        scene.send()
        assert len(receiver.messages) == 1
    assert [one.state for one in scene.log(made)] == ["failed"]


def test_a_redirect_is_not_followed(scene: Scene) -> None:
    with receiving() as elsewhere, receiving(307) as receiver:
        receiver.location = elsewhere.url
        made = scene.add(receiver.url)
        scene.happen()
        scene.send()
        assert (len(receiver.messages), len(elsewhere.messages)) == (1, 0)
    (one,) = scene.log(made)
    assert (one.state, one.status) == ("pending", 307)
    assert "redirects" in str(one.error)


def test_a_receiver_that_answers_gone_gets_no_further_messages(scene: Scene) -> None:
    with receiving(410) as receiver:
        made = scene.add(receiver.url)
        scene.happen()
        scene.happen(AdapterName.parse("acme/voice"))
        scene.send()
        scene.happen(AdapterName.parse("acme/third"))
        scene.now += timedelta(hours=1)
        scene.send()
        assert len(receiver.messages) == 1
    found = scene.registry.webhooks.get(made.webhook.id)
    assert found.disabled_reason == "the receiver wants no more messages (410)"
    assert {one.state for one in scene.log(made)} == {"failed"}


def test_a_dead_receiver_is_retried_and_its_address_stays_secret(scene: Scene) -> None:
    with receiving() as receiver:
        url = receiver.url
    made = scene.add(url.replace("127.0.0.1", "localhost"))
    scene.happen()
    scene.send()
    (one,) = scene.log(made)
    assert (one.state, one.status, one.attempts) == ("pending", None, 1)
    assert one.error == "localhost did not answer; try again later"


def test_a_private_address_gets_no_byte_unless_its_network_is_allowed(scene: Scene) -> None:
    with receiving() as receiver:
        made = scene.add(receiver.url)
        scene.happen()
        scene.send(scene.new_sender(is_allowed=False))
        (one,) = scene.log(made)
        assert (receiver.connections, one.state) == (0, "pending")
        assert "the server may not connect to 127.0.0.1" in str(one.error)
        scene.now += timedelta(minutes=1)
        scene.send()
        assert len(receiver.messages) == 1


def test_a_receiver_that_hangs_delays_no_other(scene: Scene) -> None:
    with receiving(is_open=False) as slow, receiving() as quick:
        scene.add(slow.url)
        scene.add(quick.url)
        scene.happen()
        while scene.sender.run_round() == 0.0:
            continue
        slow.wait_for(1)
        assert quick.wait_for(1)
        scene.happen(AdapterName.parse("acme/voice"))
        while scene.sender.run_round() == 0.0:
            continue
        assert quick.wait_for(2)
        assert len(slow.messages) == 1
        slow.gate.set()
        scene.sender.wait_until_idle()
        assert slow.wait_for(2)


def test_webhooks_take_turns_after_each_message_if_there_are_more_than_threads(scene: Scene) -> None:
    sender = scene.new_sender(concurrency=1)
    with receiving(is_open=False) as first, receiving(is_open=False) as second:
        scene.add(first.url)
        scene.add(second.url)
        scene.happen()
        scene.happen(AdapterName.parse("acme/voice"))
        while sender.run_round() == 0.0:
            continue
        assert first.wait_for(1)
        first.gate.set()
        assert second.wait_for(1)
        assert len(first.messages) == 1
        second.gate.set()
        sender.wait_until_idle()
        assert (len(first.messages), len(second.messages)) == (2, 2)


def test_a_running_sender_notices_the_first_webhook(scene: Scene) -> None:
    running = threading.Thread(target=scene.sender.run)
    running.start()
    try:
        with receiving() as receiver:
            scene.happen()
            assert receiver.messages == []
            scene.add(receiver.url)
            scene.happen(AdapterName.parse("acme/voice"))
            assert receiver.wait_for(1)
    finally:
        scene.sender.stop()
        running.join()


def test_two_senders_send_each_message_once(scene: Scene) -> None:
    names = [AdapterName.parse(f"acme/tone-{number}") for number in range(20)]
    other = scene.new_sender()
    with receiving() as receiver:
        made = scene.add(receiver.url)
        for name in names:
            scene.happen(name)
        for _ in range(3):
            for sender in (scene.sender, other):
                sender.run_round()
        for sender in (scene.sender, other):
            sender.wait_until_idle()
        scene.send()
        assert len({message.id for message in receiver.messages}) == len(receiver.messages) == 20
    assert {one.state for one in scene.log(made)} == {"delivered"}


def test_while_a_secret_is_replaced_both_verify(scene: Scene) -> None:
    scene.now = datetime.now(UTC)  # the time with which the library compares
    with receiving() as receiver:
        old = scene.add(receiver.url)
        new = scene.registry.webhooks.rotate(old.webhook.id, SecretRotation(hours=1))
        scene.happen()
        scene.send()
        scene.now += timedelta(hours=1)
        scene.happen(AdapterName.parse("acme/voice"))
        scene.send()
        first, second = receiver.messages
    for made in (old, new):
        Webhook(made.secret).verify(first.body, first.headers)
    assert len(first.headers["webhook-signature"].split()) == 2
    assert len(second.headers["webhook-signature"].split()) == 1
    stale = {**first.headers, "webhook-timestamp": str(int((scene.now - timedelta(hours=2)).timestamp()))}
    with pytest.raises(WebhookVerificationError):
        Webhook(new.secret).verify(first.body, stale)


def test_a_receiver_gets_only_the_selected_events_of_its_namespace(scene: Scene) -> None:
    with receiving() as receiver:
        scene.add(receiver.url, adapters="tone*", kinds=("adapter.created", "alias.*"))
        for name in ("acme/tone", "acme/tone-2", "acme/voice", "evil/tone"):
            scene.happen(AdapterName.parse(name))
        scene.registry.adapters.edit(TONE, AdapterEdit(description="calm"))
        scene.send()
        found = [message.event["subject"] for message in receiver.messages]
    assert found == ["acme/tone", "acme/tone-2"]


def test_a_webhook_sends_what_its_owner_may_read_at_delivery(scene: Scene) -> None:
    catalog = scene.registry.catalog
    olga = tokens.identify(catalog, tokens.create_token(catalog, "olga", "owner", ("acme",)))
    with receiving(500) as receiver:
        made = scene.registry.on_behalf_of(olga).webhooks.add(
            WebhookRequest(namespace="acme", url=receiver.url)
        )
        scene.happen()
        scene.send()
        grant = scene.registry.grants.list(principal="olga").items[0].id
        scene.registry.grants.remove(grant)
        receiver.status = 200
        scene.happen(AdapterName.parse("acme/voice"))
        scene.now += timedelta(minutes=1)
        scene.send()
        assert len(receiver.messages) == 1
    assert [one.state for one in scene.log(made)] == ["withheld"]


def test_a_message_is_sent_after_any_number_that_are_too_old(scene: Scene) -> None:
    catalog = scene.registry.catalog
    with receiving() as receiver:
        made = scene.add(receiver.url)
        with catalog.write() as tx:
            for _ in range(205):  # more than twice as many as are processed together
                webhook_deliveries.add_test(tx, made.webhook.id, NOW)
        scene.now += EXPIRY + timedelta(seconds=1)
        with catalog.write() as tx:
            last = webhook_deliveries.add_test(tx, made.webhook.id, scene.now).message
        scene.send()
        assert [message.headers["webhook-id"] for message in receiver.messages] == [last]
    with catalog.read() as tx:
        states = tx.exec(select(WebhookDeliveryRow.state)).all()
    assert sorted(states) == ["delivered"] + ["failed"] * 205


def test_a_receiver_gets_nothing_once_its_owners_token_is_revoked(scene: Scene) -> None:
    catalog = scene.registry.catalog
    olga: Identity = tokens.identify(catalog, tokens.create_token(catalog, "olga", "owner", ("acme",)))
    with receiving() as receiver:
        scene.registry.on_behalf_of(olga).webhooks.add(WebhookRequest(namespace="acme", url=receiver.url))
        scene.registry.adapters.create(TONE, AdapterEdit(visibility="public"))
        scene.registry.tokens.revoke(scene.registry.tokens.list().items[0].id)
        scene.send()
        assert receiver.messages == []


def test_a_removal_deletes_messages_in_parts_and_asks_for_the_right_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_deliveries, "MAX_DELETED", 2)
    first, second = scene.add("http://192.0.2.1/"), scene.add("http://192.0.2.2/")
    for _ in range(5):
        scene.registry.webhooks.test(first.webhook.id)
        scene.registry.webhooks.test(second.webhook.id)
    stranger = scene.registry.on_behalf_of(Identity.with_role("eve", "owner", ["other"]))
    with pytest.raises(NotFound):
        stranger.webhooks.remove(first.webhook.id)
    assert len(scene.log(first)) == 5
    left: list[int] = []
    original = webhook_deliveries.delete_some

    def delete_some(tx: Transaction, webhook: int) -> bool:
        is_last = original(tx, webhook)
        left.append(tx.execute(text("SELECT count(*) FROM webhook_deliveries")).scalar_one())
        return is_last

    monkeypatch.setattr(webhook_deliveries, "delete_some", delete_some)
    scene.registry.webhooks.remove(first.webhook.id)
    assert left == [8, 6, 5]
    assert [one.id for one in scene.registry.webhooks.list()] == [second.webhook.id]
    assert len(scene.log(second)) == 5


def test_old_messages_are_deleted(scene: Scene) -> None:
    with receiving() as receiver:
        made = scene.add(receiver.url)
        scene.happen()
        scene.send()
        scene.now += DELIVERY_RETENTION - timedelta(hours=1)
        scene.happen(AdapterName.parse("acme/voice"))
        scene.send()
    with scene.registry.catalog.write() as tx:
        assert webhook_deliveries.prune(tx, scene.now + timedelta(hours=2) - DELIVERY_RETENTION, 100) == 1
    assert [one.kind for one in scene.log(made)] == ["adapter.created"]


def test_a_webhook_for_which_the_system_had_no_thread_is_served_when_it_has_one(scene: Scene) -> None:
    with receiving() as receiver:
        made = scene.add(receiver.url)
        scene.happen()
        size = threading.stack_size(1 << 46)  # no system has the memory for such a thread
        try:
            with pytest.raises(RuntimeError, match="start new thread"):
                scene.send()
        finally:
            threading.stack_size(size)
        scene.send()
        receiver.wait_for(1)
    assert [one.state for one in scene.log(made)] == ["delivered"]


_SENDER = """
import sys
from pathlib import Path
from adaptry.core.outgoing_requests.addresses import parse_network
from adaptry.storage.connect import open_local
from adaptry.storage.webhooks.delivery import webhook_connector
from adaptry.storage.webhooks.sender import WebhookSender

registry = open_local(Path(sys.argv[1]))
sender = WebhookSender(registry.catalog, webhook_connector((parse_network("127.0.0.0/8"),), None))
sender.run()
"""


@pytest.mark.slow
def test_a_message_of_a_killed_sender_is_sent_again_with_the_same_id(scene: Scene, folder: Path) -> None:
    scene.now = datetime.now(UTC)
    with receiving() as receiver:
        made = scene.add(receiver.url)
        scene.happen()
        killed = subprocess.run(
            [sys.executable, "-c", _SENDER, str(folder)],
            env={**os.environ, VARIABLE: "webhooks.after_send"},
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        (first,) = receiver.wait_for(1)
        scene.send()
        assert len(receiver.messages) == 1  # the dead one's lease
        scene.now = datetime.now(UTC) + LEASE
        scene.send()
        (_, again) = receiver.messages
    assert (again.id, again.body) == (first.id, first.body)
    assert [(one.state, one.attempts) for one in scene.log(made)] == [("delivered", 2)]
