"""`adaptry backup`: copies a registry at one moment into a folder or a .tar file."""

from __future__ import annotations

from pathlib import Path

import click

from adaptry.registry.interface import Registry
from adaptry.storage.local import LocalRegistry
from adaptry_cli.arguments import require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.output import format_count, format_size, json_option, print_answer, print_err, progress


@command()
@click.argument("to", metavar="FILE.tar|DIR", type=click.Path(path_type=Path))
@click.option(
    "--verify", is_flag=True, help="Re-read the files of earlier backups in DIR, and replace damaged ones."
)
@click.option("--skip-damaged", is_flag=True, help="Leave out lost or damaged files instead of stopping.")
@registry_option
@json_option
def backup(registry: Registry, to: Path, verify: bool, skip_damaged: bool, as_json: bool) -> None:
    """Back up a registry: its catalog as of one moment, and every file that it refers to.

    A name that ends in .tar is written as one file. Any other name is a folder, to which later backups add
    only new files. The server may keep running, and people may keep pushing. `adaptry restore` restores the
    backup.
    """
    from adaptry.storage.backup import create

    require_usage(
        isinstance(registry, LocalRegistry),
        "backups are made on the server's own machine, from the registry's folder:"
        " adaptry backup TO --registry DIR",
    )
    assert isinstance(registry, LocalRegistry)
    with progress() as bar:
        made = create(registry, to, verify=verify, skip_damaged=skip_damaged, progress=bar)
    for digest in made.index.lacking:
        print_err(f"warning: left out {digest}, which is lost or damaged in the registry")
    print_err(f"{format_count(made.index.files, 'file')} ({format_size(made.index.total)}), {made.added} new")
    print_answer({"place": str(made.place), **made.index.model_dump(mode="json")}, str(made.place), as_json)
