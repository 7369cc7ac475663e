"""Runners deliver webhooks: with a PostgreSQL catalog, only runners do."""

from __future__ import annotations

from pathlib import Path

from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterEdit
from adaptry.registry.webhooks import WebhookRequest
from adaptry.storage.connect import open_local
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.receivers import receiving
from adaptry.testing.runners import RunnerProcess

NAMES = [AdapterName.parse(f"acme/tone-{number}") for number in range(10)]


def test_two_runners_deliver_each_event_once(data: Path, postgres: PostgresServer) -> None:
    url = postgres.url(postgres.create_migrated())
    options = ("--catalog", url, "--allow-outgoing", "127.0.0.0/8")
    with receiving() as receiver, open_local(data, catalog=url) as registry:
        made = registry.webhooks.add(WebhookRequest(namespace="acme", url=receiver.url))
        runners = [RunnerProcess(data, *options) for _ in range(2)]
        try:
            for name in NAMES:
                registry.adapters.create(name, AdapterEdit())
            receiver.wait_for(len(NAMES))
        finally:
            for runner in runners:
                runner.stop()
        log = registry.webhooks.deliveries(made.webhook.id).items
    assert {one.state for one in log} == {"delivered"}
    assert sorted(message.event["data"]["name"] for message in receiver.messages) == sorted(map(str, NAMES))
    assert len({message.id for message in receiver.messages}) == len(NAMES)
