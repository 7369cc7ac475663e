"""`adaptry evidence`: measurements of a version, from unmodified results files."""

from __future__ import annotations

from pathlib import Path

import click

from adaptry.core.refs import Ref
from adaptry.registry.evidence import EvidenceInfo, WithdrawalRequest
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import REF, validate_options
from adaptry_cli.command import group
from adaptry_cli.connection import registry_option
from adaptry_cli.number_options import WholeNumber, limit_option
from adaptry_cli.output import (
    collect_pages,
    format_count,
    format_number,
    format_size,
    json_option,
    print_done,
    print_err,
    print_json,
    progress,
)
from adaptry_cli.renamed_option import RenamedOption
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.times import exact_times_option, format_when


@group()
def evidence() -> None:
    """Add and show results of evaluations.

    Evidence belongs to a version, not to an alias, and never changes. Withdraw a wrong value with a reason;
    it stays in the list.
    """


@evidence.command()
@click.argument("ref", type=REF)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@registry_option
@json_option
def add(registry: Registry, ref: Ref, files: tuple[Path, ...], as_json: bool) -> None:
    """Add results files to a version, unmodified.

    FILE is a file that lm-eval, transformers, TRL, Inspect, MLflow or W&B wrote, a file in .eval_results, a
    README with a model-index, or a folder with such files. Pass lm-eval's samples_*.jsonl together with its
    results_*.json. Adding the same file again adds nothing.
    """
    from adaptry.operations.evidence.addition import add_evidence

    with progress() as bars:
        added = add_evidence(registry, ref, files, progress=bars)
    if as_json:
        print_json(added)
        return
    for one in added:
        values = format_count(one.added, "value")
        known = f"; {format_count(one.known, 'value')} known already" if one.known else ""
        print_err(f"{one.file.brief}: added {values} to {ref.name}@{one.number}{known}")


@evidence.command()
@click.argument("ref", type=REF)
@click.option("--task", metavar="TASK", help="Only values of this task.")
@click.option("--metric", metavar="METRIC", help="Only values of this metric.")
@limit_option
@registry_option
@exact_times_option
@json_option
def ls(registry: Registry, ref: Ref, task: str | None, metric: str | None, limit: int, as_json: bool) -> None:
    """List the measurements of a version, newest first.

    The list includes logged metrics.
    """
    found = collect_pages(
        lambda cursor, many: registry.evidence.list(ref, task=task, metric=metric, cursor=cursor, limit=many),
        limit,
    )
    if as_json:
        print_json(found)
    elif found:
        print_table(
            (
                "id",
                "task",
                "metric",
                "filter",
                "value",
                "stderr",
                "n",
                "step",
                "from",
                "when",
                "who",
                "state",
            ),
            map(_cells, found),
            right=("id", "value", "stderr", "n", "step"),
            cut=("task", "metric", "filter"),
            drop=("who", "from", "when", "filter"),
        )
    else:
        print_err(f"no evidence for {ref}; `adaptry evidence add {ref} FILE` adds some")


@evidence.command()
@click.argument("id", metavar="ID", type=WholeNumber(1))
@click.option(
    "--save-file",
    "file_to",
    cls=RenamedOption,
    former="--file-to",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Save the original results file as FILE.",
)
@click.option(
    "--save-samples",
    "samples_to",
    cls=RenamedOption,
    former="--samples-to",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Save the values of the individual samples as FILE.",
)
@registry_option
@exact_times_option
@json_option
def show(registry: Registry, id: int, file_to: Path | None, samples_to: Path | None, as_json: bool) -> None:
    """Show all details of one value.

    ID is in the first column of `adaptry evidence ls`.
    """
    from adaptry.operations.evidence.stored_files import write_stored_file

    found = registry.evidence.get(id)
    files = registry.evidence.files(id)
    if file_to is not None:
        write_stored_file(registry.evidence, id, "file", file_to)
    if samples_to is not None:
        write_stored_file(registry.evidence, id, "samples", samples_to)
    if as_json:
        print_json(found)
        return
    sizes = {entry.path: entry for entry in files}
    stored = [(name, f"{entry.sha256} ({format_size(entry.size)})") for name, entry in sizes.items()]
    print_facts([*_facts(found), *stored])


