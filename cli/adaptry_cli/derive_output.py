"""What commands that make an adapter share: opening parents, putting results into a folder or a registry.

`-o` is a folder if it is written as one (`./both`), else a name in the registry (`acme/both`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.errors import Invalid
from adaptry.core.refs import AdapterName, Ref, parse_alias
from adaptry_cli.arguments import Source, is_folder_path, parse_metrics, require_usage, validate_options
from adaptry_cli.connection import RegistryOpener, connect_to
from adaptry_cli.out import format_number, print_err, print_json, print_out, progress
from adaptry_cli.warnings import print_state_warning

if TYPE_CHECKING:
    from adaptry.compute.lazy_adapters.folder_writer import ComputeResult
    from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
    from adaptry.core.progress import Progress
    from adaptry.registry.records import PushOptions, PushResult

_DESTINATION = "say where the result goes: -o NAME, or -o ./DIR for a folder"
_WORST = 5


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """Where a result goes and what goes along; `destination` None: nowhere, it is only looked at."""

    destination: Path | AdapterName | None
    options: PushOptions
    may_replace: bool


@dataclass(frozen=True, slots=True)
class DerivedResult:
    """A result that is there: its location, in words for the answer, and the version if a registry has it."""

    location: str
    outcome: ComputeResult
    pushed: PushResult | None = None
    folder: Path | None = None


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `-o`, `--alias`, `--metric`, `--force`/`--reason` and `--registry`; passes `target`, `connected`.

    (`Any`: the other arguments are each command's own.)
    """

    @click.option("-o", "--output", metavar="NAME|DIR", help="A name in the registry, or a folder (./out).")
    @click.option("--alias", metavar="ALIAS", help="An alias to set on the version.")
    @click.option("--metric", "metrics", multiple=True, metavar="NAME=VALUE", help="A metric of the version.")
    @click.option(
        "--force", is_flag=True, help="Replace an adapter in that folder; push past the checks with --reason."
    )
    @click.option("--reason", metavar="TEXT", help="Why it is pushed all the same; kept with the version.")
    @click.option("--registry", "where", metavar="URL|DIR", help="The registry to use.")
    @functools.wraps(command)
    def with_output(
        *args: Any,
        output: str | None,
        alias: str | None,
        metrics: tuple[str, ...],
        force: bool,
        reason: str | None,
        where: str | None,
        **options: Any,
    ) -> Any:
        target = _target(output, alias, metrics, force, reason)
        # A recipe may name a place in the registry that the call does not.
        creates_registry = isinstance(target.destination, AdapterName) or bool(options.get("recipe_file"))
        connected = functools.cache(lambda: connect_to(where, create_missing=creates_registry))
        return command(*args, target=target, connected=connected, **options)

    return with_output


def with_recipe_output(target: OutputTarget, output: str | None) -> OutputTarget:
    """The target with the place a recipe names, where the call names none."""
    if target.destination is not None or output is None:
        return target
    return _checked(replace(target, destination=_place(output)))


def open_named_parent(connected: RegistryOpener, text: str, progress: Progress) -> ParentAdapter:
    """As `open_parent`, from an argument; a folder keeps the label that was typed."""
    if is_folder_path(text):
        return replace(open_parent(connected, Path(text), progress), label=text)
    return open_parent(connected, Ref.parse(text), progress)


def open_parent(connected: RegistryOpener, source: Source, progress: Progress) -> ParentAdapter:
    """An input by ref or folder, its weights at hand. Raises `NotFound`, `Invalid…`."""
    from adaptry.adapters.adapter import open_dir
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
    from adaptry.operations.transfer import open_revision

    if isinstance(source, Path):
        return ParentAdapter(open_dir(source), str(source))
    registry = connected()
    version = registry.versions.get(source)
    print_state_warning(version)
    adapter = open_revision(registry, version.revision_ref, progress=progress)
    is_known = version.base_id is not None and version.base_status == "verified"
    base = registry.bases.record(version.base_id) if is_known and version.base_id else None
    return ParentAdapter(adapter, version.label, version.digest, base)


