"""`adaptry verify`: find damaged rows and files."""

from __future__ import annotations

import click

from adaptry.registry.interface import Registry
from adaptry.storage.local import LocalRegistry
from adaptry_cli.arguments import require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import format_count, json_option, print_err, print_json, print_out, progress

_ON_ITS_MACHINE = (
    "a registry is {verb} on its own machine, in its folder (--registry DIR); through a server, run"
    " `adaptry jobs submit verify --wait`"
)


@command()
@click.option("--read-data", is_flag=True, help="Read every stored file and compare its digest.")
@registry_option
@json_option
def verify(registry: Registry, read_data: bool, as_json: bool) -> None:
    """Look for damage in the registry.

    Compares the catalog's rows with each other, and checks that every file is present and has the right size.
    --read-data also hashes every file, and computes each version's spec and report again. Damaged files are
    marked, and are not served until they are repaired. A report that the current checks would write
    differently is listed, but is not damage. Works in the registry's folder, even while its server runs. The
    exit code is 1 if damage was found.
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
    damage = [one for one in problems if one.is_damage]
    if damage:
        print_err(
            f"found {format_count(len(damage), 'problem')}; `adaptry repair --dry-run` shows how to repair it"
        )
    else:
        print_err("no damage found" + ("" if read_data else "; --read-data also reads every stored byte"))
    if outdated := len(problems) - len(damage):
        print_err(f"{format_count(outdated, 'outdated report')}; `adaptry repair --read-data` renews them")
    click.get_current_context().exit(NO if damage else 0)


def require_local(registry: Registry, verb: str) -> LocalRegistry:
    require_usage(isinstance(registry, LocalRegistry), _ON_ITS_MACHINE.format(verb=verb))
    assert isinstance(registry, LocalRegistry)
    return registry
