"""`adaptry verify`: find damaged rows and files."""

from __future__ import annotations

import click

from adaptry.registry.interface import Registry
from adaptry.storage.local import LocalRegistry
from adaptry_cli.arguments import require_usage
from adaptry_cli.connection import registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.out import format_count, json_option, print_err, print_json, print_out, progress

_ON_ITS_MACHINE = (
    "a registry is {verb} on its own machine, in its folder (--registry DIR); to look for damage through a"
    " server's address, run `adaptry jobs submit verify --wait`"
)


@click.command()
@click.option("--read-data", is_flag=True, help="Read every stored file and compare its digest.")
@registry_option
@json_option
def verify(registry: Registry, read_data: bool, as_json: bool) -> None:
    """Look for damage in the registry.

    Compares rows with each other, and checks that every file is present and has its size. --read-data also
    hashes every file and re-derives each version's spec. Damaged files are marked, and are not served until
    they are repaired. Works on the registry's folder, also while its server runs. Exit code 1 means that
    damage was found.
    """
    from adaptry.storage.maintenance.integrity import verify as look

    local = require_local(registry, "verified")
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
            f"found {format_count(len(problems), 'problem')};"
            " `adaptry mend --dry-run` shows what can be done about it"
        )
    else:
        print_err("no damage found" + ("" if read_data else "; --read-data also reads every stored byte"))
    click.get_current_context().exit(NO if problems else 0)


def require_local(registry: Registry, verb: str) -> LocalRegistry:
    require_usage(isinstance(registry, LocalRegistry), _ON_ITS_MACHINE.format(verb=verb))
    assert isinstance(registry, LocalRegistry)
    return registry
