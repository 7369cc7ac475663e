"""`adaptry repair`: repair what `adaptry verify` finds."""

from __future__ import annotations

import click

from adaptry.registry.interface import Registry
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import json_option, print_err, print_json, print_out, progress
from adaptry_cli.verify import require_local


@command()
@click.option(
    "--from",
    "sources",
    metavar="URL|DIR|FILE",
    multiple=True,
    help="Source of undamaged copies: another registry, a bundle, or a folder of files; may be repeated.",
)
@click.option("--read-data", is_flag=True, help="Read every stored file first, to find changed bytes.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@registry_option
@json_option
def repair(
    registry: Registry, sources: tuple[str, ...], read_data: bool, dry_run: bool, as_json: bool
) -> None:
    """Repair what `adaptry verify` finds.

    Shows a plan, then carries it out. Damaged files and manifests are replaced from the first source that has
    them; a single flipped bit in a small file needs no source. Derived rows are rebuilt. A file that cannot
    be replaced is moved aside, and its versions are shown as damaged until the same files are pushed again.
    Nothing is deleted. The server may keep running, and the command can be interrupted and run again. The
    exit code is 1 if damage remains.
    """
    from adaptry.operations.repair import RegistryRepairPlan, repair_registry

    def show(plan: RegistryRepairPlan) -> None:
        if not dry_run:
            for step in plan.steps:
                print_err(str(step))

    local = require_local(registry, "repaired")
    with progress() as bars:
        repaired = repair_registry(
            local, sources=sources, read_bytes=read_data, dry_run=dry_run, show=show, progress=bars
        )
    if as_json:
        print_json(repaired)
    else:
        for line in repaired.done:
            print_out(line)
        for line in repaired.set_aside:
            print_out(
                f"still damaged: {line}; push the same files again, or pass a source of copies with --from"
            )
        for line in repaired.left:
            print_out(f"not repaired: {line}")
    if not (repaired.done or repaired.set_aside or repaired.left):
        print_err("nothing to repair")
    is_damaged = bool(repaired.left) or (dry_run and bool(repaired.done))
    click.get_current_context().exit(NO if is_damaged else 0)
