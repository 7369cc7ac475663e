"""`adaptry base add`, `edit`, `bind`, `ls`, `show` and `match`."""

from __future__ import annotations

from typing import get_args

import click

from adaptry.bases.diffusers_pipeline import open_base_folder
from adaptry.core.errors import NotFound
from adaptry.core.identity import BaseVisibility
from adaptry.core.refs import Ref
from adaptry.operations import base_registry
from adaptry.operations.base_recognition import BaseRecogniser, bind_versions
from adaptry.operations.hf_import.hub_names import HubRef, is_hub_ref
from adaptry.operations.quantised_variants import related_bases
from adaptry.registry.base_info import BaseEdit, BaseInfo
from adaptry.registry.bases import Bases
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import BASE, REF, base_source, require_usage, required_folder
from adaptry_cli.command import group
from adaptry_cli.connection import creating_registry_option, registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.number_options import limit_option
from adaptry_cli.output import (
    collect_pages,
    json_option,
    print_answer,
    print_err,
    print_json,
    print_out,
    progress,
)
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.times import exact_times_option, format_when

_visibility = click.option(
    "--visibility",
    type=click.Choice(get_args(BaseVisibility)),
    help=(
        "Who may see the base: tokens of its names' namespaces (private), every token with a namespace"
        " (internal), or all callers (public)."
    ),
)


@group()
def base() -> None:
    """Register base models, and recognise them by content.

    A base is identified by its config, its shapes and a sample of its weights, not by its name.
    """


@base.command()
@click.argument("source", metavar="DIR|hf:ORG/MODEL")
@click.option(
    "--name", "names", multiple=True, metavar="ORG/MODEL", help="A name of the base; may be repeated."
)
@click.option("--full", is_flag=True, help="Read every weight, and record digests of all tensors and files.")
@click.option(
    "--store",
    is_flag=True,
    help="Also store the weights, so that everyone who may see the base can merge into it.",
)
@_visibility
@creating_registry_option
@json_option
def add(
    registry: Registry,
    source: str,
    names: tuple[str, ...],
    full: bool,
    store: bool,
    visibility: BaseVisibility | None,
    as_json: bool,
) -> None:
    """Register the base model (or diffusers pipeline) in a folder.

    DIR is a folder such as ./base. hf:ORG/MODEL, or hf:ORG/MODEL@REVISION, is a model on a hub; only small
    parts of its files are read. A base that is already registered gains the new names and evidence. A new
    base is private unless --visibility says otherwise. Prints the base's id.
    """
    if is_hub_ref(source):
        require_usage(
            not (full or store),
            f"--full and --store read every weight: run `hf download {HubRef.parse(source).repository}"
            " --local-dir ./DIR`, then pass the folder",
        )
        info = _add_from_hub(registry.bases, HubRef.parse(source), names)
        if visibility is not None:
            info = registry.bases.edit(info.id, BaseEdit(visibility=visibility))
    else:
        with progress() as bars:
            checkpoint = open_base_folder(required_folder(source))
            info = base_registry.register_base(
                registry, checkpoint, names, full=full, store=store, visibility=visibility, progress=bars
            )
    record = registry.bases.record(info.id)
    if method := record.facts.get("quantization"):
        print_err(f"quantised: {method}")
    for relative in related_bases(registry.bases, record):
        print_err(relative.sentence())
    print_answer(info, str(info.id), as_json)


@base.command()
@click.argument("key", metavar="NAME|ID", type=BASE)
@_visibility
@registry_option
@json_option
def edit(registry: Registry, key: str, visibility: BaseVisibility | None, as_json: bool) -> None:
    """Change who may see a base.

    Only tokens that hold the namespace of one of its names see a private base. To all others, the base does
    not exist, and its adapters are shown with the base name in their config. Prints the base's id.
    """
    require_usage(visibility is not None, "nothing to change: pass --visibility")
    info = registry.bases.edit(registry.bases.get(key).id, BaseEdit(visibility=visibility))
    print_answer(info, str(info.id), as_json)


