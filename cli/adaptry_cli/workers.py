"""`adaptry workers ls`, `show`, `forget`: which engines there are, and what each has loaded."""

from __future__ import annotations

import click

from adaptry.registry.interface import Registry
from adaptry.registry.workers import ResidentInfo, WorkerInfo
from adaptry_cli.connection import registry_option
from adaptry_cli.out import collect_pages, json_option, limit_option, print_err, print_json
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.version_text import format_when

_SHOWN = 10
_owner = click.option(
    "--owner",
    metavar="TOKEN",
    help="Name of the worker's token, if several tokens have a worker of that name.",
)


@click.group()
def workers() -> None:
    """See which engines there are, and what each has loaded.

    Each is reported by the worker beside it (`adaptry follow`). One that was not heard of in time is lost,
    and what it had counts as served until it is heard of again, or forgotten.
    """


@workers.command("ls")
@limit_option
@registry_option
@json_option
def list_all(registry: Registry, limit: int, as_json: bool) -> None:
    """List the workers that have something you may read, and your own."""
    found = collect_pages(registry.workers.list, limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("worker", "owner", "state", "engine", "base", "adapters", "troubles", "heard of"),
        (
            (
                one.worker,
                one.owner,
                _state(one),
                _engine(one),
                one.base or "",
                str(sum(each.may_be_served for each in one.residents)),
                str(len(one.troubles) or ""),
                format_when(one.reported_at),
            )
            for one in found
        ),
        right=("adapters", "troubles"),
    )
    if not found:
        print_err("no worker reports here; `adaptry follow` is one")


@workers.command()
@click.argument("name", metavar="WORKER")
@_owner
@registry_option
@json_option
def show(registry: Registry, name: str, owner: str | None, as_json: bool) -> None:
    """Show a worker, what it has loaded since when, and what it cannot serve."""
    found = registry.workers.get(name, owner)
    if as_json:
        print_json(found)
        return
    facts = [("worker", f"{found.worker}   {_state(found)}"), ("engine", _engine(found))]
    facts += [("address", found.url)] if found.url else []
    facts += [("base", found.base)] if found.base else []
    facts += [("slots", str(found.slots))] if found.slots else []
    facts += [
        (
            "heard of",
            (
                f"{format_when(found.reported_at)}, holds for {found.lease} s; first"
                f" {format_when(found.first_at)}, of {found.owner}"
            ),
        )
    ]
    facts += [("events", f"acted upon up to {found.seen}")] if found.seen is not None else []
    facts += [(one.served_as, resident_text(one)) for one in found.residents]
    facts += [(one.served_as, f"not as it should be: {one.reason}") for one in found.troubles]
    print_facts(facts)


@workers.command()
@click.argument("name", metavar="WORKER")
@_owner
@registry_option
def forget(registry: Registry, name: str, owner: str | None) -> None:
    """Say that a worker is no more, and serves nothing.

    What it had is no longer counted, in recalls neither: do this only where its engine is gone.
    """
    registry.workers.forget(name, owner)
    print_err(f"{name} is forgotten")


def resident_text(one: ResidentInfo) -> str:
    """`acme/tone@3, serving since 2026-11-26 04:00, last used …`."""
    used = f", last used {format_when(one.last_used)}" if one.last_used else ""
    reason = f": {one.reason}" if one.reason else ""
    state = "" if one.state == "active" else f" ({one.state})"
    return f"{one.name}@{one.number}{state}, {one.condition} since {format_when(one.since)}{used}{reason}"


def served_text(residents: tuple[ResidentInfo, ...]) -> str:
    """A line for each worker that has a version, for `adaptry show`."""
    lines = [
        f"{one.worker} as {one.served_as}, {'lost, ' if one.is_lost else ''}{one.condition} since"
        f" {format_when(one.since)}"
        for one in residents
        if one.may_be_served
    ]
    more = [f"and {len(lines) - _SHOWN} more: adaptry workers ls"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])


def _state(one: WorkerInfo) -> str:
    if one.is_lost:
        return "lost"
    return "serving" if one.is_answering else "engine away"


def _engine(one: WorkerInfo) -> str:
    return f"{one.engine}@{one.version}" if one.version else one.engine
