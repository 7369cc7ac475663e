"""`adaptry convert`: an adapter of any method as a plain LoRA, or the same adapter in another file layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.errors import Invalid
from adaptry_cli.arguments import DTYPE, is_folder_path, require_usage, validate_options
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import (
    OutputTarget,
    open_named_parent,
    output_options,
    print_result,
    require_destination,
    write_result,
)
from adaptry_cli.inputs import find_base
from adaptry_cli.out import json_option, progress
from adaptry_cli.parent_report import ReportTarget, report_options, write_and_report

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.compute.converting.base_shapes import ConversionBase
    from adaptry.compute.converting.options import ConvertOptions
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
    from adaptry.core.progress import Progress

_ONLY_LAYOUT = (
    "--layout changes no weights; use it without --rank, --energy, --uniform, --dtype, --drop-bias,"
    " --whole-weights, --other-base, --report and --heatmap"
)

_ONLY_TO_PEFT = (
    "a file of another tool is brought into PEFT's layout as it is: leave out --rank, --energy, --uniform,"
    " --dtype, --drop-bias, --whole-weights, --other-base, --report and --heatmap, and convert the result"
)


@click.command()
@click.argument("source", metavar="REF|DIR")
@click.option("--base", metavar="NAME|DIR|ID", help="The base it is for; else the one the registry knows.")
@click.option(
    "--layout",
    type=click.Choice(["transformers4", "transformers5"]),
    help=(
        "Rewrite the file in this layout instead, with the same weights: transformers4 (experts one by one,"
        " older module names) or transformers5 (as PEFT 0.19 and later write it)."
    ),
)
@click.option("--rank", type=click.IntRange(1), help="Bring every update to this rank at most.")
@click.option(
    "--energy", type=float, metavar="SHARE", help="The smallest ranks that keep this share, as in 0.99."
)
@click.option("--uniform", is_flag=True, help="The same rank for every module, for engines that want one.")
@click.option("--dtype", type=DTYPE, metavar="DTYPE", help="float32 (the default), float16 or bfloat16.")
@click.option("--drop-bias", is_flag=True, help="Leave out the biases that the adapter changes.")
@click.option("--whole-weights", type=click.Choice(["none"]), help="none: leave saved modules out.")
@click.option("--other-base", is_flag=True, help="Also on another base than the adapter is known to be for.")
@click.option(
    "--part",
    metavar="NAME",
    help="Which part of a pipeline to take from another tool's file: unet, text_encoder, …",
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
    layout: str | None,
    part: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a plain LoRA of an adapter of any method, or rewrite its file in another layout.

    A LoRA that another tool wrote (MLX, diffusers, kohya's sd-scripts, AdapterHub, llama.cpp) is brought into
    PEFT's layout: its tensors are renamed and turned round, its scales said in PEFT's words, and no number
    changes. A rank or another dtype is a second step, from the result. kohya's and llama.cpp's names need
    --base.

    Variants of LoRA are folded, methods that are exactly a LoRA become one exactly, and for all others the
    nearest LoRA is computed; the error is shown for every module and overall. What no LoRA can hold is
    refused.

    With --layout, the adapter keeps its method and its weights, number by number; only the names of modules,
    and whether a layer's experts are one parameter or many, change. `adaptry inspect` shows the layout of a
    file. The base's shapes are needed, not its weights. No other option but --base and those of the result
    goes with it.
    """
    from adaptry.adapters.formats import PEFT
    from adaptry.compute.converting.convert import convert as converted
    from adaptry.compute.converting.options import ConvertOptions
    from adaptry.compute.foreign_layouts.gguf_lora import bring_gguf_to_peft
    from adaptry.compute.foreign_layouts.gguf_reader import find_gguf
    from adaptry.compute.foreign_layouts.to_peft import bring_to_peft

    require_destination(target)
    given = [name for name, value in options.items() if value not in (None, False)]
    if layout is not None:
        require_usage(not given and part is None and not report.is_any, _ONLY_LAYOUT)
        _convert_layout(target, connected, source, layout, base, as_json)
        return
    if is_folder_path(source) and (file := find_gguf(Path(source).expanduser())) is not None:
        require_usage(not given and part is None and not report.is_any, _ONLY_TO_PEFT)
        draft = bring_gguf_to_peft(file, source, find_base(connected, base).record if base else None)
        print_result(draft, write_result(draft, target, connected), as_json)
        return
    asked = validate_options(ConvertOptions, **options)
    with progress() as bars:
        parent = open_named_parent(connected, source, bars)
    if parent.adapter.format is not PEFT:
        require_usage(not given and not report.is_any, _ONLY_TO_PEFT)
        draft = bring_to_peft(parent, _known_base(connected, base, parent), part)
        print_result(draft, write_result(draft, target, connected), as_json)
        return
    require_usage(part is None, "--part is for files of other tools that hold several parts of a pipeline")
    with progress() as bars:
        ground = _conversion_base(connected, base, parent, asked, bars)
    write_and_report(converted(parent, asked, ground), target, connected, report, as_json)


def _convert_layout(
    target: OutputTarget, connected: RegistryOpener, source: str, layout: str, base: str | None, as_json: bool
) -> None:
    from adaptry.compute.layout_conversion.convert import convert_layout
    from adaptry.compute.layout_conversion.module_names import LAYOUTS

    with progress() as bars:
        parent = open_named_parent(connected, source, bars)
    to = next(each for each in LAYOUTS if each == layout)
    draft = convert_layout(parent, _base_shapes(connected, base, parent), to)
    print_result(draft, write_result(draft, target, connected), as_json)


def _conversion_base(
    connected: RegistryOpener,
    base: str | None,
    parent: ParentAdapter,
    asked: ConvertOptions,
    progress: Progress,
) -> ConversionBase | None:
    """The base that the call names, else the registry's; its weights only where they are needed."""
    from adaptry.bases.fingerprinting import fingerprint
    from adaptry.bases.hf_folder import open_checkpoint
    from adaptry.compute.converting.base_shapes import ConversionBase
    from adaptry.compute.converting.convert import needs_base_values
    from adaptry.operations.base_registry import open_base

    if base is None and parent.base is None:
        return None
    key = base or str(parent.base.id if parent.base else "")
    if is_folder_path(key):
        checkpoint = open_checkpoint(key)
    elif needs_base_values(parent, asked):
        checkpoint = open_base(connected(), key, progress=progress)
    else:
        return ConversionBase(connected().bases.record(connected().bases.get(key).id))
    return ConversionBase(fingerprint(checkpoint), checkpoint)


def _base_shapes(connected: RegistryOpener, base: str | None, parent: ParentAdapter) -> BaseRecord:
    """The shapes of the base that the call names, else of the one that the registry knows for the parent."""
    known = _known_base(connected, base, parent)
    if known is None:
        raise Invalid(
            f"converting the layout of {parent.label} needs the shapes of its base;"
            " pass --base NAME or --base ./DIR"
        )
    return known


def _known_base(connected: RegistryOpener, base: str | None, parent: ParentAdapter) -> BaseRecord | None:
    """The record of the base that the call names, else of the one that the registry knows."""
    return find_base(connected, base).record if base else parent.base
