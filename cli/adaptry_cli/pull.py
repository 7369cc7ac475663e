"""`adaptry pull`: write a version's files, or those of all versions that a lock file pins, into a folder."""

from __future__ import annotations

from pathlib import Path

import click

from adaptry.core.refs import Ref
from adaptry.operations import transfer as verbs
from adaptry.operations.transfer.quick_pull import try_fast_pull
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import FOLDER, REF, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import reading_registry_option
from adaptry_cli.output import json_option, print_answer, print_err, print_json, print_out, progress


@command()
@click.argument("ref", type=REF, required=False)
@click.option(
    "--to",
    "-o",
    "folder",
    metavar="DIR",
    type=FOLDER,
    help="The folder to write. Default: the adapter's name, in the current folder.",
)
@click.option("--force", is_flag=True, help="Replace another adapter in that folder.")
@click.option(
    "--include-withdrawn",
    is_flag=True,
    help="Also pull a quarantined or revoked version, if you have access to it.",
)
@click.option(
    "--locked",
    metavar="FILE",
    type=FOLDER,
    help="Pull the versions that a lock file pins, each into its own folder in DIR.",
)
@reading_registry_option
@json_option
def pull(
    registry: Registry,
    ref: Ref | None,
    folder: Path | None,
    force: bool,
    include_withdrawn: bool,
    locked: Path | None,
    as_json: bool,
) -> None:
    """Write a version's files into a folder.

    Every file is verified. The folder appears only once it is complete, and contains nothing else. A
    deprecated or yanked version is pulled with a warning; a quarantined or revoked one is refused. With
    --locked, each version is written to DIR/namespace/name@….
    """
    require_usage((ref is None) != (locked is None), "name a version (REF), or pass --locked FILE")
    require_usage(
        locked is None or not include_withdrawn,
        "--include-withdrawn needs a REF; it does not apply to --locked",
    )
    if locked is not None:
        pull_locked(registry, locked, folder or Path(), force, as_json)
        return
    assert ref is not None
    target = folder or Path(ref.name.name)
    if not as_json:
        with progress() as bars:
            version = try_fast_pull(registry, ref, target, bars)
        if version is not None:
            print_err(f"{version.label} {version.digest}")
            print_out(str(target))
            return
    _pull_version(registry, ref, target, force, include_withdrawn, as_json)


def _pull_version(
    registry: Registry, ref: Ref, target: Path, force: bool, include_withdrawn: bool, as_json: bool
) -> None:
    """Pulls a version that may have a warning or a record to print."""
    from adaptry.operations.empty_adapter import explain_empty_adapter
    from adaptry_cli.warnings import print_state_warning

    with explain_empty_adapter(registry.adapters, ref), progress() as bars:
        version = verbs.pull(
            registry, ref, target, force=force, include_withdrawn=include_withdrawn, progress=bars
        )
    print_state_warning(version)
    print_err(f"{version.label} {version.digest}")
    print_answer({"folder": str(target), "version": version.model_dump(mode="json")}, str(target), as_json)


def pull_locked(registry: Registry, file: Path, folder: Path, force: bool, as_json: bool) -> None:
    """Pulls exactly the pinned versions, each into a folder under `folder` that is named after its ref."""
    from adaptry_cli.lock import read_lock
    from adaptry_cli.warnings import print_state_warning

    pulled = []
    with progress() as bars:
        for entry in read_lock(file).pins:
            target = folder / entry.folder
            version = verbs.pull(registry, entry.exact, target, force=force, progress=bars)
            print_state_warning(version)
            pulled.append({"folder": str(target), "version": version.model_dump(mode="json")})
            if not as_json:
                print_out(f"{target} {version.digest}")
    if as_json:
        print_json(pulled)
