"""`adaptry combine`: several adapters of one base made into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry_cli.arguments import DTYPE, FOLDER, parse_parameters, require_usage, validate_options
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import (
    OutputTarget,
    open_named_parent,
    output_options,
    require_destination,
    with_recipe_output,
)
from adaptry_cli.out import (
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

if TYPE_CHECKING:
    from adaptry.compute.combining.plan import CombinePlan
    from adaptry.compute.recipes.combine import CombineRecipe


@click.command()
@click.argument("inputs", metavar="[REF|DIR[=WEIGHT]]...", nargs=-1)
@click.option(
    "--recipe",
    "recipe_file",
    metavar="FILE",
    type=FOLDER,
    help="A YAML recipe, instead of inputs and options.",
)
@click.option(
    "--method", metavar="NAME", help="How: linear, svd, ties, dare_linear, … (`--methods` lists them)."
)
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the method.")
@click.option("--rank", type=click.IntRange(1), help="Bring every module to this rank.")
@click.option(
    "--energy", type=float, metavar="SHARE", help="The smallest ranks that keep this share, as in 0.99."
)
@click.option("--uniform", is_flag=True, help="The same rank for every module, for engines that want one.")
@click.option("--dtype", type=DTYPE, metavar="DTYPE", help="float32 (the default), float16 or bfloat16.")
@click.option(
    "--seed", type=click.IntRange(0), default=None, help="For the methods that draw random numbers."
)
@click.option(
    "--whole-weights", metavar="INPUT|none", help="Whose saved modules come along, if several have some."
)
@click.option("--other-base", is_flag=True, help="Also adapters that are known to be of different bases.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and make nothing.")
@click.option("--methods", "is_listing", is_flag=True, help="List the methods and their parameters.")
@report_options
@output_options
@json_option
def combine(
    target: OutputTarget,
    connected: RegistryOpener,
    report: ReportTarget,
    recipe_file: Path | None,
    dry_run: bool,
    is_listing: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Combine adapters of one base into one adapter.

    Different ranks and modules go together; what an adapter does not change counts as 0. The result says what
    it was made of and how: with -o acme/both it is a version whose parents and recipe are kept, and the same
    recipe gives the same version.
    """
    if is_listing:
        _print_methods(as_json)
        return
    recipe = parse_recipe(recipe_file, options)
    target = with_recipe_output(target, recipe.output)
    run_combine(recipe, target, connected, report, dry_run, as_json)


def run_combine(
    recipe: CombineRecipe,
    target: OutputTarget,
    connected: RegistryOpener,
    report: ReportTarget,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Combines what the recipe names and reports the result, or prints the plan for a dry run."""
    from adaptry.compute.combining.combine import build_combined_adapter
    from adaptry.compute.combining.plan import plan_combination

    if not dry_run:
        require_destination(target)
    with progress() as bars:
        parents = [open_named_parent(connected, entry.source, bars) for entry in recipe.inputs]
    decided = plan_combination(recipe, parents)
    if dry_run:
        _print_plan(decided, as_json)
        return
    write_and_report(build_combined_adapter(decided), target, connected, report, as_json)


def parse_recipe(file: Path | None, options: dict[str, Any]) -> CombineRecipe:
    """The recipe in a file, or the one that inputs and options make; not both. Raises a usage error."""
    from adaptry.compute.combining.recipe_file import read_recipe
    from adaptry.compute.recipes.combine import CombineRecipe
    from adaptry.compute.recipes.merge import RecipeInput
    from adaptry.core.refs import split_weight

    words = {key: value for key, value in options.items() if value not in (None, ()) and value is not False}
    if file is not None:
        require_usage(
            not words, f"--recipe replaces inputs and options; leave out {', '.join(sorted(words))}"
        )
        return read_recipe(file)
    require_usage("inputs" in words, "name the adapters to combine, or a --recipe")
    words["inputs"] = tuple(
        RecipeInput(source=source, weight=weight) for source, weight in map(split_weight, options["inputs"])
    )
    if "parameters" in words:
        words["parameters"] = parse_parameters(options["parameters"])
    return validate_options(CombineRecipe, **words)


def _print_plan(plan: CombinePlan, as_json: bool) -> None:
    """Modules with their inputs, method and ranks; memory, time and size in all."""
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
        ("module", "inputs", "method", "ranks", "rank"),
        [
            (
                str(row["module"]),
                str(row["inputs"]),
                str(row["method"]),
                " + ".join(map(str, planned.ranks)),
                _rank(planned.expected_rank, plan),
            )
            for row, planned in zip(rows, plan.sites, strict=True)
        ],
        right=("inputs", "ranks", "rank"),
    )
    print_err(
        f"{format_count(len(rows), 'module')}, at most {format_size(plan.size)};"
        f" about {format_number(lasts)} s here and {format_size(plan.memory)} of memory beside torch's own"
    )
    for note in plan.notes:
        print_err(f"note: {note}")


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
                        name: {"default": parameter.default, "about": parameter.about}
                        for name, parameter in each.parameters.items()
                    },
                }
                for each in COMBINE_METHODS.values()
            }
        )
        return
    print_table(
        ("method", "what it is", "parameters"),
        [
            (each.name, each.title, ", ".join(f"{name}={p.default}" for name, p in each.parameters.items()))
            for each in COMBINE_METHODS.values()
        ],
    )
