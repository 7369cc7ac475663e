"""Shared by commands that move an alias: `--expect`, and how moves and their decisions are printed."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.promotion import AliasMoveResult
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.versions import Versions
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import print_err, print_json, print_out
from adaptry_cli.renamed_option import RenamedOption
from adaptry_cli.warnings import print_state_warning

expect_option = click.option(
    "--expect",
    cls=RenamedOption,
    former=("--only-from", "--was"),
    type=WholeNumber(0),
    metavar="VERSION",
    help="Move the alias only if it is at this version now (0: only if it does not exist yet).",
)


def print_move(versions: Versions, name: AdapterName, move: AliasMoveResult, as_json: bool) -> None:
    found = move.alias
    _warn(versions, name, move)
    if as_json:
        print_json({**found.model_dump(mode="json"), "was": move.was})
        return
    print_out(f"{name}@{found.alias} {found.digest}")
    if move.was is None:
        print_err(f"created {found.alias}, at version {found.number}")
    elif move.is_change:
        print_err(f"{found.alias} moved from version {move.was} to {found.number}")
    else:
        print_err(f"{found.alias} is already at version {found.number}")


def print_decision(registry: Registry, promotion: int) -> None:
    """Prints the conditions that decided a move, and its notes."""
    from adaptry.core.gates.decision import verdict_sentence
    from adaptry_cli.decision_output import condition_lines

    decision = registry.policies.promotion(promotion).decision
    for line in condition_lines(decision.results):
        print_err(line)
    if decision.verdict != "met":
        print_err(verdict_sentence(decision))
    print_err(f"decision {promotion}: adaptry promotion show {promotion}")


def print_refusal(registry: Registry, ref: Ref, alias: str, condition: str | None, as_json: bool) -> None:
    """Prints all conditions of a refused move, as they are now."""
    from adaptry_cli.decision_output import condition_lines

    digest = registry.versions.get(ref).digest
    decision = registry.policies.evaluate(ref.name, alias, digest, condition=condition)
    if as_json:
        print_json(decision)
        return
    for line in condition_lines(decision.results):
        print_err(line)


def _warn(versions: Versions, name: AdapterName, move: AliasMoveResult) -> None:
    """Warns about a version that is deprecated, was pushed although its checks failed, changes nothing, or is
    for a different base than the one before it.
    """
    detail = versions.detail(Ref.of_revision(name, move.alias.digest))
    print_state_warning(detail.version)
    if detail.forced and detail.report.is_blocked:
        print_err(
            f"warning: the checks blocked version {move.alias.number} and were overruled: {detail.forced}"
            f" (`adaptry show {name}@{move.alias.number}` shows the findings)"
        )
    for finding in detail.report.findings:
        if finding.code == "untrained":
            print_err(f"warning: version {move.alias.number} has no effect: {finding.reason} [untrained]")
    if move.is_change and move.was is not None:
        _warn_of_other_base(detail.version, versions.get(Ref.parse(f"{name}@{move.was}")))


def _warn_of_other_base(version: VersionInfo, previous: VersionInfo) -> None:
    if version.base_id is None or previous.base_id is None or version.base_id == previous.base_id:
        return
    base, before = (one.base_name or one.base_id for one in (version, previous))
    print_err(
        f"warning: version {version.number} is for the base {base}, and version {previous.number} for"
        f" {before}: engines that serve {before} refuse version {version.number}, unless both are the same"
        " model"
    )
