"""`adaptry ls`, `search`, `show`, `diff` and `history`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from adaptry.core.errors import Corrupt, Denied, NotFound
from adaptry.core.query import GRAMMAR
from adaptry.core.refs import AdapterName, Latest, Ref
from adaptry.operations.known_base import base_of
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterInfo, VersionDetail, VersionInfo
from adaptry_cli.arguments import NAME, REF, SOURCE, Source
from adaptry_cli.connection import Connected, connected_option, registry_option
from adaptry_cli.derive_output import parent_of
from adaptry_cli.diff import Side, differences
from adaptry_cli.inputs import look_into, no_version_yet
from adaptry_cli.out import gather, json_option, limit_option, number, progress, say_json, tell
from adaptry_cli.similarity_output import say_distance
from adaptry_cli.tables import say_facts, say_table
from adaptry_cli.verdicts import facts_of_verdicts, json_of_verdicts
from adaptry_cli.version_text import base_text, detail_text, facts_of_adapter, facts_of_version, when
from adaptry_cli.workers import served_text

if TYPE_CHECKING:
    from adaptry.checks.runtimes import Verdict
    from adaptry.compute.comparing.results import Distance

_EXCLUDING = re.compile(r"-[^\W\d].|-\"")  # options of one letter have nothing behind it


@click.command()
@click.argument("what", metavar="[NAMESPACE|NAME]", required=False)
@limit_option
@registry_option
@json_option
def ls(registry: Registry, what: str | None, limit: int, as_json: bool) -> None:
    """List adapters, or the versions of one.

    Without a word: all adapters that you may see. With a namespace: its adapters. With namespace/name: the
    versions of that adapter, newest first.
    """
    if what and "/" in what:
        name = AdapterName.parse(what)
        versions = gather(lambda cursor, many: registry.versions(name, cursor, many), limit)
        _say_versions(versions, as_json)
        if not versions:
            tell(no_version_yet(name))
        return
    adapters = gather(lambda cursor, many: registry.adapters(what, cursor, many), limit)
    if as_json:
        say_json(adapters)
    elif adapters:
        say_table(
            ("adapter", "versions", "latest", "visibility", "downloads", "updated", "description"),
            map(_adapter_row, adapters),
            right=("versions", "latest", "downloads"),
        )
    else:
        where = f"in {what}" if what else "here"
        tell(f"no adapters {where} yet; `adaptry push DIR {what or 'namespace'}/name` puts one in")


class _Terms(click.Command):
    """A command whose arguments are terms: `-method:lora` excludes, and is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            return super().parse_args(ctx, args)
        excluding = [word for word in args if _EXCLUDING.match(word)]
        others = [word for word in args if not _EXCLUDING.match(word)]
        return super().parse_args(ctx, [*others, "--", *excluding])