@base.command()
@click.argument("ref", type=REF)
@click.argument("key", metavar="NAME|DIR|ID", type=BASE)
@click.option(
    "--all",
    "each",
    is_flag=True,
    help="Bind all versions of the adapter whose config names the same base.",
)
@registry_option
@json_option
def bind(registry: Registry, ref: Ref, key: str, each: bool, as_json: bool) -> None:
    """Record which registered base a version was trained on.

    Use this if the version's config names no registered base but, for example, a path on the machine that
    trained it. The version keeps its files, number and digest. It is checked against the base, and engines
    that serve the base can load it. Prints each version and its digest.
    """
    named = BaseRecogniser(registry.bases).named(base_source(key))
    if named.needs_registering or named.info is None:
        raise NotFound(
            named.sentence(ref.name.namespace)
            or f"no base {key[:200]!a}; `adaptry base ls` shows those that are registered"
        )
    versions = [detail.version for detail in bind_versions(registry.versions, ref, named.info.id, each=each)]
    if as_json:
        print_json(versions)
        return
    for version in versions:
        print_out(f"{version.label} {version.digest}")


@base.command()
@limit_option
@registry_option
@json_option
def ls(registry: Registry, limit: int, as_json: bool) -> None:
    """List the registered bases, newest first."""
    found = collect_pages(registry.bases.list, limit)
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("base", "id", "model", "parameters", "dtypes", "adapters", "visibility", "evidence"),
            map(_row, found),
            right=("parameters", "adapters"),
            cut=("base", "evidence"),
            drop=("id", "dtypes", "evidence", "visibility", "model", "parameters", "adapters"),
        )
    else:
        print_err("no bases yet; `adaptry base add ./DIR --name org/model` registers one")


@base.command()
@click.argument("key", metavar="NAME|ID", type=BASE)
@registry_option
@exact_times_option
@json_option
def show(registry: Registry, key: str, as_json: bool) -> None:
    """Show a base: names, architecture, parameters, adapters and evidence."""
    info = registry.bases.get(key)
    record = registry.bases.record(info.id)
    method, known = record.facts.get("quantization"), related_bases(registry.bases, record)
    if as_json:
        others = [{"id": str(each.base.id), "role": each.role, "evidence": each.evidence} for each in known]
        print_json({**info.model_dump(mode="json"), "quantised": method, "relatives": others})
        return
    print_facts(
        [
            ("names", ", ".join(info.names) or "none"),
            ("id", info.id.brief),
            ("architecture", f"{info.model_type or 'unknown'}   {info.architecture.brief}"),
            ("parameters", f"{info.parameters:,} in {', '.join(info.dtypes)}"),
            ("evidence", _evidence(info)),
            ("quantised", "\n".join([str(method or "no"), *(each.sentence() for each in known)])),
            ("tokenizer", info.tokenizer.brief if info.tokenizer else "none found"),
            ("adapters", str(info.adapters)),
            ("visibility", info.visibility),
            ("added", f"{format_when(info.created_at)} by {info.created_by}"),
        ]
    )


@base.command()
@click.argument("folder", metavar="DIR")
@registry_option
@json_option
@click.pass_context
def match(ctx: click.Context, registry: Registry, folder: str, as_json: bool) -> None:
    """Find the registered base that a folder contains, or a copy of it.

    Each match shows how similar the two are, and the evidence. The exit code is 1 if no base is similar.
    """
    found = base_registry.find_matches(registry.bases, open_base_folder(required_folder(folder)))
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("base", "level", "evidence"),
            ((_called(one.base), one.match.level.replace("_", " "), one.match.evidence) for one in found),
        )
    else:
        print_err("no registered base is similar to this folder")
    ctx.exit(0 if found else NO)


def _add_from_hub(bases: Bases, ref: HubRef, names: tuple[str, ...]) -> BaseInfo:
    from adaptry.operations.hf_import.bases import register_from_hub
    from adaptry.operations.hf_import.hub_client import open_hub

    with progress() as bars:
        return register_from_hub(bases, open_hub(), ref, names, progress=bars)


def _row(info: BaseInfo) -> tuple[str, ...]:
    return (
        _called(info),
        info.id.brief,
        info.model_type or "",
        f"{info.parameters:,}",
        ", ".join(info.dtypes),
        str(info.adapters),
        info.visibility,
        _evidence(info),
    )


def _called(info: BaseInfo) -> str:
    return ", ".join(info.names) or info.id.brief


def _evidence(info: BaseInfo) -> str:
    found = ["sampled", "every weight" if info.roots else "", "weights stored" if info.is_stored else ""]
    return ", ".join(part for part in found if part)
