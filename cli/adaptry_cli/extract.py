"""`adaptry extract`: a LoRA out of a full fine-tune and its base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from adaptry.core.refs import is_folder
from adaptry_cli.arguments import DTYPE, made, require
from adaptry_cli.connection import Connected
from adaptry_cli.derive_output import (
    Landed,
    Target,
    json_of,
    landed,
    making_options,
    parent_named,
    say_landed,
)
from adaptry_cli.out import json_option, number, progress, say_json, tell

if TYPE_CHECKING:
    from adaptry.bases.hf_folder import Checkpoint
    from adaptry.compute.extracting.plan import ExtractPlan
    from adaptry.compute.verifying.verdict import Verification
    from adaptry.core.progress import Progress

_WORST = 5


@click.command()
@click.argument("finetuned", metavar="DIR|NAME")
@click.option("--base", required=True, metavar="NAME|DIR|ID", help="What it was trained from.")
@click.option("--rank", type=click.IntRange(1), help="The rank of every module.")
@click.option(
    "--energy", type=float, metavar="SHARE", help="The smallest ranks that keep this share, as in 0.95."
)
@click.option(
    "--modules", multiple=True, metavar="PATTERN", help="Only modules whose path ends so, as in q_proj."
)
@click.option("--dtype", type=DTYPE, metavar="DTYPE", help="float32 (the default), float16 or bfloat16.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For the decomposition.")
@click.option("--no-verify", is_flag=True, help="Do not merge the result back and compare.")
@making_options
@json_option
def extract(
    finetuned: str,
    base: str,
    target: Target,
    connected: Connected,
    no_verify: bool,
    as_json: bool,
    **said: Any,
) -> None:
    """Extract a LoRA from a full fine-tune and its base.

    What training changed is taken apart tensor by tensor (SVD) and kept up to a rank or an energy; norms, biases and
    resized embeddings come along whole. What is lost is told, and the result is merged back and compared with the
    fine-tune.
    """
    from adaptry.compute.extracting.extraction import draft
    from adaptry.compute.extracting.plan import plan
    from adaptry.compute.extracting.recipe import ExtractRecipe

    require((said["rank"] is None) != (said["energy"] is None), "say either --rank N or --energy SHARE")
    require(target.place is not None, "say where the result goes: -o NAME, or -o ./DIR for a folder")
    words = {key: value for key, value in said.items() if value is not None}
    recipe = made(ExtractRecipe, **words)
    with progress() as told:
        base_checkpoint = _opened(connected, base, told)
        decided = plan(recipe, base_checkpoint, _opened(connected, finetuned, told), told)
    drafted = draft(decided, _name(connected, base))
    there = landed(drafted, target, connected)
    result = None if no_verify else _rejoined(decided, there, connected)
    if as_json:
        say_json({**json_of(drafted, there), "merged_back": _json(result)})
        return
    say_landed(drafted, there, False)
    if result is not None:
        _tell(result)


def _opened(connected: Connected, name: str, told: Progress) -> Checkpoint:
    from adaptry.bases.hf_folder import open_checkpoint
    from adaptry.operations.base_registry import open_base

    return open_checkpoint(name) if is_folder(name) else open_base(connected(), name, progress=told)


def _name(connected: Connected, base: str) -> str | None:
    """What loaders should look for: the base's folder, or its first name in the registry."""
    return base if is_folder(base) else next(iter(connected().base(base).names), None)


def _rejoined(decided: ExtractPlan, there: Landed, connected: Connected) -> Verification | str:
    from adaptry.adapters.adapter import open_dir
    from adaptry.compute.extracting.verify_roundtrip import rejoined

    with progress() as told:
        adapter = (
            open_dir(there.folder) if there.folder else parent_named(connected, there.place, told).adapter
        )
        return rejoined(decided, adapter, there.place, told)


def _json(result: Verification | str | None) -> object:
    if result is None or isinstance(result, str):
        return {"refused": result} if result else None
    tensors = [
        {"tensor": each.tensor, "state": each.state, "relative_error": each.of_change}
        for each in result.tensors
    ]
    return {"relative_error": result.error, "tensors": tensors}


def _tell(result: Verification | str) -> None:
    """How near base plus adapter comes to the fine-tune: the error is relative to what training changed."""
    if isinstance(result, str):
        tell(f"not merged back to compare: {result}")
        return
    tell(f"merged back, it is {number(result.error)} of the change away from the fine-tune")
    errors = [(error, each.tensor) for each in result.tensors if (error := each.of_change)]
    for error, tensor in sorted(errors, reverse=True)[:_WORST]:
        tell(f"  {number(error)}  {tensor}")
    for each in result.refuting:
        if each.state in ("missing", "extra", "shape"):
            tell(f"  {each.tensor} is {each.state} when merged back")
