"""`adaptry webhook`: send a namespace's events to other systems."""

from __future__ import annotations

import time

import click

from adaptry.core.outgoing_requests.addresses import is_public_host
from adaptry.core.outgoing_requests.url import OutgoingUrl
from adaptry.registry.interface import Registry
from adaptry.registry.webhooks import (
    CreatedSecret,
    SecretRotation,
    WebhookDelivery,
    WebhookInfo,
    WebhookRequest,
)
from adaptry_cli.administration import administered_registry
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.number_options import DecimalNumber, WholeNumber
from adaptry_cli.output import (
    collect_pages,
    format_count,
    json_option,
    print_done,
    print_err,
    print_json,
    print_out,
)
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when
from adaptry_cli.warnings import warn

_ID = click.argument("id", metavar="ID", type=WholeNumber(1))
_ANSWER_SECONDS = 15.0
_POLL_INTERVAL = 0.2


@group()
def webhook() -> None:
    """Send a namespace's events to other systems, signed, and inspect the deliveries.

    docs/webhooks.md shows what a receiver gets and how it verifies it.
    """


@webhook.command()
@click.argument("namespace")
@click.argument("url")
@click.option(
    "--event",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only events of this kind, such as alias.moved or version.*; may be repeated.",
)
@click.option(
    "--adapter",
    "adapters",
    default="*",
    show_default=True,
    metavar="GLOB",
    help="Only events about adapters whose name, without the namespace, matches.",
)
@administered_registry
@json_option
def add(
    registry: Registry, namespace: str, url: str, kinds: tuple[str, ...], adapters: str, as_json: bool
) -> None:
    """Send the events of NAMESPACE that you may read to URL, from now on.

    Prints the signing secret, which is not shown again.
    """
    request = validate_options(WebhookRequest, namespace=namespace, url=url, kinds=kinds, adapters=adapters)
    created = registry.webhooks.add(request)
    if not is_public_host(host := OutgoingUrl.parse(url).host):
        warn(
            f"{host} is not a public address, so deliveries are refused unless the server's operator allows"
            " its network (adaptry serve --allow-outgoing); to try it, run"
            f" `adaptry webhook test {created.webhook.id}`"
        )
    done = f"webhook {created.webhook.id} receives the events of {namespace} from now on"
    _print_secret(created, done, as_json)


@webhook.command()
@click.argument("namespace", required=False)
@administered_registry
@json_option
def ls(registry: Registry, namespace: str | None, as_json: bool) -> None:
    """List the webhooks that you manage, of one namespace or of all."""
    found = registry.webhooks.list(namespace)
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "namespace", "url", "events", "owner", "state"),
        ((str(one.id), one.namespace, one.url, _events(one), one.owner, _state(one)) for one in found),
        right=("id",),
        empty="no webhooks; `adaptry webhook add NAMESPACE URL` adds one",
    )


@webhook.command()
@_ID
@administered_registry
@json_option
def show(registry: Registry, id: int, as_json: bool) -> None:
    """Show a webhook, without its secret."""
    _print_webhook(registry.webhooks.get(id), as_json)


@webhook.command()
@_ID
@administered_registry
@json_option
def rm(registry: Registry, id: int, as_json: bool) -> None:
    """Remove a webhook and the log of its messages."""
    registry.webhooks.remove(id)
    print_done({"removed": id}, f"webhook {id} is removed", as_json)


@webhook.command()
@_ID
@administered_registry
@json_option
def enable(registry: Registry, id: int, as_json: bool) -> None:
    """Enable a disabled webhook: it receives events from now on."""
    _print_webhook(registry.webhooks.set_enabled(id, True), as_json)


@webhook.command()
@_ID
@administered_registry
@json_option
def disable(registry: Registry, id: int, as_json: bool) -> None:
    """Disable a webhook until it is enabled again; events in between are not sent later."""
    _print_webhook(registry.webhooks.set_enabled(id, False), as_json)


