"""`adaptry workers ls`, `show`, `declare-gone`, `forget`: the engines, and what each has loaded."""

from __future__ import annotations

import click

from adaptry.registry.interface import Registry
from adaptry.registry.workers import MAX_PROBLEMS, WorkerGoneRequest, WorkerInfo
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.connection import registry_option
from adaptry_cli.number_options import limit_option
from adaptry_cli.output import collect_pages, json_option, print_done, print_err, print_json
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.times import exact_times_option, format_when
from adaptry_cli.worker_text import (
    offline_text,
    problem_count,
    problem_explains,
    resident_text,
    state_text,
    state_word,
)

_owner = click.option(
    "--owner",
    metavar="TOKEN",
    help="Name of the worker's token, if several tokens have a worker of that name.",
)


@group(former={"gone": "declare-gone"})
def workers() -> None:
    """Show the engines, and what each has loaded.

    Each engine is reported by its worker: `adaptry follow` beside it, or the plugin in vLLM. If a worker does
    not report in time, its state is unknown, and its versions count as served until it reports again or is
    declared gone.
    """


@workers.command("ls")
@limit_option
@registry_option
@exact_times_option
@json_option
def list_all(registry: Registry, limit: int, as_json: bool) -> None:
    """List your own workers, and those that have loaded something you may read."""
    found = collect_pages(registry.workers.list, limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("worker", "state", "engine", "adapters", "problems", "base", "owner", "last report"),
        (
            (
                one.worker,
                state_word(one),
                _engine(one),
                str(sum(each.may_be_served for each in one.residents)),
                problem_count(one),
                one.base_label,
                one.owner,
                format_when(one.reported_at),
            )
            for one in found
        ),
        right=("adapters", "problems"),
        cut=("base",),
        drop=("owner", "base", "last report", "engine"),
    )
    if not found:
        print_err(
            "no worker reports to this registry; start one beside each engine: `adaptry follow`, or the"
            " plugin in vLLM (docs/vllm.md)"
        )


@workers.command()
@click.argument("name", metavar="WORKER")
@_owner
@registry_option
@exact_times_option
@json_option
def show(registry: Registry, name: str, owner: str | None, as_json: bool) -> None:
    """Show a worker: what it has loaded, since when, and what it cannot serve."""
    found = registry.workers.get(name, owner)
    if as_json:
        print_json(found)
        return
    facts = [("worker", f"{found.worker}   {state_text(found)}"), ("engine", _engine(found))]
    facts += [("address", found.url)] if found.url else []
    facts += [("base", found.base_label)] if found.base_label else []
    facts += [("slots", str(found.slots))] if found.slots else []
    facts += [
        (
            "last report",
            (
                f"{format_when(found.reported_at)}, valid for {found.lease} s; first report"
                f" {format_when(found.first_at)}; token {found.owner}"
            ),
        )
    ]
    facts += [("events", f"applied up to number {found.last_event}")] if found.last_event is not None else []
    facts += [("offline", offline)] if (offline := offline_text(found)) else []
    is_current = found.is_answering and not found.is_lost
    problems = {one.served_as: one.reason for one in found.problems}
    for one in found.residents:
        explains = problem_explains(one, problems.get(one.served_as))
        problem = problems.pop(one.served_as) if explains else None
        facts += [(one.served_as, resident_text(one, is_current, problem))]
    facts += [(name, f"problem: {reason}") for name, reason in problems.items()]
    if len(found.problems) == MAX_PROBLEMS and not found.problems[-1].served_as.startswith("("):
        facts += [("more", f"a report has at most {MAX_PROBLEMS} problems; there may be others")]
    print_facts(facts)


@workers.command("declare-gone")
@click.argument("name", metavar="WORKER")
@click.option("--reason", required=True, metavar="TEXT", help="How you know that the engine is gone.")
@_owner
@registry_option
@json_option
def declare_gone(registry: Registry, name: str, reason: str, owner: str | None, as_json: bool) -> None:
    """Declare that the engine of a silent worker is gone.

    Recalls no longer wait for it, and show who declared it gone and why; the removal does not count as
    proved. If the worker reports again, the declaration ends and its recalls are open again. Only the
    worker's own token and administrators may declare it gone.
    """
    registry.workers.declare_gone(name, validate_options(WorkerGoneRequest, reason=reason), owner)
    print_done(
        {"worker": name, "reason": reason},
        f"{name} is declared gone; the record of its versions is kept",
        as_json,
    )


@workers.command()
@click.argument("name", metavar="WORKER")
@_owner
@registry_option
@json_option
def forget(registry: Registry, name: str, owner: str | None, as_json: bool) -> None:
    """Delete the record of a worker that serves nothing, or was declared gone.

    Refused while a recall needs the record: the worker had loaded a withdrawn version, and has not proved
    that it unloaded it.
    """
    registry.workers.forget(name, owner)
    print_done({"deleted": name}, f"deleted the record of {name}", as_json)


def _engine(one: WorkerInfo) -> str:
    return f"{one.engine}@{one.version}" if one.version else one.engine
