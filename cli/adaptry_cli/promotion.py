"""`adaptry promotion`: show and replay the decisions of gated moves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry.core.errors import CheckFailed
from adaptry.core.refs import AdapterName, Label, Latest, Ref
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import NAME, REF, require_usage
from adaptry_cli.command import group
from adaptry_cli.connection import registry_option
from adaptry_cli.number_options import WholeNumber, limit_option
from adaptry_cli.output import collect_pages, format_count, json_option, print_err, print_json, print_lines
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.times import exact_times_option, format_when

if TYPE_CHECKING:
    from adaptry.core.gates.decision import PromotionDecision
    from adaptry.core.gates.facts import EvidenceFact, VersionFact


@group()
def promotion() -> None:
    """List, show and replay decisions about moves of aliases that have a policy.

    The registry records a decision for every move of an alias with a policy: the policy, the evidence and the
    results.
    """


@promotion.command()
@click.argument("ref", metavar="NAME[@ALIAS]", type=REF)
@limit_option
@registry_option
@exact_times_option
@json_option
def ls(registry: Registry, ref: Ref, limit: int, as_json: bool) -> None:
    """List an adapter's decisions, newest first."""
    require_usage(isinstance(ref.selector, Label | Latest), f"{ref} names a version; write {ref.name}@ALIAS")
    alias = ref.selector.label if isinstance(ref.selector, Label) else None
    found = collect_pages(
        lambda cursor, many: registry.policies.promotions(ref.name, alias, cursor, many), limit
    )
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("id", "alias", "version", "decision", "reason", "when", "by"),
            (
                (
                    str(one.id),
                    one.alias,
                    str(one.number),
                    one.verdict.replace("_", " "),
                    one.reason or "",
                    format_when(one.at),
                    one.by,
                )
                for one in found
            ),
            right=("id", "version"),
            cut=("reason",),
            drop=("by", "reason"),
        )
    else:
        print_err(
            f"no decision is recorded for {ref}, since no policy applied when it moved; `adaptry history"
            f" {ref.name}` shows all moves"
        )


@promotion.command()
@click.argument("id", metavar="ID", type=WholeNumber(1))
@registry_option
@exact_times_option
@json_option
def show(registry: Registry, id: int, as_json: bool) -> None:
    """Show a decision: each condition, the policies, and the evidence that was used.

    With --json, prints the whole record, which `adaptry promotion replay FILE` reads.
    """
    from adaptry_cli.decision_output import condition_lines

    found = registry.policies.promotion(id)
    if as_json:
        print_json(found)
        return
    decision = found.decision
    print_facts(
        (
            ("moved", f"{found.name}@{found.alias} to version {found.number} ({found.digest.brief})"),
            (
                "from",
                f"version {decision.was_number}" if decision.was_number else "nothing: the alias was new",
            ),
            ("decision", found.verdict.replace("_", " ") + (f": {found.reason}" if found.reason else "")),
            ("when", f"{format_when(found.at)} by {found.by}"),
            ("record", str(found.record)),
            *(("policy", f"version {one.version} of {one.scope}, {one.digest}") for one in decision.policies),
            *(("evidence", _evidence_line(*one)) for one in decision.facts.all_evidence),
        )
    )
    print_lines(condition_lines(decision.results))


@promotion.command()
@click.argument("what", metavar="ID|FILE")
@click.option(
    "--evidence",
    "with_evidence",
    is_flag=True,
    help="Also compare the evidence with the registry's: every value, and the samples of each document.",
)
@click.option(
    "--name",
    type=NAME,
    metavar="NAME",
    help="With --evidence: the adapter's name in the registry, if it differs from the record's.",
)
@registry_option
@json_option
def replay(
    registry: Registry, what: str, with_evidence: bool, name: AdapterName | None, as_json: bool
) -> None:
    """Compute a decision again from its record, and exit with 1 if the results differ.

    FILE is the output of `promotion show --json`, from this or another registry. Needs: pip install
    'adaptry[gates]'.
    """
    from adaptry.core.gates.replay import replay as replay_record
    from adaptry.operations.gates.evidence_check import missing_evidence
    from adaptry_cli.decision_output import condition_lines

    decision = _decision(registry, what)
    found = replay_record(decision)
    missing = missing_evidence(registry, decision, name) if with_evidence else ()
    differences = (*found.differences, *missing)
    if as_json:
        results = [one.model_dump(mode="json") for one in found.results]
        print_json({"is_same": not differences, "differences": list(differences), "results": results})
    else:
        print_lines(condition_lines(found.results))
        for one in differences:
            print_err(one)
    if differences:
        raise CheckFailed(f"the decision is not confirmed: {format_count(len(differences), 'difference')}")
    print_err("the same results" + (", and the registry has the same evidence" if with_evidence else ""))


def _evidence_line(version: VersionFact, one: EvidenceFact) -> str:
    what = " ".join(part for part in (one.task, one.metric, one.filter) if part)
    file = f", {one.file}" if one.file is not None else ""
    return f"{one.id}: {what} {one.value:g} of version {version.number}{file}"


def _decision(registry: Registry, what: str) -> PromotionDecision:
    """The decision with a number, or in a file. Raises `NotFound`, `Invalid`."""
    if what.isdigit():
        return registry.policies.promotion(int(what)).decision
    from adaptry.core.gates.replay import parse_record

    path = Path(what)
    require_usage(
        path.is_file(),
        f"{what} is neither the number of a decision (`adaptry promotion ls NAME` lists them) nor a file",
    )
    return parse_record(path.read_text("utf-8"))
