"""`adaptry stack`: stack several adapters of one base into one LoRA that acts like all of them together."""

from __future__ import annotations

from typing import Any

import click

from adaptry_cli.arguments import BASE, DTYPE, INPUT
from adaptry_cli.combine import parse_recipe, run_combine
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import OutputTarget, output_options
from adaptry_cli.output import (
    json_option,
)
from adaptry_cli.parent_report import ReportTarget, report_options
from adaptry_cli.renamed_option import RenamedOption


@command()
@click.argument("inputs", metavar="REF|DIR[=WEIGHT]...", type=INPUT, nargs=-1, required=True)
@click.option(
    "--in-sequence",
    is_flag=True,
    help="Each adapter was trained on top of the base and the adapters before it.",
)
@click.option(
    "--per-module-ranks",
    cls=RenamedOption,
    former="--own-ranks",
    is_flag=True,
    help="Let each module have its own rank: smaller, but some engines cannot serve it.",
)
@click.option("--dtype", type=DTYPE, metavar="DTYPE", help="float32 (the default), float16 or bfloat16.")
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
@report_options
@output_options
@json_option
def stack(
    target: OutputTarget,
    connected: RegistryOpener,
    report: ReportTarget,
    in_sequence: bool,
    per_module_ranks: bool,
    base: str | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Stack adapters into one LoRA that acts like all of them together.

    The result is exactly the weighted sum of their updates: the factors are concatenated, and the rank is the
    sum of the ranks. Every module gets the same rank and scale 1, so that any engine can serve it.
    """
    recipe = parse_recipe(None, {**options, "uniform": not per_module_ranks, "in_sequence": in_sequence})
    run_combine(recipe, target, connected, report, dry_run, as_json, base)
