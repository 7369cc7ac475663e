"""`adaptry runtime ls`, `plan`: engines, and what a server needs for some adapters."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from adaptry_cli.arguments import RUNTIME, SOURCE, Source
from adaptry_cli.connection import Connected, connected_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.out import json_option, say, say_json, size, tell
from adaptry_cli.showing import findings_text
from adaptry_cli.sources import base_of, look_into
from adaptry_cli.tables import say_facts, say_table

if TYPE_CHECKING:
    from adaptry.checks.runtimes import Engine, Plan, Runtime, Subject


@click.group()
def runtime() -> None:
    """Look at engines: what they take, and what a server of them needs.

    `adaptry check REF --runtime ENGINE` says what one makes of an adapter.
    """


@runtime.command("ls")
@click.argument("name", metavar="[ENGINE]", required=False)
@json_option
def list_engines(name: str | None, as_json: bool) -> None:
    """List the engines there are rules for; of one of them its options, and what to beware of."""
    from adaptry.checks.runtimes import ENGINES, parse_runtime

    engines = [ENGINES[parse_runtime(name).engine]] if name else list(ENGINES.values())
    if as_json:
        say_json([_json_of(engine) for engine in engines])
    elif name:
        say_facts(_facts_of(engines[0]))
    else:
        say_table(
            ("engine", "rules read in", "rules", "options"),
            (
                (
                    engine.name,
                    engine.read,
                    str(len(engine.gates) + len(engine.rules)),
                    ", ".join(option.name for option in engine.options),
                )
                for engine in engines
            ),
            right=("rules",),
        )


@runtime.command("plan")
@click.argument("sources", metavar="REF|DIR...", type=SOURCE, nargs=-1, required=True)
@click.option(
    "--runtime",
    "wanted",
    type=RUNTIME,
    default="vllm",
    show_default=True,
    metavar="ENGINE[@VERSION][,OPTION=VALUE…]",
    help="The engine, and limits that are fixed already.",
)
@click.option("--slots", type=click.IntRange(1), help="How many are in use at once; else all of them.")
@connected_option
@json_option
@click.pass_context
def plan_server(
    ctx: click.Context,
    connected: Connected,
    sources: tuple[Source, ...],
    wanted: Runtime,
    slots: int | None,
    as_json: bool,
) -> None:
    """Say which flags a server needs for these adapters, and the memory they cost.

    Only adapters that it would serve as trained count; of the others it is said why, and the exit code is 1.
    """
    from adaptry.checks.runtimes import plan

    subjects = dict(_subject(connected, source) for source in sources)
    made = plan(subjects, wanted, slots)
    if as_json:
        say_json(made)
    else:
        _say_plan(made)
    ctx.exit(NO if made.left_out else 0)


def _subject(connected: Connected, source: Source) -> tuple[str, Subject]:
    from adaptry.checks.runtimes import Subject

    opened = look_into(connected, source)
    base = base_of(connected, opened.version).record if opened.version else None
    return opened.label, Subject(opened.adapter, base)


def _say_plan(made: Plan) -> None:
    say(shlex.join(made.flags) if made.flags else "no flag is needed")
    for one in made.left_out:
        tell(f"left out: {one.name}")
        for line in findings_text(one.verdict.findings).split("\n"):
            tell(f"  {line}")
    taken = len(made.adapters) - len(made.left_out)
    tell(
        f"{taken} of {len(made.adapters)} adapters, largest rank {made.rank}, {made.slots} in use at once: "
        f"{size(made.slot_bytes)} each, {size(made.total_bytes)} together; as a runtime: {made.runtime}"
    )


def _json_of(engine: Engine) -> dict[str, object]:
    return {
        "engine": engine.name,
        "title": engine.title,
        "read": engine.read,
        "rules": [
            {
                "code": rule.code,
                "effect": rule.effect,
                "title": rule.title,
                "repair": rule.repair,
                "source": rule.source,
            }
            for rule in (*engine.gates, *engine.rules)
        ],
        "options": {option.name: option.default for option in engine.options},
        "cautions": list(engine.cautions),
    }


def _facts_of(engine: Engine) -> list[tuple[str, str]]:
    facts = [("engine", engine.title), ("rules read in", engine.read)]
    facts += [("option", f"{option.name} ({option.flag})") for option in engine.options]
    facts += [(rule.effect, rule.title) for rule in (*engine.gates, *engine.rules)]
    return [*facts, *(("beware", caution) for caution in engine.cautions)]
