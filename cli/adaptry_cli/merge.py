"""`adaptry merge`: adapters baked into their base, as a checkpoint that any engine loads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry.errors import Invalid
from adaptry.refs import ByDigest, is_folder
from adaptry.registry import Registry
from adaptry_cli.arguments import made, means_folder, parse_parameters
from adaptry_cli.cautioning import tell_caution
from adaptry_cli.connection import connect_to
from adaptry_cli.out import counted, json_option, progress, say, say_json, size, tell
from adaptry_cli.tables import say_table

if TYPE_CHECKING:
    from adaptry.merging.merge import Source
    from adaptry.merging.planning import Plan
    from adaptry.merging.recipe import Copy
    from adaptry.merging.record import MergeRecord
    from adaptry.progress import Progress


@click.command()
@click.argument("inputs", metavar="REF|DIR[=WEIGHT]...", nargs=-1, required=True)
@click.option("--base", required=True, metavar="NAME|DIR|ID", help="The base to merge into.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option(
    "--dtype", metavar="DTYPE", help="float32, float16 or bfloat16; else each weight keeps its own."
)
@click.option("--max-shard-size", metavar="SIZE", help="As in 5GB; else the base's files stay as they are.")
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
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@click.option("--registry", "where", metavar="URL|DIR", help="The registry to use.")
@json_option
def merge(
    inputs: tuple[str, ...],
    base: str,
    output: Path,
    dtype: str | None,
    max_shard_size: str | None,
    device: str,
    kernel: str,
    no_hash: bool,
    other_base: bool,
    resize_vocab: bool,
    base_copy: Copy | None,
    method: str,
    parameters: tuple[str, ...],
    seed: int,
    dry_run: bool,
    where: str | None,
    as_json: bool,
) -> None:
    """Merge adapters into their base's weights.

    W + weight · scale · B·A, computed in float32 and rounded once, as PEFT does. Everything that does not fit fails
    before a weight is read; the output folder appears whole or not at all. `adaptry_merge.json` in it says what
    went in.
    """
    from adaptry.bases import open_base
    from adaptry.checkpoint import open_checkpoint
    from adaptry.copies import open_original
    from adaptry.merging.merge import How, decide
    from adaptry.merging.merge import merge as carry_out
    from adaptry.merging.recipe import Input, Recipe, parse_dtype, parse_size
    from adaptry.quantised import fold
    from adaptry.refs import split_weight

    named = [split_weight(text) for text in inputs]
    if not any(weight for _, weight in named):
        raise Invalid("all weights are 0, so the result would be the base")
    recipe = made(
        Recipe,
        base=base,
        inputs=tuple(Input(source=source, weight=weight) for source, weight in named),
        dtype=parse_dtype(dtype) if dtype else None,
        max_shard_size=parse_size(max_shard_size) if max_shard_size else None,
        other_base=other_base,
        resize_vocab=resize_vocab,
        base_copy=base_copy,
        method=method,
        parameters=parse_parameters(parameters),
        seed=seed,
    )
    connected = functools.cache(lambda: connect_to(where))  # folders need none
    with progress() as told:
        checkpoint = open_checkpoint(base) if is_folder(base) else open_base(connected(), base, progress=told)
        found = ""
        if base_copy == "original" and fold(checkpoint).packed:
            checkpoint, found = open_original(connected(), checkpoint, told)
        sources = [_opened(connected, source, weight, told) for source, weight in named]
        if dry_run:
            plan = decide(recipe, checkpoint, sources, found)
        else:
            how = How(device, kernel, hashing=not no_hash)
            record = carry_out(recipe, checkpoint, sources, output, how, told, found)
    if dry_run:
        _say_plan(plan, as_json)
        return
    _say_record(record, output, as_json)


def _opened(connected: Callable[[], Registry], text: str, weight: float, told: Progress) -> Source:
    """An input by folder or ref, its weights at hand."""
    from adaptry.adapter.view import open_dir
    from adaptry.merging.fitting import Weighted
    from adaptry.merging.merge import Source
    from adaptry.refs import Ref
    from adaptry.transfer import open_revision

    if means_folder(text):
        return Source(Weighted(open_dir(text), weight, text))
    registry = connected()
    version = registry.version(Ref.parse(text))
    tell_caution(version)
    exact = Ref(version.name, ByDigest(version.digest.hex))
    adapter = open_revision(registry, exact, progress=told)
    base = (
        registry.base_record(version.base_id)
        if version.base_id and version.base_status == "verified"
        else None
    )
    return Source(Weighted(adapter, weight, f"{version.name}@{version.number}", base), version.digest)


def _say_record(record: MergeRecord, output: Path, as_json: bool) -> None:
    """The answer: the folder; the story: notes, and how many weights changed."""
    from adaptry.merging.record import NAME

    for note in record.notes:
        tell(f"note: {note}")
    tell(f"{counted(record.baked, 'weight')} changed; what went in is in {output / NAME}")
    if as_json:
        say_json({"output": str(output), **record.model_dump(mode="json")})
    else:
        say(str(output))


def _say_plan(plan: Plan, as_json: bool) -> None:
    """What a merge would write: files, sizes, how many weights change."""
    files = [{"path": file.name, "size": file.size} for file in plan.files]
    if as_json:
        say_json({"files": files, "size": plan.size, "baked": plan.baked, "notes": list(plan.notes)})
        return
    say_table(("file", "size"), [(file.name, size(file.size)) for file in plan.files], right=("size",))
    for line in (f"{counted(plan.baked, 'weight')} would change; {size(plan.size)} in all", *plan.notes):
        tell(line)
