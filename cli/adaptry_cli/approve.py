"""`adaptry approve`: approve the move of an alias to a version."""

from __future__ import annotations

import click

from adaptry.core.refs import Ref
from adaptry.registry.aliases import PRODUCTION
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import ALIAS, REF, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.output import json_option, print_done, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when


@command()
@click.argument("ref", type=REF)
@click.option(
    "--alias",
    default=PRODUCTION,
    show_default=True,
    metavar="ALIAS",
    type=ALIAS,
    help="The alias that would move to the version.",
)
@click.option("--withdraw", "is_withdrawn", is_flag=True, help="Withdraw your own approval.")
@click.option(
    "--list", "is_list", is_flag=True, help="List the approvals for this alias of REF's adapter instead."
)
@registry_option
@exact_times_option
@json_option
def approve(
    registry: Registry, ref: Ref, alias: str, is_withdrawn: bool, is_list: bool, as_json: bool
) -> None:
    """Approve the move of an alias (prod) from its current version to another.

    The approval is for exactly this version, and is void once the alias has moved. Policies count approvals
    with approvals("GROUP"). Approvals by the user who pushed the version or moves the alias do not count.
    """
    require_usage(not (is_withdrawn and is_list), "pass either --withdraw or --list, not both")
    if is_list:
        _list(registry, ref, alias, as_json)
        return
    version = registry.versions.get(ref)
    if is_withdrawn:
        found = registry.policies.withdraw_approval(ref.name, alias, version.digest)
        message = f"withdrew the approval of version {found.number} for {ref.name}@{alias}"
    else:
        found = registry.policies.approve(ref.name, alias, version.digest)
        message = f"approved version {found.number} ({found.digest.brief}) for {ref.name}@{alias}"
        if found.by == version.created_by:
            message += f"; it does not count, because {found.by} pushed the version"
    print_done(found.model_dump(mode="json"), message, as_json)


def _list(registry: Registry, ref: Ref, alias: str, as_json: bool) -> None:
    found = registry.policies.approvals(ref.name, alias)
    if as_json:
        print_json(found)
        return
    if not found:
        print_err(f"no one has approved a move of {ref.name}@{alias}")
        return
    print_table(
        ("version", "digest", "by", "when", "state"),
        (
            (
                str(one.number),
                one.digest.brief,
                one.by,
                format_when(one.at),
                "void" if one.is_void else "in force",
            )
            for one in found
        ),
        right=("version",),
        drop=("digest",),
    )
