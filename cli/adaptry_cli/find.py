"""`adaptry ls`, `search`, `show`, `diff` and `history`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from adaptry.core.errors import CorruptData, NotFound, PermissionDenied
from adaptry.core.query import GRAMMAR
from adaptry.core.refs import AdapterName, Latest, Ref
from adaptry.operations.known_base import base_record_or_none
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterInfo, VersionDetail, VersionInfo
from adaptry_cli.arguments import NAME, REF, SOURCE, Source
from adaptry_cli.connection import RegistryOpener, lazy_registry_option, registry_option
from adaptry_cli.derive_output import open_parent
from adaptry_cli.differences import DiffSide, find_differences
from adaptry_cli.inputs import no_version_message, open_input
from adaptry_cli.out import (
    collect_pages,
    format_number,
    json_option,
    limit_option,
    print_err,
    print_json,
    progress,
)
from adaptry_cli.similarity_output import print_distance
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.verdicts import facts_of_verdicts, json_of_verdicts
from adaptry_cli.version_text import base_text, detail_text, facts_of_adapter, facts_of_version, format_when
from adaptry_cli.workers import served_text

if TYPE_CHECKING:
    from adaptry.checks.runtimes import RuntimeVerdict
    from adaptry.compute.comparing.results import AdapterDistance

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
        versions = collect_pages(lambda cursor, many: registry.versions(name, cursor, many), limit)
        print_versions(versions, as_json)
        if not versions:
            print_err(no_version_message(name))
        return
    adapters = collect_pages(lambda cursor, many: registry.adapters(what, cursor, many), limit)
    if as_json:
        print_json(adapters)
    elif adapters:
        print_table(
            ("adapter", "versions", "latest", "visibility", "downloads", "updated", "description"),
            map(_adapter_row, adapters),
            right=("versions", "latest", "downloads"),
        )
    else:
        where = f"in {what}" if what else "here"
        print_err(f"no adapters {where} yet; `adaptry push DIR {what or 'namespace'}/name` puts one in")


class _QueryCommand(click.Command):
    """A command whose arguments are terms: `-method:lora` excludes, and is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            return super().parse_args(ctx, args)
        excluding = [word for word in args if _EXCLUDING.match(word)]
        others = [word for word in args if not _EXCLUDING.match(word)]
        return super().parse_args(ctx, [*others, "--", *excluding])


@click.command(cls=_QueryCommand, epilog=f"A query: {GRAMMAR}.")
@click.argument("query", nargs=-1)
@limit_option
@registry_option
@json_option
def search(registry: Registry, query: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find versions by base, method, rank, module, metric and more.

    As in: adaptry search 'base:org/model rank<=16 metric.accuracy>=0.9'. All terms must hold; newest first.
    """
    text = " ".join(query)
    found = collect_pages(lambda cursor, many: registry.search(text, cursor, many), limit)
    print_versions(found, as_json)
    if not found:
        print_err("nothing matches")


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
        _print_empty(info, as_json)
        return
    detail = registry.detail(ref)
    served = _verdicts(registry, detail)
    residents = registry.residents(ref)
    if as_json:
        told = {"adapter": info.model_dump(mode="json"), **detail.model_dump(mode="json", by_alias=True)}
        told["residents"] = [one.model_dump(mode="json") for one in residents]
        print_json({**told, "runtimes": json_of_verdicts(served)})
        return
    loaded = served_text(residents)
    facts = [*facts_of_version(detail, info), *([("loaded by", loaded)] if loaded else [])]
    print_facts([*facts, *(facts_of_verdicts(served) if served else ())])


def _verdicts(registry: Registry, detail: VersionDetail) -> Sequence[RuntimeVerdict]:
    """Every engine's; none where the files of a version are not given out, or are damaged."""
    from adaptry.adapters.adapter import open_content
    from adaptry.checks.runtimes import check_all_runtimes
    from adaptry.operations.transfer.revision_content import RevisionContent

    try:
        adapter = open_content(RevisionContent(registry, detail.version, detail.manifest))
    except (CorruptData, PermissionDenied, NotFound):
        return ()
    return check_all_runtimes(adapter, base_record_or_none(registry, detail.version))


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
@lazy_registry_option
@json_option
def diff(
    connected: RegistryOpener, before: Source, after: Source, weights: bool, top: int, as_json: bool
) -> None:
    """Show what differs between two adapters.

    Compares what they are (method, base, modules, ranks, config) and their metrics; weights only by digest, unless they
    are asked for.
    """
    opened = [open_input(connected, source) for source in (before, after)]
    found = find_differences(*(DiffSide.of(one.adapter, one.version) for one in opened))
    apart = _weight_distance(connected, before, after) if weights else None
    if as_json:
        listed = [difference.as_json() for difference in found]
        print_json({"differences": listed, "weights": apart.model_dump(mode="json")} if apart else listed)
        return
    if found:
        print_table(
            ("what", opened[0].label, opened[1].label),
            ((difference.what, difference.before, difference.after) for difference in found),
        )
    else:
        print_err("no difference in what they are")
    if apart:
        print_distance(apart, top)


def _weight_distance(connected: RegistryOpener, before: Source, after: Source) -> AdapterDistance:
    from adaptry.compute.comparing.distance import measure_distance

    with progress() as told:
        one, other = (open_parent(connected, source, told) for source in (before, after))
        return measure_distance(one, other, told)


@click.command()
@click.argument("name", type=NAME)
@limit_option
@registry_option
@json_option
def history(registry: Registry, name: AdapterName, limit: int, as_json: bool) -> None:
    """Show what happened to an adapter.

    Pushes, moves of aliases, metrics, edits: newest first, with who and when.
    """
    events = collect_pages(lambda cursor, many: registry.history(name, cursor, many), limit)
    if as_json:
        print_json(events)
        return
    print_table(
        ("when", "who", "what", "version", "detail"),
        (
            (
                format_when(event.at),
                event.by,
                event.kind,
                "" if event.number is None else str(event.number),
                detail_text(event),
            )
            for event in events
        ),
        right=("version",),
    )


def _print_empty(info: AdapterInfo, as_json: bool) -> None:
    if as_json:
        print_json(info)
    else:
        print_facts([("name", str(info.name)), *facts_of_adapter(info)])
    print_err(no_version_message(info.name))


def _adapter_row(info: AdapterInfo) -> tuple[str, ...]:
    return (
        str(info.name),
        str(info.versions),
        "" if info.latest is None else str(info.latest),
        info.visibility,
        str(info.downloads),
        format_when(info.updated_at),
        info.description.split("\n")[0][:60],
    )


def print_versions(found: list[VersionInfo], as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found:
        print_table(
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
        ", ".join(f"{name} {format_number(value)}" for name, value in version.metrics.items()),
        str(version.findings or ""),
    )


def _state(version: VersionInfo) -> str:
    """What is not as it mostly is: a state other than active, and damage."""
    state = "" if version.state == "active" else version.state
    return " ".join(filter(None, (state, "damaged" if version.is_damaged else "")))
