"""`adaptry extract`: extract a LoRA from a full fine-tune and its base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from adaptry.core.refs import is_folder
from adaptry_cli.arguments import BASE, DTYPE, require_usage, validate_options
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import (
    OutputTarget,
    open_named_parent,
    output_options,
    print_result,
    require_destination,
    result_json,
    write_result,
)
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import format_share, json_option, print_err, print_json, progress

if TYPE_CHECKING:
    from adaptry.bases.hf_folder import HfCheckpoint
    from adaptry.compute.extraction.plan import ExtractPlan
    from adaptry.compute.merge_verification.verdict import Verification
    from adaptry.core.progress import Progress
    from adaptry.operations.derived_output import DerivedResult

_WORST = 5
_STATES = {
    "missing": "missing from base plus adapter",
    "extra": "not in the fine-tune",
    "shape": "of another shape or dtype",
}


@command()
@click.argument("finetuned", metavar="DIR|NAME", type=BASE)
@click.option("--base", required=True, metavar="NAME|DIR|ID", type=BASE, help="The base that was fine-tuned.")
@click.option("--rank", type=WholeNumber(1), help="The rank of every module.")
@click.option(
    "--energy",
    type=float,
    metavar="SHARE",
    help=(
        "Choose the smallest ranks that keep this share of the energy (the squared norm of"
        " the update), such as 0.95."
    ),
)
@click.option(
    "--modules",
    multiple=True,
    metavar="PATTERN",
    help="Only modules whose path ends with PATTERN, such as q_proj; may be repeated.",
)
@click.option("--dtype", type=DTYPE, metavar="DTYPE", help="float32 (the default), float16 or bfloat16.")
@click.option("--seed", type=WholeNumber(0), default=0, show_default=True, help="Seed for the decomposition.")
@click.option(
    "--no-verify",
    is_flag=True,
    help="Skip merging the result into the base and comparing it with the fine-tune.",
)
@output_options
@json_option
def extract(
    finetuned: str,
    base: str,
    target: OutputTarget,
    connected: RegistryOpener,
    no_verify: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Extract a LoRA from a full fine-tune and its base.

    The change made by training is decomposed tensor by tensor (SVD) and kept up to a rank or an energy.
    Norms, biases and resized embeddings are kept whole. The loss is shown; then the result is merged into the
    base and compared with the fine-tune.
    """
    from adaptry.compute.extraction.extracted_adapter import build_extracted_adapter
    from adaptry.compute.extraction.plan import plan_extraction
    from adaptry.compute.extraction.recipe import ExtractRecipe

    require_usage(
        (options["rank"] is None) != (options["energy"] is None), "pass either --rank N or --energy SHARE"
    )
    require_destination(target)
    words = {key: value for key, value in options.items() if value is not None}
    recipe = validate_options(ExtractRecipe, **words)
    with progress() as bars:
        base_checkpoint = _opened(connected, base, bars)
        decided = plan_extraction(recipe, base_checkpoint, _opened(connected, finetuned, bars), bars)
    extracted = build_extracted_adapter(decided, _name(connected, base))
    there = write_result(extracted, target, connected)
    result = None if no_verify else _rejoined(decided, there, connected)
    if as_json:
        print_json({**result_json(extracted, there), "merged_back": _json(result)})
        return
    print_result(extracted, there, False)
    if result is not None:
        _print_difference(result)


def _opened(connected: RegistryOpener, name: str, progress: Progress) -> HfCheckpoint:
    from adaptry.bases.hf_folder import open_checkpoint
    from adaptry.operations.base_registry import open_base

    return open_checkpoint(name) if is_folder(name) else open_base(connected(), name, progress=progress)


def _name(connected: RegistryOpener, base: str) -> str | None:
    """The base's name for loaders: its folder, or its first name in the registry."""
    return base if is_folder(base) else next(iter(connected().bases.get(base).names), None)


def _rejoined(decided: ExtractPlan, there: DerivedResult, connected: RegistryOpener) -> Verification | str:
    from adaptry.adapters.adapter import open_dir
    from adaptry.compute.extraction.verify_roundtrip import verify_extraction

    with progress() as bars:
        adapter = (
            open_dir(there.folder)
            if there.folder
            else open_named_parent(connected, there.location, bars).adapter
        )
        return verify_extraction(decided, adapter, there.location, bars)


def _json(result: Verification | str | None) -> object:
    if result is None or isinstance(result, str):
        return {"refused": result} if result else None
    tensors = [
        {"tensor": each.tensor, "state": each.state, "relative_error": each.relative_to_change}
        for each in result.tensors
    ]
    return {"relative_error": result.error, "tensors": tensors}


def _print_difference(result: Verification | str) -> None:
    """The difference between base plus adapter and the fine-tune, relative to the change by training."""
    if isinstance(result, str):
        print_err(f"not merged into the base to compare: {result}")
        return
    print_err(
        f"base plus adapter differs from the fine-tune by {format_share(result.error)} of the change made"
        " by training"
    )
    errors = [(error, each.tensor) for each in result.tensors if (error := each.relative_to_change)]
    if errors:
        print_err("worst tensors:")
    for error, tensor in sorted(errors, reverse=True)[:_WORST]:
        print_err(f"  {tensor} differs by {format_share(error)}")
    for each in result.failed:
        if each.state in _STATES:
            print_err(f"  {each.tensor}: {_STATES[each.state]}")