def require_destination(target: OutputTarget) -> None:
    """Raises a usage error if the call does not name where the result goes."""
    require_usage(target.destination is not None, _DESTINATION)


def write_result(draft: LazyAdapter, target: OutputTarget, connected: RegistryOpener) -> DerivedResult:
    """Computes the draft and puts it where it is to go. Raises what `write` and `derive` raise."""
    place = target.destination
    if place is None:
        raise Invalid(_DESTINATION)
    with progress() as bars:
        if isinstance(place, Path):
            from adaptry.compute.lazy_adapters.folder_writer import write_adapter

            outcome = write_adapter(draft, place, replace=target.may_replace, progress=bars)
            return DerivedResult(str(place), outcome, folder=place)
        from adaptry.operations.derive import derive

        derived = derive(connected(), draft, place, options=target.options, progress=bars)
    version = derived.pushed.version
    return DerivedResult(version.label, derived.outcome, derived.pushed)


def print_result(draft: LazyAdapter, there: DerivedResult, as_json: bool) -> None:
    """The answer: the place (and digest); the story: notes, and how exact it is."""
    for note in draft.notes:
        print_err(f"note: {note}")
    if draft.is_measured:
        _tell_exactness(there.outcome)
    else:
        print_err("as PEFT computes it, to the bit; what is lost by that is not measured")
    pushed = there.pushed
    if pushed and not pushed.is_new:
        print_err(f"{there.location} already holds this adapter, unchanged")
    if as_json:
        print_json(result_json(draft, there))
    else:
        print_out(f"{there.location}  {pushed.version.digest}" if pushed else there.location)


def result_json(draft: LazyAdapter, there: DerivedResult) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    outcome = there.outcome
    return {
        "output": there.location,
        "digest": str(there.pushed.version.digest) if there.pushed else None,
        "is_new": there.pushed.is_new if there.pushed else None,
        "recipe": draft.recipe,
        "parents": [str(parent.revision) for parent in draft.parents if parent.revision],
        "kept_energy": outcome.kept,
        "relative_error": outcome.error,
        "modules": [{"module": each.module, **each.figures} for each in outcome.modules],
        "notes": list(draft.notes),
    }


def _tell_exactness(outcome: ComputeResult) -> None:
    if outcome.kept is None or outcome.error == 0.0:
        print_err("exact: nothing was approximated")
        return
    print_err(f"kept energy {format_number(outcome.kept)}, relative error {format_number(outcome.error)}")
    for module, kept in _worst(outcome):
        print_err(f"  {format_number(kept)}  {module}")


def _worst(outcome: ComputeResult) -> Sequence[tuple[str, float]]:
    """The modules that lost most, where any lost something to speak of."""
    shares = [
        (each.module, 1.0 - each.figures.get("lost", 0.0) / each.figures["energy"])
        for each in outcome.modules
        if each.figures.get("energy")
    ]
    return sorted((share for share in shares if share[1] < 0.999), key=lambda share: share[1])[:_WORST]


def _target(
    output: str | None, alias: str | None, metrics: tuple[str, ...], force: bool, reason: str | None
) -> OutputTarget:
    from adaptry.registry.records import PushOptions

    options = validate_options(
        PushOptions,
        metrics=parse_metrics(metrics),
        force_reason=reason,
        alias=parse_alias(alias) if alias else None,
    )
    target = OutputTarget(_place(output) if output else None, options, force)
    return _checked(target) if output else target


def _checked(target: OutputTarget) -> OutputTarget:
    """The target, if what goes along suits its place. Raises a usage error."""
    options, is_folder = target.options, isinstance(target.destination, Path)
    require_usage(
        not (is_folder and (options.alias or options.metrics or options.force_reason)),
        "--alias, --metric and --reason are for a registry",
    )
    require_usage(
        is_folder or target.may_replace == (options.force_reason is not None),
        "--force and --reason TEXT go together: the reason is kept",
    )
    return target


def _place(output: str) -> Path | AdapterName:
    return Path(output).expanduser() if is_folder_path(output) else AdapterName.parse(output)
