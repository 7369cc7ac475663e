"""`adaptry merge`: merge adapters into their base, as a checkpoint that any engine loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.refs import split_weight
from adaptry_cli.arguments import BASE, DTYPE, INPUT, METHOD, parse_named, parse_parameters, validate_options
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener, lazy_registry_option
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import (
    format_count,
    format_size,
    json_option,
    print_err,
    print_json,
    print_out,
    progress,
)
from adaptry_cli.sizes import SIZE
from adaptry_cli.tables import print_table
from adaptry_cli.warnings import warn

if TYPE_CHECKING:
    from adaptry.compute.merging.plan import MergePlan
    from adaptry.compute.merging.record import MergeRecord
    from adaptry.compute.merging.rounding_loss import ChangedElements
    from adaptry.compute.recipes.merge import MergeRecipe


@command()
@click.argument("inputs", metavar="REF|DIR[=WEIGHT]...", type=INPUT, nargs=-1, required=True)
@click.option(
    "--base",
    metavar="NAME|DIR|ID",
    type=BASE,
    help="The base to merge into. Default: the adapters' own, if it is identified by its content.",
)
@click.option(
    "--to",
    "-o",
    "--output",
    "output",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The folder to write.",
)
@click.option(
    "--dtype",
    type=DTYPE,
    metavar="DTYPE",
    help="float32, float16 or bfloat16. Default: each weight keeps its own.",
)
@click.option(
    "--max-shard-size", type=SIZE, metavar="SIZE", help="Such as 5GB. Default: the same files as the base."
)
@click.option(
    "--device",
    metavar="DEVICE",
    default="cpu",
    show_default=True,
    help="Device to compute on: cpu, cuda, cuda:1, mps.",
)
@click.option(
    "--kernel",
    type=click.Choice(["auto", "torch", "llvm"]),
    default="auto",
    show_default=True,
    help="CPU code to use; the results are the same.",
)
@click.option(
    "--no-hash", is_flag=True, help="Do not hash the output: faster, but the record then has no file digests."
)
@click.option(
    "--other-base", is_flag=True, help="Allow a base other than the one that the adapter was trained on."
)
@click.option("--resize-vocab", is_flag=True, help="Allow embeddings with more rows than the base's.")
@click.option(
    "--base-copy",
    type=click.Choice(["original", "dequantised"]),
    help="Which copy of the base to merge into, if it is quantised or the adapter was trained on a"
    " quantised copy.",
)
@click.option(
    "--method",
    default="linear",
    show_default=True,
    metavar="NAME",
    type=METHOD,
    help="Method to combine several adapters: ties, dare_ties, … (`adaptry combine --methods`).",
)
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the method.")
@click.option("--seed", type=WholeNumber(0), default=0, help="Seed for methods that draw random numbers.")
@click.option(
    "--rounding",
    type=click.Choice(["float32", "peft"]),
    default="float32",
    show_default=True,
    help="float32: round the sum once. peft: round after each adapter, as PEFT does.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be written; write nothing.")
@lazy_registry_option
@json_option
def merge(
    inputs: tuple[str, ...],
    base: str | None,
    output: Path,
    device: str,
    kernel: str,
    no_hash: bool,
    dry_run: bool,
    connected: RegistryOpener,
    as_json: bool,
    **options: Any,
) -> None:
    """Merge adapters into their base's weights.

    Computes W + weight · scale · B·A in float32 and rounds once, as PEFT does. An adapter that does not fit
    is refused before any weight is read. The output folder appears only once it is complete;
    `adaptry_merge.json` in it records what was merged.
    """
    from adaptry.compute.merging.cancellation import check_cancellation
    from adaptry.compute.merging.merge import MergeOptions, plan_recipe
    from adaptry.compute.merging.merge import merge as carry_out
    from adaptry.compute.merging.sampled_changes import sample_changes
    from adaptry.operations.known_base import find_common_base
    from adaptry.operations.merge_sources import open_merge

    if base is None:
        known = find_common_base(connected, [parse_named(split_weight(entry)[0]) for entry in inputs])
        print_err(known.sentence())
        base = known.key
    recipe = _recipe(base, inputs, options)
    with progress() as bars:
        named = [parse_named(entry.source) for entry in recipe.inputs]
        opened = open_merge(connected, recipe, named, warn=warn, progress=bars)
        if dry_run:
            decided = plan_recipe(recipe, opened.checkpoint, opened.sources, opened.base_evidence)
            plan = check_cancellation(decided)
            sampled = sample_changes(plan)
        else:
            how = MergeOptions(device, kernel, hashing=not no_hash)
            record = carry_out(
                recipe, opened.checkpoint, opened.sources, output, how, bars, opened.base_evidence
            )
    if dry_run:
        _print_plan(plan, sampled, as_json)
    else:
        _print_record(record, output, as_json)


def _recipe(base: str, inputs: tuple[str, ...], options: dict[str, Any]) -> MergeRecipe:
    """The options as one value. (`Any`: each option has its field's type.)"""
    from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput

    entries = tuple(RecipeInput(source=source, weight=weight) for source, weight in map(split_weight, inputs))
    options["parameters"] = parse_parameters(options["parameters"])
    return validate_options(MergeRecipe, base=base, inputs=entries, **options)


def _print_record(record: MergeRecord, output: Path, as_json: bool) -> None:
    """Prints the folder on stdout; notes, and the number of changed weights, on stderr."""
    from adaptry.compute.merging.record import RECORD_FILE

    for note in record.notes:
        print_err(f"note: {note}")
    for warning in record.warnings:
        print_err(f"warning: {warning}")
    counted = format_count(record.baked, "weight")
    if record.changed != record.baked:
        counted = f"{record.changed:,} of {counted}"
    print_err(f"{counted} changed; {output / RECORD_FILE} records what was merged")
    if as_json:
        print_json({"output": str(output), **record.model_dump(mode="json")})
    else:
        print_out(str(output))


def _print_plan(plan: MergePlan, sampled: ChangedElements, as_json: bool) -> None:
    """Prints the result of a merge in advance: files, sizes, the number of changed weights, and a warning if
    the sampled rows show that most of an update would be lost.
    """
    from adaptry.compute.merging.rounding_loss import describe_loss

    if sampled.lost:
        warn(f"in {format_count(len(sampled.lost), 'weight')}, {describe_loss(sampled, is_sample=True)}")
    files = [{"path": file.name, "size": file.size} for file in plan.files]
    if as_json:
        print_json(
            {
                "files": files,
                "size": plan.size,
                "baked": plan.adapted_count,
                "notes": list(plan.notes),
                "lost_to_rounding": list(sampled.lost),
            }
        )
        return
    print_table(
        ("file", "size"), [(file.name, format_size(file.size)) for file in plan.files], right=("size",)
    )
    for line in (
        f"{format_count(plan.adapted_count, 'weight')} would change; {format_size(plan.size)} in all",
        *plan.notes,
    ):
        print_err(line)
