"""`adaptry combine`: combine several adapters of one base into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry_cli.arguments import (
    BASE,
    DTYPE,
    FOLDER,
    INPUT,
    METHOD,
    parse_named,
    parse_parameters,
    require_usage,
    validate_options,
)
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import (
    OutputTarget,
    output_options,
    require_destination,
    with_recipe_output,
)
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import (
    format_count,
    format_number,
    format_size,
    json_option,
    print_err,
    print_json,
    progress,
)
from adaptry_cli.parent_report import ReportTarget, report_options, write_and_report
from adaptry_cli.tables import print_table
from adaptry_cli.warnings import warn

if TYPE_CHECKING:
    from adaptry.compute.combining.plan import CombinePlan
    from adaptry.compute.recipes.combine import CombineRecipe


@command()
@click.argument("inputs", metavar="[REF|DIR[=WEIGHT]]...", type=INPUT, nargs=-1)
@click.option(
    "--recipe",
    "recipe_file",
    metavar="FILE",
    type=FOLDER,
    help="A recipe in YAML (Adaptry's format or mergekit's), instead of inputs and options.",
)
@click.option(
    "--method",
    metavar="NAME",
    type=METHOD,
    help="Method: linear (the default), svd, ties, dare_linear, … (--methods lists them).",
)
@click.option(
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the method; may be repeated.",
)
@click.option("--rank", type=WholeNumber(1), help="Reduce every module to this rank.")
@click.option(
    "--energy",
    type=float,
    metavar="SHARE",
    help=(
        "Choose the smallest ranks that keep this share of the energy (the squared norm of"
        " the update), such as 0.99."
    ),
)
@click.option(
    "--uniform", is_flag=True, help="Use the same rank for every module, for engines that need that."
)
@click.option("--dtype", type=DTYPE, metavar="DTYPE", help="float32 (the default), float16 or bfloat16.")
@click.option("--seed", type=WholeNumber(0), default=None, help="Seed for methods that draw random numbers.")
@click.option(
    "--whole-weights",
    metavar="INPUT|none",
    help=(
        "The input whose whole weights are kept, if those of several inputs differ: modules_to_save, biases"
        " and trainable_token_indices. `none` leaves them out."
    ),
)
@click.option("--other-base", is_flag=True, help="Allow adapters that were trained on different bases.")
@click.option(
    "--base",
    metavar="NAME|DIR|ID",
    type=BASE,
    help="The base of inputs whose base the registry does not know. Default: their own, if it is identified"
    " by its content.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan; write nothing.")
@click.option("--methods", "is_listing", is_flag=True, help="List the methods and their parameters.")
@report_options
@output_options
@json_option
def combine(
    target: OutputTarget,
    connected: RegistryOpener,
    report: ReportTarget,
    recipe_file: Path | None,
    base: str | None,
    dry_run: bool,
    is_listing: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Combine adapters of one base into one adapter.

    The adapters may have different ranks and modules; a module that an adapter does not change counts as 0.
    LoRAs of other tools are read as `adaptry convert` would write them. With -o acme/both, the result is a
    version that records its parents and recipe, and the same recipe gives the same version. --recipe also
    reads mergekit's YAML, if its models are LoRA adapters.
    """
    if is_listing:
        _print_methods(as_json)
        return
    recipe = parse_recipe(recipe_file, options)
    target = with_recipe_output(target, recipe.output)
    run_combine(recipe, target, connected, report, dry_run, as_json, base)


def run_combine(
    recipe: CombineRecipe,
    target: OutputTarget,
    connected: RegistryOpener,
    report: ReportTarget,
    dry_run: bool,
    as_json: bool,
    base: str | None = None,
) -> None:
    """Combines the recipe's inputs and reports the result, or prints the plan for a dry run.

    `base`: the base of inputs whose base the registry does not know.
    """
    from adaptry.compute.combining.combine import build_combined_adapter
    from adaptry.compute.combining.plan import plan_combination
    from adaptry.operations.combine_sources import open_parents

    if not dry_run:
        require_destination(target)
    with progress() as bars:
        named = [(parse_named(entry.source), entry.source) for entry in recipe.inputs]
        sources = [(source, text if isinstance(source, Path) else None) for source, text in named]
        parents = open_parents(connected, sources, base, note=print_err, warn=warn, progress=bars)
    decided = plan_combination(recipe, parents)
    if dry_run:
        _print_plan(decided, as_json)
        return
    write_and_report(build_combined_adapter(decided), target, connected, report, as_json)


