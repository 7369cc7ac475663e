"""`adaptry runtime ls`, `plan`, `compare`: engines' rules, a server's flags, adapters it can serve."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from adaptry.adapters.base_record import BaseRecord
from adaptry.core.errors import Invalid, NotFound
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.sources import OpenedAdapter, open_input, version_base
from adaptry_cli.arguments import (
    ENGINE,
    RUNTIME,
    SOURCE,
    Source,
    declared_runtime_option,
    engine_key_option,
    served_base_option,
)
from adaptry_cli.command import group
from adaptry_cli.connection import RegistryOpener, lazy_registry_option, settings_for
from adaptry_cli.exit_codes import NO
from adaptry_cli.number_options import WholeNumber, limit_option
from adaptry_cli.output import (
    collect_pages,
    format_count,
    format_size,
    json_option,
    print_err,
    print_json,
    print_lines,
    print_out,
)
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.version_text import findings_text

if TYPE_CHECKING:
    from adaptry.checks.runtimes import CheckSubject, Runtime, RuntimeRules, ServerPlan
    from adaptry.integrations.engine_probe import EngineInfo


@group()
def runtime() -> None:
    """Show engine rules, plan a server's flags, or compare adapters with a running engine.

    `adaptry check REF --runtime ENGINE` checks one adapter.
    """


@runtime.command("ls")
@click.argument("name", metavar="[ENGINE]", required=False, type=ENGINE)
@json_option
def list_engines(name: str | None, as_json: bool) -> None:
    """List the engines that have rules, or the options, rules and cautions of one engine."""
    from adaptry.checks.runtimes import ENGINES, parse_runtime

    engines = [ENGINES[parse_runtime(name).engine]] if name else list(ENGINES.values())
    if as_json:
        print_json([_json_of(engine) for engine in engines])
    elif name:
        print_facts(_facts_of(engines[0]))
    else:
        print_table(
            ("engine", "rules read in", "rules", "options"),
            (
                (
                    engine.name,
                    engine.source_version,
                    str(len(engine.preconditions) + len(engine.rules)),
                    ", ".join(option.name for option in engine.options),
                )
                for engine in engines
            ),
            right=("rules",),
            cut=("options", "rules read in"),
        )


@runtime.command("plan")
@click.argument("sources", metavar="REF|DIR...", type=SOURCE, nargs=-1, required=True)
@click.option(
    "--runtime",
    "runtime",
    type=RUNTIME,
    default="vllm",
    show_default=True,
    help="The engine, with the limits that it is already started with.",
)
@click.option(
    "--slots", type=WholeNumber(1), help="Number of adapters that one batch can use. Default: all of them."
)
@lazy_registry_option
@json_option
@click.pass_context
def plan_server(
    ctx: click.Context,
    connected: RegistryOpener,
    sources: tuple[Source, ...],
    runtime: Runtime,
    slots: int | None,
    as_json: bool,
) -> None:
    """Show the flags that a server needs for these adapters, and the memory they cost.

    Adapters that the engine would not serve as trained are left out, with the reason, and the exit code is 1.
    """
    from adaptry.checks.runtimes import build_server_plan

    subjects = dict(_subject(connected, source) for source in sources)
    made = build_server_plan(subjects, runtime, slots)
    if as_json:
        print_json(made)
    else:
        _print_server_plan(made)
    ctx.exit(NO if made.unservable else 0)


@runtime.command("compare")
@click.argument("url")
@served_base_option
@declared_runtime_option("The engine, or limits that it does not report")
@engine_key_option
@limit_option
@lazy_registry_option
@json_option
def compare_running(
    connected: RegistryOpener,
    url: str,
    base: str | None,
    declared: Runtime | None,
    key: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the registry's adapters that a running engine would serve as trained.

    Checks the newest version of each adapter of the engine's base. vLLM, SGLang, llama.cpp and mistral.rs
    report what they are; for other engines, pass --runtime.
    """
    from adaptry.checks.runtimes import check_runtime

    found = _detect_engine(url, declared, key)
    name, record = _served_base(connected, found, base)
    print_err(f"{url} is {found.runtime}, serving {name}")
    verdicts = [
        (opened.label, check_runtime(opened.adapter, found.runtime, record))
        for opened in _newest(connected, name, limit)
    ]
    as_trained = [label for label, one in verdicts if one.outcome == "as_trained"]
    if as_json:
        print_json(
            {
                "runtime": str(found.runtime),
                "base": name,
                "loaded": list(found.adapters),
                "as_trained": as_trained,
                "verdicts": {label: one.model_dump(mode="json") for label, one in verdicts},
            }
        )
        return
    print_lines(as_trained)
    for label, one in verdicts:
        if one.outcome != "as_trained":
            first = one.findings[0]
            print_err(f"left out: {label}: {first.reason} [{first.code}] → {first.remedy}")
    print_err(
        f"{len(as_trained)} of {format_count(len(verdicts), 'adapter')} of {name} are served as trained"
    )