@click.command(cls=_Terms, epilog=f"A query: {GRAMMAR}.")
@click.argument("query", nargs=-1)
@limit_option
@registry_option
@json_option
def search(registry: Registry, query: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find versions by base, method, rank, module, metric and more.

    As in: adaptry search 'base:org/model rank<=16 metric.accuracy>=0.9'. All terms must hold; newest first.
    """
    text = " ".join(query)
    found = gather(lambda cursor, many: registry.search(text, cursor, many), limit)
    _say_versions(found, as_json)
    if not found:
        tell("nothing matches")


@click.command()
@click.argument("ref", type=REF)
@registry_option
@json_option
def show(registry: Registry, ref: Ref, as_json: bool) -> None:
    """Show everything about a version.

    What it is, its base, metrics, aliases, what the checks found, which engines serve it as trained, its files and where
    it comes from.
    """
    info = registry.adapter(ref.name)
    if info.versions == 0 and isinstance(ref.selector, Latest):
        _say_empty(info, as_json)
        return
    detail = registry.detail(ref)
    served = _verdicts(registry, detail)
    residents = registry.residents(ref)
    if as_json:
        told = {"adapter": info.model_dump(mode="json"), **detail.model_dump(mode="json", by_alias=True)}
        told["residents"] = [one.model_dump(mode="json") for one in residents]
        say_json({**told, "runtimes": json_of_verdicts(served)})
        return
    loaded = served_text(residents)
    facts = [*facts_of_version(detail, info), *([("loaded by", loaded)] if loaded else [])]
    say_facts([*facts, *(facts_of_verdicts(served) if served else ())])


def _verdicts(registry: Registry, detail: VersionDetail) -> Sequence[Verdict]:
    """Every engine's; none where the files of a version are not given out, or are damaged."""
    from adaptry.adapters.adapter import open_content
    from adaptry.checks.runtimes import verdicts
    from adaptry.operations.transfer.remote import RevisionContent

    try:
        adapter = open_content(RevisionContent(registry, detail.version, detail.manifest))
    except (Corrupt, Denied, NotFound):
        return ()
    return verdicts(adapter, base_of(registry, detail.version))


@click.command()
@click.argument("before", metavar="REF|DIR", type=SOURCE)
@click.argument("after", metavar="REF|DIR", type=SOURCE)
@click.option("--weights", is_flag=True, help="Read the weights too: how far apart, module by module.")
@click.option(
    "--top",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="With --weights: show so many of the modules that are farthest apart.",
)
@connected_option
@json_option
def diff(connected: Connected, before: Source, after: Source, weights: bool, top: int, as_json: bool) -> None:
    """Show what differs between two adapters.

    Compares what they are (method, base, modules, ranks, config) and their metrics; weights only by digest, unless they
    are asked for.
    """
    opened = [look_into(connected, source) for source in (before, after)]
    found = differences(*(Side.of(one.adapter, one.version) for one in opened))
    apart = _apart(connected, before, after) if weights else None
    if as_json:
        listed = [difference.as_json() for difference in found]
        say_json({"differences": listed, "weights": apart.model_dump(mode="json")} if apart else listed)
        return
    if found:
        say_table(
            ("what", opened[0].label, opened[1].label),
            ((difference.what, difference.before, difference.after) for difference in found),
        )
    else:
        tell("no difference in what they are")
    if apart:
        say_distance(apart, top)


def _apart(connected: Connected, before: Source, after: Source) -> Distance:
    from adaptry.compute.comparing.distance import distance

    with progress() as told:
        one, other = (parent_of(connected, source, told) for source in (before, after))
        return distance(one, other, told)


@click.command()
@click.argument("name", type=NAME)
@limit_option
@registry_option
@json_option
def history(registry: Registry, name: AdapterName, limit: int, as_json: bool) -> None:
    """Show what happened to an adapter.

    Pushes, moves of aliases, metrics, edits: newest first, with who and when.
    """
    events = gather(lambda cursor, many: registry.history(name, cursor, many), limit)
    if as_json:
        say_json(events)
        return
    say_table(
        ("when", "who", "what", "version", "detail"),
        (
            (
                when(event.at),
                event.by,
                event.kind,
                "" if event.number is None else str(event.number),
                detail_text(event),
            )
            for event in events
        ),
        right=("version",),
    )


def _say_empty(info: AdapterInfo, as_json: bool) -> None:
    if as_json:
        say_json(info)
    else:
        say_facts([("name", str(info.name)), *facts_of_adapter(info)])
    tell(no_version_yet(info.name))


def _adapter_row(info: AdapterInfo) -> tuple[str, ...]:
    return (
        str(info.name),
        str(info.versions),
        "" if info.latest is None else str(info.latest),
        info.visibility,
        str(info.downloads),
        when(info.updated_at),
        info.description.split("\n")[0][:60],
    )


def _say_versions(found: list[VersionInfo], as_json: bool) -> None:
    if as_json:
        say_json(found)
    elif found:
        say_table(
            ("version", "aliases", "state", "method", "rank", "modules", "base", "metrics", "findings"),
            map(_version_row, found),
            right=("rank", "findings"),
        )


def _version_row(version: VersionInfo) -> tuple[str, ...]:
    return (
        f"{version.name}@{version.number}",
        ", ".join(version.aliases),
        _state(version),
        version.method,
        "" if version.rank is None else str(version.rank),
        ", ".join(version.targets),
        base_text(version),
        ", ".join(f"{name} {number(value)}" for name, value in version.metrics.items()),
        str(version.findings or ""),
    )


def _state(version: VersionInfo) -> str:
    """What is not as it mostly is: a state other than active, and damage."""
    state = "" if version.state == "active" else version.state
    return " ".join(filter(None, (state, "damaged" if version.is_damaged else "")))