def parse_recipe(file: Path | None, options: dict[str, Any]) -> CombineRecipe:
    """The recipe in a file, or one from inputs and options. Raises a usage error for both."""
    from adaptry.compute.combining.recipe_file import read_recipe
    from adaptry.compute.recipes.combine import CombineRecipe
    from adaptry.compute.recipes.merge import RecipeInput
    from adaptry.core.refs import split_weight

    words = {key: value for key, value in options.items() if value not in (None, ()) and value is not False}
    if file is not None:
        require_usage(
            not words, f"--recipe replaces inputs and options; leave out {', '.join(sorted(words))}"
        )
        return read_recipe(
            file, lambda text: print_err(f"{file} is mergekit's; read as this recipe:\n{text}")
        )
    require_usage("inputs" in words, "name the adapters to combine, or pass --recipe FILE")
    words["inputs"] = tuple(
        RecipeInput(source=source, weight=weight) for source, weight in map(split_weight, options["inputs"])
    )
    if "parameters" in words:
        words["parameters"] = parse_parameters(options["parameters"])
    return validate_options(CombineRecipe, **words)


def _print_plan(plan: CombinePlan, as_json: bool) -> None:
    """Prints each kind of module with its inputs, method and ranks, and the total memory, time and size."""
    from adaptry.compute.combining.costs import estimate_seconds

    rows = [
        {
            "module": planned.site.key,
            "inputs": len(planned.inputs),
            "method": planned.method.name,
            "ranks": list(planned.ranks),
            "rank": planned.expected_rank,
        }
        for planned in plan.sites
    ]
    lasts = round(estimate_seconds(plan.operations), 1)
    total = {
        "memory": plan.memory,
        "seconds": lasts,
        "size": plan.size,
        "notes": list(plan.notes),
    }
    if as_json:
        print_json({"modules": rows, **total})
        return
    print_table(
        ("module", "inputs", "method", "ranks of inputs", "rank"),
        _grouped_rows(plan),
        right=("inputs", "ranks of inputs", "rank"),
        cut=("module",),
        drop=("inputs", "ranks of inputs"),
    )
    inputs = ", ".join(
        one.source if one.weight == 1 else f"{one.source}={one.weight:g}" for one in plan.recipe.inputs
    )
    print_err(
        f"{plan.recipe.method} of {inputs}: {format_count(len(rows), 'module')}, at most"
        f" {format_size(plan.size)}; {_duration(lasts)} on this machine, {format_size(plan.memory)} of memory"
        " for tensors"
    )
    for note in plan.notes:
        print_err(f"note: {note}")


def _grouped_rows(plan: CombinePlan) -> list[tuple[str, ...]]:
    """A row for each kind of module, such as `32 × model.layers.N.self_attn.q_proj`; modules share a row only
    if everything else is equal.
    """
    from adaptry.checks.finding_text import fold_layer_numbers

    groups: dict[tuple[str, ...], list[str]] = {}
    for planned in plan.sites:
        cells = (
            str(len(planned.inputs)),
            planned.method.name,
            " + ".join(map(str, planned.ranks)),
            _rank(planned.expected_rank, plan),
        )
        (kind,) = fold_layer_numbers([planned.site.key])
        groups.setdefault((kind, *cells), []).append(planned.site.key)
    return [
        (names[0] if len(names) == 1 else f"{len(names)} × {kind}", *cells)
        for (kind, *cells), names in groups.items()
    ]


def _duration(seconds: float) -> str:
    return f"about {format_number(seconds)} s" if seconds else "less than 0.1 s"


def _rank(expected: int, plan: CombinePlan) -> str:
    return f"≤ {expected}" if plan.recipe.energy is not None else str(expected)


def _print_methods(as_json: bool) -> None:
    from adaptry.compute.combining import COMBINE_METHODS

    if as_json:
        print_json(
            {
                each.name: {
                    "title": each.title,
                    "source": each.source,
                    "parameters": {
                        name: {"default": parameter.default, "description": parameter.description}
                        for name, parameter in each.parameters.items()
                    },
                }
                for each in COMBINE_METHODS.values()
            }
        )
        return
    print_table(
        ("method", "description", "parameters and defaults"),
        [
            (each.name, each.title, ", ".join(f"{name}={p.default}" for name, p in each.parameters.items()))
            for each in COMBINE_METHODS.values()
        ],
        cut=("description", "parameters and defaults"),
    )
