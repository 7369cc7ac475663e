"""`adaptry policy`: conditions for a version before an alias may move to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import click

from adaptry.core.errors import NotFound
from adaptry.core.refs import Latest, Ref
from adaptry.registry.aliases import PRODUCTION
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import ALIAS, REF
from adaptry_cli.command import group
from adaptry_cli.connection import registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import json_option, print_done, print_err, print_json, print_lines
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.times import exact_times_option, format_when
from adaptry_cli.warnings import warn

if TYPE_CHECKING:
    from adaptry.core.gates.decision import PromotionDecision
    from adaptry.registry.policies import PolicyInfo

_TESTED_VERSIONS = 10

_alias_option = click.option(
    "--alias",
    default=PRODUCTION,
    show_default=True,
    metavar="ALIAS",
    type=ALIAS,
    help="The alias that the policy is for.",
)


@group()
def policy() -> None:
    """Set and try out the conditions for moving an alias.

    A policy is for one adapter (acme/tone) or for all adapters of a namespace (acme); where both exist, both
    apply. To evaluate policies, the registry's machine needs: pip install 'adaptry[gates]'. docs/gates.md
    explains how to write conditions.
    """


@policy.command("set")
@click.argument("scope", metavar="NAME|NAMESPACE")
@click.argument("file", type=click.File(encoding="utf-8"))
@registry_option
@json_option
def set_(registry: Registry, scope: str, file: TextIO, as_json: bool) -> None:
    """Set a policy from FILE (- for standard input), which names its alias.

    It becomes the next version of the policy. An engine that does not exist is refused; a group that does
    not exist yet is a warning.
    """
    from adaptry.registry.policies import MAX_TEXT, PolicyRequest
    from adaptry_cli.arguments import validate_options

    request = validate_options(PolicyRequest, scope=scope, text=file.read(MAX_TEXT + 1))
    found = registry.policies.set(request)
    for sentence in found.warnings:
        warn(sentence)
    print_done(
        found.model_dump(mode="json"),
        f"{found.scope}@{found.alias}: version {found.version} of the policy is in force",
        as_json,
    )


@policy.command()
@click.argument("scope", metavar="NAME|NAMESPACE")
@_alias_option
@click.option("--history", "with_history", is_flag=True, help="List all versions instead.")
@registry_option
@exact_times_option
@json_option
def show(registry: Registry, scope: str, alias: str, with_history: bool, as_json: bool) -> None:
    """Show the policy of an alias, in its original text."""
    versions = registry.policies.history(scope, alias)
    if not versions:
        raise NotFound(f"{scope} has no policy for {alias}; `adaptry policy ls` lists all")
    if with_history:
        _print_versions(versions, as_json)
        return
    found = versions[0]
    if found.text is None:
        raise NotFound(f"the policy of {scope} for {alias} was removed; --history shows its versions")
    if as_json:
        print_json(found)
        return
    print_facts(
        (
            ("policy of", f"{found.scope}@{found.alias}"),
            ("version", str(found.version)),
            ("digest", str(found.digest)),
            ("set", f"{format_when(found.set_at)} by {found.set_by}"),
        )
    )
    print_lines(found.text.rstrip().splitlines())


@policy.command()
@click.argument("scope", metavar="[NAME|NAMESPACE]", required=False)
@registry_option
@exact_times_option
@json_option
def ls(registry: Registry, scope: str | None, as_json: bool) -> None:
    """List the policies in force: of an adapter and its namespace, or all."""
    found = registry.policies.list(scope)
    if found or as_json:
        _print_versions(found, as_json)
    else:
        print_err("no policies; `adaptry policy set NAME FILE` sets one")


@policy.command("try")
@click.argument("ref", type=REF)
@click.option(
    "--to",
    "alias",
    default=PRODUCTION,
    show_default=True,
    metavar="ALIAS",
    type=ALIAS,
    help="The alias that would move.",
)
@click.option(
    "--policy",
    "file",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Try the policy in this file instead of those in force.",
)
@click.option("--if", "condition", metavar="EXPR", help="Try one more condition.")
@registry_option
@json_option
def try_(
    registry: Registry,
    ref: Ref,
    alias: str,
    file: TextIO | None,
    condition: str | None,
    as_json: bool,
) -> None:
    """Show whether versions meet the policies now; move nothing.

    With a version (acme/tone@3), shows each condition, and exits with 1 if the alias would not move. With a
    name alone, shows the newest ten versions, one per line.
    """
    from adaptry.core.gates.decision import verdict_sentence
    from adaptry_cli.decision_output import condition_lines

    text = file.read() if file is not None else None
    if isinstance(ref.selector, Latest):
        _try_all(registry, ref, alias, text, condition, as_json)
        return
    digest = registry.versions.get(ref).digest
    decision = registry.policies.evaluate(ref.name, alias, digest, condition=condition, policy=text)
    if as_json:
        print_json(decision)
    else:
        print_lines(condition_lines(decision.results))
        print_err(verdict_sentence(decision))
    if not decision.is_allowed:
        click.get_current_context().exit(NO)


@policy.command()
@click.argument("scope", metavar="NAME|NAMESPACE")
@_alias_option
@registry_option
@json_option
def rm(registry: Registry, scope: str, alias: str, as_json: bool) -> None:
    """Remove the policy of an alias; the history keeps its earlier versions."""
    registry.policies.remove(scope, alias)
    print_done({"scope": scope, "alias": alias}, f"{scope}@{alias} no longer has its own policy", as_json)


def _try_all(
    registry: Registry, ref: Ref, alias: str, text: str | None, condition: str | None, as_json: bool
) -> None:
    versions = registry.versions.list(ref.name, None, _TESTED_VERSIONS).items
    usable = [one for one in versions if one.state in ("active", "deprecated")]
    decisions = [
        registry.policies.evaluate(ref.name, alias, one.digest, condition=condition, policy=text)
        for one in usable
    ]
    if as_json:
        print_json(decisions)
        return
    print_table(
        ("version", "may move", "met", "first unmet condition"), map(_cells, decisions), right=("version",)
    )


def _cells(decision: PromotionDecision) -> tuple[str, ...]:
    unmet = decision.unmet
    return (
        str(decision.number),
        "yes" if decision.is_allowed else "no",
        f"{len(decision.results) - len(unmet)} of {len(decision.results)}",
        f"{unmet[0].condition}: {unmet[0].reason}" if unmet else "",
    )


def _print_versions(found: tuple[PolicyInfo, ...], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_table(
        ("of", "alias", "version", "digest", "set", "by"),
        (
            (
                one.scope,
                one.alias,
                str(one.version),
                one.digest.brief if one.text is not None else "removed",
                format_when(one.set_at),
                one.set_by,
            )
            for one in found
        ),
        right=("version",),
        drop=("digest", "by"),
    )