def _detect_engine(url: str, declared: Runtime | None, key: str | None) -> EngineInfo:
    """The running engine. Declared values take precedence over what the engine reports."""
    from adaptry.checks.runtimes import Runtime
    from adaptry.integrations.engine_probe import EngineInfo, probe_engine

    try:
        found = probe_engine(url, settings_for(None).ca_bundle, key)
    except NotFound:
        if declared is None:
            raise
        return EngineInfo(declared, ())
    if declared is None:
        return found
    if declared.engine != found.runtime.engine:
        raise Invalid(f"{url} is {found.runtime}, not {declared.engine}; pass the right --runtime")
    detected = found.runtime
    options = {**detected.options, **declared.options}
    return replace(found, runtime=Runtime(detected.engine, declared.version or detected.version, options))


def _served_base(connected: RegistryOpener, found: EngineInfo, base: str | None) -> tuple[str, BaseRecord]:
    """The served base, found by the server's names for it. Raises `NotFound` if none is known."""
    names = [base] if base else list(found.models)
    for name in names:
        try:
            info = connected().bases.get(name)
        except (Invalid, NotFound):
            if base:
                raise
            continue
        return (info.names[0] if info.names else str(info.id)), connected().bases.record(info.id)
    served_names = ", ".join(names[:3]) or "no model"
    raise NotFound(f"the engine serves {served_names}, which is not a registered base; pass --base NAME")


def _newest(connected: RegistryOpener, base: str, limit: int) -> Iterator[OpenedAdapter]:
    """The newest version of each adapter of a base."""
    registry = connected()
    versions = collect_pages(
        lambda cursor, many: registry.versions.search(f'base:"{base}"', cursor, many), limit
    )
    newest: dict[AdapterName, int] = {}
    for version in versions:
        newest[version.name] = max(version.number, newest.get(version.name, 0))
    for name, number in newest.items():
        yield open_input(connected, Ref.parse(f"{name}@{number}"))


def _subject(connected: RegistryOpener, source: Source) -> tuple[str, CheckSubject]:
    from adaptry.checks.runtimes import CheckSubject

    opened = open_input(connected, source)
    base = version_base(connected, opened.version).record if opened.version else None
    return opened.label, CheckSubject(opened.adapter, base)


def _print_server_plan(made: ServerPlan) -> None:
    print_out(shlex.join(made.flags) if made.flags else "no flags are needed")
    for one in made.unservable:
        print_err(f"left out: {one.name}")
        for line in findings_text(one.verdict.findings).split("\n"):
            print_err(f"  {line}")
    taken = len(made.adapters) - len(made.unservable)
    print_err(
        f"{taken} of {format_count(len(made.adapters), 'adapter')}; planned for ranks up to {made.rank} and"
        f" {format_count(made.slots, 'adapter')} at once; memory: {format_size(made.slot_bytes)} each,"
        f" {format_size(made.total_bytes)} together;"
        f" for --runtime: {made.runtime}"
    )


def _json_of(engine: RuntimeRules) -> dict[str, object]:
    return {
        "engine": engine.name,
        "title": engine.title,
        "read": engine.source_version,
        "rules": [
            {
                "code": rule.code,
                "effect": rule.effect,
                "title": rule.title,
                "repair": rule.repair,
                "source": rule.source,
            }
            for rule in (*engine.preconditions, *engine.rules)
        ],
        "options": {option.name: option.default for option in engine.options},
        "cautions": list(engine.warnings),
    }


def _facts_of(engine: RuntimeRules) -> list[tuple[str, str]]:
    facts = [("engine", engine.title), ("rules read in", engine.source_version)]
    facts += [("option", f"{option.name} ({option.flag})") for option in engine.options]
    facts += [(rule.effect, rule.title) for rule in (*engine.preconditions, *engine.rules)]
    return [*facts, *(("caution", caution) for caution in engine.warnings)]