@evidence.command()
@click.argument("id", metavar="ID", type=WholeNumber(1))
@click.option("--reason", required=True, metavar="TEXT", help="Why the value is invalid; stored with it.")
@click.option("--whole-file", is_flag=True, help="Withdraw all values of the same file.")
@registry_option
@json_option
def withdraw(registry: Registry, id: int, reason: str, whole_file: bool, as_json: bool) -> None:
    """Withdraw evidence, with a reason.

    It stays in the list, marked as withdrawn.
    """
    request = validate_options(WithdrawalRequest, reason=reason, whole_file=whole_file)
    done = registry.evidence.withdraw(id, request)
    text = f"withdrew {format_count(done.withdrawn, 'value')}"
    if not done.withdrawn:
        text = f"evidence {id} was already withdrawn; the first reason is kept"
    print_done({"id": id, "withdrawn": done.withdrawn}, text, as_json)


@evidence.command()
@click.argument("namespace")
@limit_option
@registry_option
@exact_times_option
@json_option
def inbox(registry: Registry, namespace: str, limit: int, as_json: bool) -> None:
    """List uploaded results that are not assigned to a version.

    lm-eval pushes results to the datasets lm-eval-results and lm-eval-results-private of a namespace. Those
    that do not state which version was measured, or whose poster may not add evidence to it, stay in the
    inbox until they are attached or discarded.
    """
    found = collect_pages(lambda cursor, many: registry.inbox.list(namespace, cursor, many), limit)
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("id", "model", "revision", "samples", "posted", "who", "why"),
            (
                (
                    str(one.id),
                    one.model or "",
                    (one.revision or "")[:12],
                    str(one.samples),
                    format_when(one.at),
                    one.by,
                    one.reason,
                )
                for one in found
            ),
            right=("id", "samples"),
            cut=("model", "why"),
            drop=("samples", "posted"),
        )
    else:
        print_err(f"the inbox of {namespace} is empty")


@evidence.command()
@click.argument("id", metavar="ID", type=WholeNumber(1))
@click.argument("ref", type=REF)
@registry_option
@json_option
def attach(registry: Registry, id: int, ref: Ref, as_json: bool) -> None:
    """Assign results from the inbox to a version.

    ID is in the first column of `adaptry evidence inbox`. Name the version that was measured. If the file
    states another revision, it is refused.
    """
    added = registry.inbox.attach(id, ref)
    if as_json:
        print_json(added)
    else:
        print_err(f"added {format_count(added.added, 'value')} to {ref.name}@{added.number}")


@evidence.command()
@click.argument("id", metavar="ID", type=WholeNumber(1))
@registry_option
@json_option
def discard(registry: Registry, id: int, as_json: bool) -> None:
    """Delete results from the inbox, with their sample files."""
    registry.inbox.discard(id)
    print_done({"id": id}, f"discarded results {id}", as_json)


def _cells(one: EvidenceInfo) -> tuple[str, ...]:
    return (
        str(one.id),
        one.task or "",
        one.metric,
        one.filter or "",
        format_number(one.value),
        "" if one.stderr is None else format_number(one.stderr),
        "" if one.n is None else str(one.n),
        "" if one.step is None else str(one.step),
        one.format or "logged",
        format_when(one.at),
        one.by,
        "withdrawn" if one.withdrawn else "",
    )


def _facts(one: EvidenceInfo) -> list[tuple[str, str]]:
    harness = " ".join(filter(None, (one.harness, one.harness_version, one.harness_commit)))
    error = "" if one.stderr is None else f" ± {format_number(one.stderr)}"
    facts = [
        ("version", f"{one.name}@{one.number} {one.subject}"),
        ("base", str(one.base or "")),
        ("task", one.task or ""),
        ("task version", one.task_version or ""),
        ("task hash", one.task_hash or ""),
        ("settings", one.settings or ""),
        ("dataset", one.dataset or ""),
        ("metric", one.metric),
        ("filter", one.filter or ""),
        ("value", f"{format_number(one.value)}{error}"),
        ("documents", "" if one.n is None else str(one.n)),
        ("better", one.direction),
        ("step", "" if one.step is None else str(one.step)),
        ("harness", harness),
        ("template", one.chat_template or ""),
        ("added", f"{format_when(one.at)} by {one.by}"),
    ]
    if one.withdrawn:
        facts.append(
            (
                "withdrawn",
                f"{format_when(one.withdrawn.at)} by {one.withdrawn.by}: {one.withdrawn.reason}",
            )
        )
    return [(name, value) for name, value in facts if value]
