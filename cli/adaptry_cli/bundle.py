"""`adaptry bundle create`, `load` and `show`: versions in one file."""

from __future__ import annotations

from pathlib import Path

import click

from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import Latest, Ref
from adaptry.operations.mirror.plan import ancestors, list_versions, search_versions
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry_cli.arguments import FOLDER, REF, require_usage
from adaptry_cli.command import group
from adaptry_cli.connection import creating_registry_option, registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.mirror import print_sync_result
from adaptry_cli.output import (
    format_count,
    format_size,
    json_option,
    print_answer,
    print_err,
    print_json,
    print_out,
    progress,
)
from adaptry_cli.warnings import print_state_warning


@group()
def bundle() -> None:
    """Move versions to another registry in one file, without a network.

    The file contains manifests and files, metrics and states, aliases, the records of bases and, with
    --with-base, their weights. It is a tar file; the same versions always give the same bytes.
    """


@bundle.command()
@click.argument("refs", type=REF, nargs=-1)
@click.option(
    "-o", "--output", "file", metavar="FILE", type=FOLDER, required=True, help="The bundle to write."
)
@click.option("--query", metavar="QUERY", help="Also include the versions that a search finds.")
@click.option("--all-versions", is_flag=True, help="Include all versions of the named adapters.")
@click.option("--parents", is_flag=True, help="Also include the versions that they were made from.")
@click.option(
    "--with-base",
    "with_bases",
    is_flag=True,
    help="Also include the weights of their bases, which must be stored in the registry.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@registry_option
@json_option
def create(
    registry: Registry,
    refs: tuple[Ref, ...],
    file: Path,
    query: str | None,
    all_versions: bool,
    parents: bool,
    with_bases: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write versions to a bundle.

    Every file is verified as it is written. The bundle appears only once it is complete; its name is then
    printed.
    """
    from adaptry.operations.mirror.bundles.writer import create_bundle as pack

    require_usage(bool(refs) or query is not None, "name the versions (REF…), or pass --query QUERY")
    found: list[VersionInfo] = []
    for ref in refs:
        if all_versions:
            require_usage(
                isinstance(ref.selector, Latest),
                f"--all-versions takes names of adapters such as {ref.name}, not {ref}",
            )
            found += [one for one in list_versions(registry.versions, ref.name) if one.state not in WITHDRAWN]
        else:
            found.append(registry.versions.get(ref))
    if query is not None:
        found += search_versions(registry.versions, query)
    if parents:
        found += [one for one in ancestors(registry, found) if one.state not in WITHDRAWN]
    for version in found:
        print_state_warning(version)
    with progress() as bars:
        index = pack(registry, found, file, with_bases=with_bases, replace=force, progress=bars)
    total = sum(entry.size for entry in index.entries)
    print_err(
        f"{format_count(len(index.parcels), 'version')}, {format_count(len(index.bases), 'base')},"
        f" {format_size(total)}"
    )
    print_answer({"file": str(file), "index": index.model_dump(mode="json")}, str(file), as_json)


@bundle.command()
@click.argument("file", metavar="FILE", type=FOLDER)
@click.option("--aliases", is_flag=True, help="Also move aliases to match the bundle.")
@creating_registry_option
@json_option
def load(registry: Registry, file: Path, aliases: bool, as_json: bool) -> None:
    """Load a bundle's versions into the registry.

    The whole file is verified first. Each version keeps its number, metrics and state. Files that the
    registry already has are not sent again. The exit code is 1 if a version was refused.
    """
    from adaptry.operations.mirror.bundles.reader import load_bundle as unpack

    with progress() as bars:
        loaded = unpack(registry, file, aliases=aliases, progress=bars)
    print_sync_result(loaded, as_json)
    click.get_current_context().exit(NO if loaded.failures else 0)


@bundle.command()
@click.argument("file", metavar="FILE", type=FOLDER)
@json_option
def show(file: Path, as_json: bool) -> None:
    """Verify a bundle, and list what it contains."""
    from adaptry.operations.mirror.bundles.reader import inspect_bundle

    with progress() as bars:
        index = inspect_bundle(file, bars)
    if as_json:
        print_json(index)
        return
    for parcel in index.parcels:
        state = "" if parcel.state == "active" else f" {parcel.state}"
        aliases = f" ({', '.join(parcel.aliases)})" if parcel.aliases else ""
        print_out(f"{parcel} {parcel.digest}{state}{aliases}")
    for base in index.bases:
        weights = f" with {format_count(len(base.files), 'file')}" if base.files else ""
        print_out(f"base {', '.join(base.names) or base.id.brief}{weights}")
