"""`adaptry merge`: adapters merged into their base, as a checkpoint that any engine loads."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.refs import is_folder
from adaptry_cli.arguments import DTYPE, parse_parameters, validate_options
from adaptry_cli.connection import RegistryOpener, connect_to
from adaptry_cli.derive_output import open_named_parent
from adaptry_cli.out import format_count, format_size, json_option, print_err, print_json, print_out, progress
from adaptry_cli.sizes import SIZE
from adaptry_cli.tables import print_table

if TYPE_CHECKING:
    from adaptry.bases.hf_folder import HfCheckpoint
    from adaptry.compute.merging.merge import MergeSource
    from adaptry.compute.merging.plan import MergePlan
    from adaptry.compute.merging.record import MergeRecord
    from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
    from adaptry.core.progress import Progress


@click.command()
@click.argument("inputs", metavar="REF|DIR[=WEIGHT]...", nargs=-1, required=True)
@click.option("--base", required=True, metavar="NAME|DIR|ID", help="The base to merge into.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option(
    "--dtype",
    type=DTYPE,
    metavar="DTYPE",
    help="float32, float16 or bfloat16; else each weight keeps its own.",
)
@click.option(
    "--max-shard-size", type=SIZE, metavar="SIZE", help="As in 5GB; else the base's files stay as they are."
)
@click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda, cuda:1, mps.")
@click.option(
    "--kernel",
    type=click.Choice(["auto", "torch", "llvm"]),
    default="auto",
    show_default=True,
    help="The CPU code to use; results are the same.",
)
@click.option(
    "--no-hash", is_flag=True, help="Do not digest the output (faster; the record has no file digests)."
)
@click.option(
    "--other-base", is_flag=True, help="Merge into another model than the adapter is known to be for."
)
@click.option(
    "--resize-vocab", is_flag=True, help="Also take embeddings that have more rows than the base's."
)
@click.option(
    "--base-copy",
    type=click.Choice(["original", "dequantised"]),
    help="Which copy to merge into, where the base or the one trained on is quantised.",
)
@click.option(
    "--method",
    default="linear",
    show_default=True,
    metavar="NAME",
    help="How several are combined: ties, dare_ties, … (`adaptry combine --methods` lists them).",
)
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the method.")
@click.option("--seed", type=click.IntRange(0), default=0, help="For the methods that draw random numbers.")
@click.option(
    "--rounding",
    type=click.Choice(["float32", "peft"]),
    default="float32",
    show_default=True,
    help="float32: round the sum once. peft: round as PEFT does, after each adapter.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@click.option("--registry", "where", metavar="URL|DIR", help="The registry to use.")
@json_option
def merge(
    inputs: tuple[str, ...],
    base: str,
    output: Path,
    device: str,
    kernel: str,
    no_hash: bool,
    dry_run: bool,
    where: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Merge adapters into their base's weights.

    W + weight · scale · B·A, computed in float32 and rounded once, as PEFT does. Everything that does not fit
    fails before a weight is read; the output folder appears whole or not at all. `adaptry_merge.json` in it
    says what went in.
    """
    from adaptry.compute.merging.merge import MergeOptions, plan_recipe
    from adaptry.compute.merging.merge import merge as carry_out

    recipe = _recipe(base, inputs, options)
    connected = functools.cache(lambda: connect_to(where))  # folders need none
    with progress() as bars:
        checkpoint, found = _base(connected, recipe, bars)
        sources = [_opened(connected, entry, bars) for entry in recipe.inputs]
        if dry_run:
            plan = plan_recipe(recipe, checkpoint, sources, found)
        else:
            how = MergeOptions(device, kernel, hashing=not no_hash)
            record = carry_out(recipe, checkpoint, sources, output, how, bars, found)
    if dry_run:
        _say_plan(plan, as_json)
    else:
        _say_record(record, output, as_json)


def _recipe(base: str, inputs: tuple[str, ...], options: dict[str, Any]) -> MergeRecipe:
    """What was typed, as one value. (`Any`: each option has its field's type.)"""
    from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
    from adaptry.core.refs import split_weight

    entries = tuple(RecipeInput(source=source, weight=weight) for source, weight in map(split_weight, inputs))
    options["parameters"] = parse_parameters(options["parameters"])
    return validate_options(MergeRecipe, base=base, inputs=entries, **options)


def _base(connected: RegistryOpener, recipe: MergeRecipe, progress: Progress) -> tuple[HfCheckpoint, str]:
    """The base to merge into, with its weights, and how it was found if it is the named one's original."""
    from adaptry.bases.hf_folder import open_checkpoint
    from adaptry.bases.quantised import open_logical_view
    from adaptry.operations.base_registry import open_base
    from adaptry.operations.quantised_variants import open_original

    base = recipe.base
    checkpoint = open_checkpoint(base) if is_folder(base) else open_base(connected(), base, progress=progress)
    if recipe.base_copy == "original" and open_logical_view(checkpoint).packed:
        return open_original(connected(), checkpoint, progress)
    return checkpoint, ""


def _opened(connected: RegistryOpener, entry: RecipeInput, progress: Progress) -> MergeSource:
    """An input by folder or ref, its weights at hand."""
    from adaptry.compute.merging.fitting import WeightedAdapter
    from adaptry.compute.merging.merge import MergeSource

    parent = open_named_parent(connected, entry.source, progress)
    return MergeSource(
        WeightedAdapter(parent.adapter, entry.weight, parent.label, parent.base), parent.revision
    )


def _say_record(record: MergeRecord, output: Path, as_json: bool) -> None:
    """The answer: the folder; the story: notes, and how many weights changed."""
    from adaptry.compute.merging.record import RECORD_FILE

    for note in record.notes:
        print_err(f"note: {note}")
    for warning in record.warnings:
        print_err(f"warning: {warning}")
    counted = format_count(record.baked, "weight")
    if record.changed != record.baked:
        counted = f"{record.changed:,} of {counted}"
    print_err(f"{counted} changed; what went in is in {output / RECORD_FILE}")
    if as_json:
        print_json({"output": str(output), **record.model_dump(mode="json")})
    else:
        print_out(str(output))


def _say_plan(plan: MergePlan, as_json: bool) -> None:
    """What a merge would write: files, sizes, how many weights change."""
    files = [{"path": file.name, "size": file.size} for file in plan.files]
    if as_json:
        print_json(
            {"files": files, "size": plan.size, "baked": plan.adapted_count, "notes": list(plan.notes)}
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
