"""`adaptry verify` and `adaptry mend`: find damaged rows and files, and repair them."""

from __future__ import annotations

import click

from adaptry.registry.interface import Registry
from adaptry.storage.local import LocalRegistry
from adaptry_cli.arguments import require_usage
from adaptry_cli.connection import registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.out import format_count, json_option, print_err, print_json, print_out, progress

_ON_ITS_MACHINE = (
    "a registry is {verb} on its own machine, in its folder (--registry DIR); to look for damage through a server's address, "
    "run `adaptry jobs submit verify --wait`"
)


@click.command()
@click.option("--read-data", is_flag=True, help="Read every stored file and compare its digest.")
@registry_option
@json_option
def verify(registry: Registry, read_data: bool, as_json: bool) -> None:
    """Look for damage in the registry.

    Compares rows with each other, and checks that every file is present and has its size. --read-data also hashes every file
    and re-derives each version's spec. Damaged files are marked, and are not served until they are repaired. Works on the
    registry's folder, also while its server runs. Exit code 1 means that damage was found.
    """
    from adaptry.storage.maintenance.integrity import verify as look

    local = _local(registry, "verified")
    with progress() as bars:
        problems = look(local.catalog, local.blobs, read_bytes=read_data, clock=local.clock, progress=bars)
    if as_json:
        print_json(
            [{"where": one.where, "kind": one.kind, "reason": one.reason} for one in problems],
        )
    else:
        for one in problems:
            print_out(f"{one.where}: {one.reason}")
    if problems:
        print_err(
            f"found {format_count(len(problems), 'problem')}; `adaptry mend --dry-run` shows what can be done about it"
        )
    else:
        print_err("no damage found" + ("" if read_data else "; --read-data also reads every stored byte"))
    click.get_current_context().exit(NO if problems else 0)


@click.command()
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
def mend(registry: Registry, sources: tuple[str, ...], read_data: bool, dry_run: bool, as_json: bool) -> None:
    """Repair what `adaptry verify` finds.

    Shows a plan, then carries it out. Damaged files and manifests are replaced from the first source that has them; a single
    flipped bit in a small file needs no source. Derived rows are rebuilt. A file that cannot be replaced is moved aside, and its
    versions are shown as damaged until the same files are pushed again. Nothing is deleted. Works beside a running server, and
    can be stopped at any point and run again. Exit code 1 means that damage remains.
    """
    from adaptry.operations.repair import RegistryRepairPlan
    from adaptry.operations.repair import repair_registry as repair

    def show(plan: RegistryRepairPlan) -> None:
        if not dry_run:
            for step in plan.steps:
                print_err(str(step))

    local = _local(registry, "mended")
    with progress() as bars:
        mended = repair(
            local, sources=sources, read_bytes=read_data, dry_run=dry_run, show=show, progress=bars
        )
    if as_json:
        print_json(mended)
    else:
        for line in mended.done:
            print_out(line)
        for line in mended.set_aside:
            print_out(f"still damaged: {line}; push the same files again, or name a copy with --from")
        for line in mended.left:
            print_out(f"left: {line}")
    if not (mended.done or mended.set_aside or mended.left):
        print_err("nothing to mend")
    is_damaged = bool(mended.left) or (dry_run and bool(mended.done))
    click.get_current_context().exit(NO if is_damaged else 0)


def _local(registry: Registry, verb: str) -> LocalRegistry:
    require_usage(isinstance(registry, LocalRegistry), _ON_ITS_MACHINE.format(verb=verb))
    assert isinstance(registry, LocalRegistry)
    return registry