@webhook.command()
@_ID
@administered_registry
@json_option
def test(registry: Registry, id: int, as_json: bool) -> None:
    """Send a test message to a webhook, and show the receiver's response.

    A running server or runner sends it within 15 seconds.
    """
    made = registry.webhooks.test(id)
    deadline = time.monotonic() + _ANSWER_SECONDS
    while made.state == "pending" and time.monotonic() < deadline:
        time.sleep(_POLL_INTERVAL)
        found = registry.webhooks.deliveries(id, limit=200).items
        made = next((one for one in found if one.message == made.message), made)
    if as_json:
        print_json(made)
    else:
        print_out(made.message)
        print_err(_result(made))
    if made.state != "delivered":
        click.get_current_context().exit(1)


@webhook.command()
@_ID
@click.option(
    "--overlap",
    type=DecimalNumber(0, 720),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="How long messages are also signed with the old secret.",
)
@administered_registry
@json_option
def rotate(registry: Registry, id: int, overlap: float, as_json: bool) -> None:
    """Replace a webhook's secret. Messages have both signatures until the overlap ends."""
    created = registry.webhooks.rotate(id, SecretRotation(hours=overlap))
    _print_secret(created, f"the old secret of webhook {id} also signs for {overlap:g} hours", as_json)


@webhook.command()
@_ID
@click.option(
    "--limit",
    type=WholeNumber(1, 100_000),
    default=50,
    show_default=True,
    metavar="N",
    help="Maximum number of messages.",
)
@administered_registry
@exact_times_option
@json_option
def deliveries(registry: Registry, id: int, limit: int, as_json: bool) -> None:
    """List the messages to a webhook, newest first, with the result of each one's last attempt."""
    found = collect_pages(lambda cursor, count: registry.webhooks.deliveries(id, cursor, count), limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("message", "event", "kind", "created", "attempts", "result"),
        (
            (
                one.message,
                str(one.event) if one.event is not None else "",
                one.kind,
                format_when(one.created_at),
                str(one.attempts),
                _result(one),
            )
            for one in found
        ),
        right=("event", "attempts"),
        empty="no messages yet; `adaptry webhook test ID` sends one",
    )


@webhook.command()
@_ID
@click.argument("message", metavar="MESSAGE")
@administered_registry
@json_option
def redeliver(registry: Registry, id: int, message: str, as_json: bool) -> None:
    """Send a message again, with the same id."""
    found = registry.webhooks.redeliver(id, message)
    if as_json:
        print_json(found)
        return
    print_err(f"{message} is sent again; `adaptry webhook deliveries {id}` shows the result")


def _print_secret(created: CreatedSecret, sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(created)
        return
    print_err(sentence)
    print_err("its secret, which is not shown again:")
    print_out(created.secret)


def _print_webhook(found: WebhookInfo, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    facts = {
        "webhook": str(found.id),
        "namespace": found.namespace,
        "url": found.url,
        "events": _events(found),
        "adapters": found.adapters,
        "owner": found.owner,
        "created": format_when(found.created_at),
        "state": _state(found),
    }
    if found.old_secret_until:
        facts["old secret until"] = format_when(found.old_secret_until)
    for name, value in facts.items():
        print_out(f"{name + ':':18}{value}")


def _events(found: WebhookInfo) -> str:
    return ", ".join(found.kinds) or "all"


def _state(found: WebhookInfo) -> str:
    if found.disabled_at is not None:
        return f"disabled: {found.disabled_reason}"
    return f"{format_count(found.failures, 'failure')} in a row" if found.failures else "enabled"


def _result(one: WebhookDelivery) -> str:
    took = f" in {one.milliseconds} ms" if one.milliseconds is not None else ""
    match one.state:
        case "delivered":
            return f"delivered{took}"
        case "withheld":
            return "withheld: the owner may no longer read it"
        case "failed":
            return f"failed: {one.error or 'not sent within a day'}"
    if one.error and one.due_at:
        return f"{one.error}; next attempt at {format_when(one.due_at)}"
    return "pending"
