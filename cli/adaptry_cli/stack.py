"""`adaptry stack`: several adapters of one base made into one LoRA that acts as all of them together."""

from __future__ import annotations

from typing import Any

import click

from adaptry_cli.arguments import DTYPE
from adaptry_cli.combine import parse_recipe, run_combine
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import OutputTarget, output_options
from adaptry_cli.out import (
    json_option,
)
from adaptry_cli.parent_report import ReportTarget, report_options


@click.command()
@click.argument("inputs", metavar="REF|DIR[=WEIGHT]...", nargs=-1, required=True)
@click.option("--in-sequence", is_flag=True, help="Each was trained on top of the base and those before it.")
@click.option(
    "--own-ranks", is_flag=True, help="Each module keeps its own rank (smaller; not for every engine)."
)
@click.option("--dtype", type=DTYPE, metavar="DTYPE", help="float32 (the default), float16 or bfloat16.")
@click.option(
    "--whole-weights", metavar="INPUT|none", help="Whose saved modules come along, if several have some."
)
@click.option("--other-base", is_flag=True, help="Also adapters that are known to be of different bases.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and make nothing.")
@report_options
@output_options
@json_option
def stack(
    target: OutputTarget,
    connected: RegistryOpener,
    report: ReportTarget,
    in_sequence: bool,
    own_ranks: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Stack adapters into one LoRA that acts as all of them together.

    Exactly the weighted sum of their updates, by putting the factors side by side: the rank is the sum of the
    ranks. Every module gets one rank and scale 1, so that any engine serves it.
    """
    recipe = parse_recipe(None, {**options, "uniform": not own_ranks, "in_sequence": in_sequence})
    run_combine(recipe, target, connected, report, dry_run, as_json)
