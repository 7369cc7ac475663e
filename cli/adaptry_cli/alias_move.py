"""What the commands that move an alias share: `--was`, and how a move is printed."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.promotion import AliasMoveResult
from adaptry.registry.versions import Versions
from adaptry_cli.out import print_err, print_json, print_out
from adaptry_cli.warnings import print_state_warning

PRODUCTION = "prod"


only_from_option = click.option(
    "--was",
    "only_from",
    type=click.IntRange(0),
    metavar="VERSION",
    help="Move only from this version (0: only if the alias is new).",
)


def print_move(versions: Versions, name: AdapterName, move: AliasMoveResult, as_json: bool) -> None:
    found = move.alias
    _warn(versions, name, move)
    if as_json:
        print_json({**found.model_dump(mode="json"), "was": move.was})
        return
    print_out(f"{name}@{found.alias} {found.digest}")
    if move.was is None:
        print_err(f"{found.alias} is new, at version {found.number}")
    elif move.is_change:
        print_err(f"{found.alias} moved from version {move.was} to {found.number}")
    else:
        print_err(f"{found.alias} is at version {found.number} already")


def _warn(versions: Versions, name: AdapterName, move: AliasMoveResult) -> None:
    """What is deprecated, or was pushed past the checks for a stated reason, should not go live unnoticed."""
    detail = versions.detail(Ref.of_revision(name, move.alias.digest))
    print_state_warning(detail.version)
    if detail.forced and detail.report.is_blocked:
        print_err(
            f"warns: the checks refused version {move.alias.number} and it was forced: {detail.forced} "
            f"(`adaptry show {name}@{move.alias.number}` has what they found)"
        )
