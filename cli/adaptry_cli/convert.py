"""`adaptry convert`: convert an adapter of any method to a plain LoRA, or its file to another layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry_cli.arguments import BASE, DTYPE, INPUT, parse_named, validate_options
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import OutputTarget, output_options, require_destination
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import json_option, print_err, progress
from adaptry_cli.parent_report import ReportTarget, report_options, write_and_report
from adaptry_cli.warnings import warn

if TYPE_CHECKING:
    from adaptry.compute.layout_conversion.module_names import LayoutVersion

_ONLY_LAYOUT = (
    "--layout changes no weights; use it without --rank, --energy, --uniform, --dtype, --drop-bias,"
    " --whole-weights, --other-base, --report and --heatmap"
)

_ONLY_TO_PEFT = (
    "a file of another tool is first converted to PEFT's layout without changes: leave out --rank, --energy,"
    " --uniform, --dtype, --drop-bias, --whole-weights, --other-base, --report and --heatmap, and convert the"
    " result again with them"
)


@command()
@click.argument("source", metavar="REF|DIR", type=INPUT)
@click.option(
    "--base",
    metavar="NAME|DIR|ID",
    type=BASE,
    help="The base of the adapter. Default: its own, if it is identified by its content.",
)
@click.option(
    "--layout",
    type=click.Choice(["transformers4", "transformers5"]),
    help=(
        "Only rewrite the file in this layout, with the same weights: transformers4 (experts one by one,"
        " older"
        " module names) or transformers5 (as PEFT 0.19 and later write it)."
    ),
)
@click.option("--rank", type=WholeNumber(1), help="Maximum rank of every update.")
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
@click.option("--drop-bias", is_flag=True, help="Leave out the biases that the adapter changes.")
@click.option(
    "--whole-weights",
    type=click.Choice(["none"]),
    help=(
        "`none` leaves out the adapter's whole weights: modules_to_save, biases and trainable_token_indices."
    ),
)
@click.option(
    "--other-base", is_flag=True, help="Allow a base other than the one that the adapter was trained on."
)
@click.option(
    "--part",
    metavar="NAME",
    help="The part of a pipeline to convert from another tool's file: unet, text_encoder, …",
)
@report_options
@output_options
@json_option
def convert(
    target: OutputTarget,
    connected: RegistryOpener,
    report: ReportTarget,
    source: str,
    base: str | None,
    layout: LayoutVersion | None,
    part: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert an adapter of any method to a plain LoRA, or its file to another layout.

    A LoRA that another tool wrote (MLX, diffusers, kohya's sd-scripts, AdapterHub, torchtune, llama.cpp) is
    rewritten in PEFT's layout without changing any number. To change its rank or dtype, convert the result
    again. Files of kohya, torchtune and llama.cpp need the base.

    Variants of LoRA, and methods that equal a LoRA, are converted exactly. For all other methods, the nearest
    LoRA is computed, and the error is shown. An adapter that no LoRA can represent is refused.

    With --layout, the adapter keeps its method and its weights. Only the names of modules change, and whether
    the experts of a layer are one parameter or many; `adaptry inspect` shows the layout of a file. This needs
    the shapes of the base, but not its weights, and no option other than --base and those of the result.
    """
    from adaptry.compute.conversion.options import ConvertOptions
    from adaptry.operations.conversion import ConversionRequest, plan_conversion

    require_destination(target)
    request = ConversionRequest(
        validate_options(ConvertOptions, **options),
        base,
        layout,
        part,
        is_reported=report.is_any,
        note=print_err,
        only_layout=_ONLY_LAYOUT,
        only_to_peft=_ONLY_TO_PEFT,
    )
    named = parse_named(source)
    label = source if isinstance(named, Path) else None
    with progress() as bars:
        lazy_adapter = plan_conversion(connected, named, request, label=label, warn=warn, progress=bars)
    write_and_report(lazy_adapter, target, connected, report, as_json)
