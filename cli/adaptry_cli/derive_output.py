"""Shared by commands that make an adapter: opens its parents, and writes the result to a folder or a
registry.

`-o` is a folder if it is written as one (`./both`), else a name in the registry (`acme/both`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, is_folder_path, parse_alias
from adaptry_cli.arguments import (
    parse_metrics,
    parse_named,
    require_usage,
    validate_options,
)
from adaptry_cli.connection import RegistryOpener, connect_to, suggest_names
from adaptry_cli.output import format_share, print_err, print_json, print_out, progress
from adaptry_cli.warnings import warn

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.compute.lazy_adapters.folder_writer import ComputeResult
    from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
    from adaptry.core.progress import Progress
    from adaptry.operations.derived_output import DerivedResult
    from adaptry.registry.records import PushOptions

_DESTINATION = "pass a destination: -o NAME in the registry, or -o ./DIR for a folder"
_WORST = 5


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """The destination of a result and the data stored with it; `destination` None: nothing is written."""

    destination: Path | AdapterName | None
    options: PushOptions
    may_replace: bool


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--to`, `--alias`, `--metric`, `--force`, `--reason` and `--registry`; passes `target` and
    `connected`.

    (`Any`: the other arguments are each command's own.)
    """

    @click.option(
        "--to",
        "-o",
        "--output",
        "output",
        metavar="NAME|DIR",
        help="The result: a name in the registry, or a folder (./out).",
    )
    @click.option("--alias", metavar="ALIAS", help="An alias to point at the version.")
    @click.option(
        "--metric",
        "metrics",
        multiple=True,
        metavar="NAME=VALUE",
        help="A metric of the version; may be repeated.",
    )
    @click.option(
        "--force",
        is_flag=True,
        help="Replace an adapter in the folder; or overrule the checks, with --reason.",
    )
    @click.option(
        "--reason", metavar="TEXT", help="Why the checks may be overruled; stored with the version."
    )
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
        # A recipe may name a version of the registry, even if the command line names none.
        creates_registry = isinstance(target.destination, AdapterName) or bool(options.get("recipe_file"))
        connected = functools.cache(lambda: connect_to(where, create_missing=creates_registry))
        with suggest_names(connected, options):
            return command(*args, target=target, connected=connected, **options)

    return with_output


def with_recipe_output(target: OutputTarget, output: str | None) -> OutputTarget:
    """The target, with the recipe's output if the command names none."""
    if target.destination is not None or output is None:
        return target
    return _checked(replace(target, destination=_parse_output(output)))


def open_named_parent(
    connected: RegistryOpener,
    text: str,
    progress: Progress,
    base: Callable[[], BaseRecord | None] | None = None,
) -> ParentAdapter:
    """An adapter that an argument names, with its weights available; a folder keeps the label that was typed.

    `base`: the base that the call names, for commands that also take a GGUF file, whose names need one.
    Raises `NotFound`, `Invalid…`.
    """
    from adaptry.operations.sources import open_parent

    source = parse_named(text)
    label = text if isinstance(source, Path) else None
    return open_parent(connected, source, label=label, gguf_base=base, warn=warn, progress=progress)


def require_destination(target: OutputTarget) -> None:
    """Raises a usage error if the command names no destination."""
    require_usage(target.destination is not None, _DESTINATION)


def write_result(lazy_adapter: LazyAdapter, target: OutputTarget, connected: RegistryOpener) -> DerivedResult:
    """Computes the adapter and writes it to its destination. Raises the errors of
    `derived_output.write_result`.
    """
    from adaptry.operations import derived_output

    if target.destination is None:
        raise Invalid(_DESTINATION)
    with progress() as bars:
        return derived_output.write_result(
            connected,
            lazy_adapter,
            target.destination,
            options=target.options,
            replace=target.may_replace,
            progress=bars,
        )


def print_result(lazy_adapter: LazyAdapter, there: DerivedResult, as_json: bool) -> None:
    """Prints the location and the digest on stdout, notes and exactness on stderr."""
    for note in lazy_adapter.notes:
        print_err(f"note: {note}")
    _print_exactness(there)
    pushed = there.pushed
    if pushed and not pushed.is_new:
        print_err(f"{there.location} already has exactly this adapter; no new version was created")
    if as_json:
        print_json(result_json(lazy_adapter, there))
    else:
        print_out(f"{there.location}  {pushed.version.digest}" if pushed else there.location)


def result_json(lazy_adapter: LazyAdapter, there: DerivedResult) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    outcome = there.outcome
    return {
        "output": there.location,
        "digest": str(there.pushed.version.digest) if there.pushed else None,
        "is_new": there.pushed.is_new if there.pushed else None,
        "recipe": lazy_adapter.recipe,
        "parents": [str(parent.revision) for parent in lazy_adapter.parents if parent.revision],
        "kept_energy": outcome.kept,
        "relative_error": outcome.error,
        "modules": [{"module": each.module, **each.figures} for each in outcome.modules],
        "notes": list(lazy_adapter.notes),
    }


def _print_exactness(there: DerivedResult) -> None:
    print_err(there.exactness)
    worst = _worst(there.outcome) if there.is_measured and there.outcome.error != 0.0 else ()
    if worst:
        print_err("worst modules:")
    for module, kept in worst:
        print_err(f"  {module} keeps {format_share(kept)}")


def _worst(outcome: ComputeResult) -> Sequence[tuple[str, float]]:
    """The modules that keep the smallest share of their energy, if it is below 99.9 %."""
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
    target = OutputTarget(_parse_output(output) if output else None, options, force)
    return _checked(target) if output else target


def _checked(target: OutputTarget) -> OutputTarget:
    """The target, if its options suit its destination. Raises a usage error."""
    options, is_folder = target.options, isinstance(target.destination, Path)
    require_usage(
        not (is_folder and (options.alias or options.metrics or options.force_reason)),
        "--alias, --metric and --reason are for a version in the registry, not for a folder",
    )
    require_usage(
        is_folder or target.may_replace == (options.force_reason is not None),
        "pass --force and --reason TEXT together: the reason is stored",
    )
    return target


def _parse_output(output: str) -> Path | AdapterName:
    if is_folder_path(output):
        return Path(output).expanduser()
    if "/" not in output:
        raise Invalid(
            f"the result needs a name such as acme/{output[:80]}, or a folder, written ./{output[:80]}"
        )
    return AdapterName.parse(output)
