"""`adaptry inspect`: an adapter's properties, read from its files, and its possible uses."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry.adapters.spec import Spec
from adaptry.core.errors import AdaptryError, NotFound, Unsupported
from adaptry.operations.sources import OpenedAdapter, open_input, version_base
from adaptry.registry.records import TensorInspection
from adaptry_cli.arguments import SOURCE, Source, require_usage
from adaptry_cli.base_size import base_parameters
from adaptry_cli.capabilities import facts_of_use, json_of_use, method_title
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener, lazy_registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.multiple_adapters import error_json, for_each, source_text
from adaptry_cli.output import json_option, print_err, print_json
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.verdicts import facts_of_verdicts, json_of_verdicts
from adaptry_cli.version_text import facts_of_spec, json_of_spec, row_of_tensor

if TYPE_CHECKING:
    from adaptry.operations.folder_scan import FolderScan


@command()
@click.argument("sources", metavar="REF|DIR...", nargs=-1, required=True, type=SOURCE)
@click.option(
    "--weights",
    is_flag=True,
    help="List every tensor with its norm and its counts of NaN and infinite elements.",
)
@lazy_registry_option
@json_option
@click.pass_context
def inspect(
    ctx: click.Context, connected: RegistryOpener, sources: tuple[Source, ...], weights: bool, as_json: bool
) -> None:
    """Show an adapter's properties, read from its files, and how it can be used.

    Shows method, modules with ranks and scales, extra weights and dtypes; its size relative to the base, and
    the memory it takes when served; whether it can be merged or written as a LoRA, and which engines serve it
    as trained. All of this is read from headers and config.

    With --weights, the registry inspects a version's weights now if that was not done when it was pushed.

    With several adapters, prints one row for each. If DIR is not itself an adapter, such as ./runs, this
    includes all adapters in the folders below it, from any supported tool; for a single DIR, the rows show
    which of them have the same weights, and which have only zero updates. The exit code is 1 if one of them
    cannot be read.
    """
    if len(sources) > 1:
        require_usage(not weights, "--weights lists the tensors of one adapter: inspect them one by one")
        ctx.exit(NO if _inspect_several(connected, sources, as_json) else 0)
    try:
        opened = open_input(connected, sources[0])
    except (NotFound, Unsupported):
        if weights or not isinstance(sources[0], Path) or not sources[0].is_dir():
            raise
        from adaptry_cli.folder_inspection import inspect_tree  # few calls inspect a tree

        unread = inspect_tree(sources[0], as_json)
        if unread is None:
            raise
        ctx.exit(NO if unread else 0)
    _inspect_one(connected, opened, sources[0], weights, as_json)


def _inspect_several(connected: RegistryOpener, sources: Sequence[Source], as_json: bool) -> int:
    """Prints a row for each adapter, also for those in folder trees; returns how many cannot be read."""
    rows: list[tuple[str, ...]] = []
    listed, unread = [], 0
    for source, found in for_each(sources, lambda source: _spec_or_scan(connected, source)):
        name = source_text(source)
        if isinstance(found, AdaptryError):
            unread += 1
            listed.append(error_json(source, found))
            print_err(f"error: {name}: {found.message}")
        elif isinstance(found, Spec):
            listed.append({"adapter": name, **json_of_spec(found)})
            modules = len(found.modules)
            rows.append(_row(name, found.method, found.ranks, modules, found.parameters, found.base_name))
        else:
            from adaptry_cli.folder_inspection import json_of_scan, print_problems

            listed.append({"adapter": name, **json_of_scan(found)})
            unread += print_problems(found)
            rows += [
                _row(source_text(one.path), one.method, one.ranks, one.modules, one.parameters, one.base_name)
                for one in found.adapters
                if one.error is None
            ]
    if as_json:
        print_json(listed)
    elif rows:
        columns = ("adapter", "method", "rank", "modules", "parameters", "base")
        print_table(columns, rows, right=("rank", "modules", "parameters"))
    return unread


def _spec_or_scan(connected: RegistryOpener, source: Source) -> Spec | FolderScan:
    """An adapter's spec, or the adapters below a folder that is not one. Raises the errors of
    `open_input`.
    """
    try:
        return open_input(connected, source).adapter.spec
    except (NotFound, Unsupported):
        if not isinstance(source, Path) or not source.is_dir():
            raise
        from adaptry_cli.folder_inspection import scan_tree

        scan = scan_tree(source)
        if scan is None:
            raise
        return scan


def _row(
    name: str, method: str, ranks: Sequence[int], modules: int, parameters: int, base_name: str | None
) -> tuple[str, ...]:
    return (
        name,
        method_title(method),
        ", ".join(map(str, ranks)),
        f"{modules:,}",
        f"{parameters:,}",
        base_name or "not named",
    )


def _inspect_one(
    connected: RegistryOpener, opened: OpenedAdapter, source: Source, weights: bool, as_json: bool
) -> None:
    from adaptry.checks.runtimes import check_all_runtimes

    spec = opened.adapter.spec
    of_base = base_parameters(connected, opened)
    record = version_base(connected, opened.version).record if opened.version else None
    served = check_all_runtimes(opened.adapter, record)
    tensors = _tensors(connected, source, opened) if weights else ()
    if as_json:
        of_use = json_of_use(opened.adapter, of_base)
        listed = {"tensors": [one.model_dump(mode="json") for one in tensors]} if weights else {}
        print_json({**json_of_spec(spec), **of_use, "runtimes": json_of_verdicts(served), **listed})
        return
    facts = [*facts_of_use(opened.adapter, of_base), *facts_of_verdicts(served)]
    print_facts(
        [("adapter", opened.label), ("base", spec.base_name or "not named"), *facts_of_spec(spec), *facts]
    )
    for left, why in opened.adapter.left_out.items():
        print_err(f"not part of the adapter: {left} ({why})")
    if weights:
        columns = ("tensor", "norm", "NaN", "infinite")
        print_table(columns, map(row_of_tensor, tensors), right=columns[1:], cut=("tensor",))


def _tensors(connected: RegistryOpener, source: Source, opened: OpenedAdapter) -> Sequence[TensorInspection]:
    """The tensors of a folder, inspected here; those of a version, as its registry inspected them."""
    from adaptry.adapters.inspection.files import inspect_content
    from adaptry.adapters.inspection.inspector import Inspector
    from adaptry.registry.pagination import iter_items
    from adaptry.registry.tensor_listing import list_tensors

    if isinstance(source, Path):
        with closing(Inspector()) as inspector:
            return tuple(list_tensors(inspect_content(inspector, opened.adapter.content)))
    registry, ref = connected(), source
    return tuple(iter_items(lambda cursor: registry.versions.inspect_tensors(ref, cursor, 200)))
