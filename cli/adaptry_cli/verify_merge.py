"""`adaptry verify-merge`: whether a checkpoint is a base plus adapters, as it claims."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from adaptry.core.errors import Invalid
from adaptry.core.refs import Ref, is_folder
from adaptry_cli.arguments import BASE, INPUT, require_usage, required_folder, validate_options
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener, lazy_registry_option
from adaptry_cli.derive_output import open_named_parent
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import (
    format_count,
    format_number,
    json_option,
    print_err,
    print_json,
    print_out,
    progress,
)
from adaptry_cli.tables import print_table

if TYPE_CHECKING:
    from adaptry.bases.hf_folder import HfCheckpoint
    from adaptry.compute.merge_verification.verdict import TensorVerdict, Verification
    from adaptry.compute.merging.merge import MergeSource
    from adaptry.compute.merging.plan import MergePlan
    from adaptry.compute.merging.record import MergeRecord
    from adaptry.compute.recipes.merge import MergeRecipe
    from adaptry.core.digest import Digest
    from adaptry.core.progress import Progress

_SHOWN = 20
_WORDS = {
    "same": "identical",
    "within": "within the tolerance",
    "rounding": "identical except for the order of sums or roundings",
    "differs": "different",
    "missing": "missing",
    "extra": "unexpected",
    "shape": "of another shape or dtype",
}


@command("verify-merge")
@click.argument("checkpoint", metavar="DIR")
@click.option(
    "--base", metavar="NAME|DIR|ID", type=BASE, help="The base. Default: the one in the merge's record."
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="REF|DIR[=WEIGHT]",
    type=INPUT,
    help="An adapter that was merged, and its weight; may be repeated.",
)
@click.option(
    "--tolerance",
    default="ulp=1",
    show_default=True,
    metavar="ulp=N",
    help="How far an element may be off, in units in the last place.",
)
@click.option(
    "--base-copy",
    type=click.Choice(["original", "dequantised"]),
    help="The copy that was merged into, if the base is quantised.",
)
@click.option(
    "--rounding",
    type=click.Choice(["float32", "peft"]),
    default="float32",
    show_default=True,
    help="How the merge was rounded; see `adaptry merge --help`.",
)
@lazy_registry_option
@json_option
@click.pass_context
def verify_merge(
    ctx: click.Context,
    connected: RegistryOpener,
    checkpoint: str,
    base: str | None,
    adapters: tuple[str, ...],
    tolerance: str,
    base_copy: str | None,
    rounding: str,
    as_json: bool,
) -> None:
    """Prove or refute that a checkpoint is a base plus adapters.

    Each tensor is computed as `adaptry merge` computes it, and compared with the checkpoint's. For a tensor
    that differs, the reason is shown: adapter not applied, applied twice, scaled differently. A folder that
    `adaptry merge` wrote records its base and adapters itself. The exit code is 0 if proved, 1 if refuted.
    """
    from adaptry.bases.hf_folder import open_checkpoint
    from adaptry.compute.merge_verification.merge_record import read_merge_record
    from adaptry.compute.merge_verification.verification import verify

    require_usage(
        bool(base) == bool(adapters),
        "--base and --adapter go together; without them, the merge's record is used",
    )
    allowed = _tolerance(tolerance)
    found = open_checkpoint(required_folder(checkpoint))
    with progress() as bars:
        if base is None:
            decided = _recorded(connected, read_merge_record(found.folder), bars)
        else:
            decided = _named(connected, base, adapters, {"base_copy": base_copy, "rounding": rounding}, bars)
        result = verify(decided, found, tolerance=allowed, progress=bars)
    what = f"{decided.checkpoint.folder} plus {' and '.join(_weighted(decided))}"
    if as_json:
        print_json({"proved": result.is_proved, "counts": result.counts(), **result.model_dump(mode="json")})
    else:
        _print_verdict(result, checkpoint, what)
    ctx.exit(0 if result.is_proved else NO)


def _named(
    connected: RegistryOpener,
    base: str,
    adapters: tuple[str, ...],
    how: dict[str, str | None],
    progress: Progress,
) -> MergePlan:
    """The plan of the base and adapters in the options."""
    from adaptry.compute.merging.merge import plan_recipe
    from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
    from adaptry.core.refs import split_weight

    named = [split_weight(text) for text in adapters]
    inputs = tuple(RecipeInput(source=source, weight=weight) for source, weight in named)
    # Options that a merge requires as confirmation are not needed here, since bytes are compared.
    recipe = validate_options(
        MergeRecipe, base=base, inputs=inputs, other_base=True, resize_vocab=True, **how
    )
    checkpoint = _base(connected, base, progress)
    return plan_recipe(recipe, checkpoint, _sources(connected, recipe, checkpoint, progress))


def _recorded(connected: RegistryOpener, record: MergeRecord, progress: Progress) -> MergePlan:
    """The plan of the inputs in the checkpoint's record, if they still exist. Raises `CheckFailed`,
    `NotFound`."""
    from adaptry.compute.merge_verification.merge_record import check_base, check_inputs
    from adaptry.compute.merging.merge import plan_recipe

    recipe = record.recipe
    print_err(
        f"according to its record: {recipe.base} plus {', '.join(entry.source for entry in recipe.inputs)}"
    )
    texts = [
        _exact(entry.source, went.revision) for entry, went in zip(recipe.inputs, record.inputs, strict=True)
    ]
    checkpoint = _base(connected, recipe.base, progress)
    sources = _sources(connected, recipe, checkpoint, progress, texts)
    check_inputs(record, [source.weighted for source in sources])
    plan = plan_recipe(recipe, checkpoint, sources)
    check_base(record, plan)
    return plan


def _base(connected: RegistryOpener, base: str, progress: Progress) -> HfCheckpoint:
    from adaptry.bases.hf_folder import open_checkpoint
    from adaptry.operations.base_registry import open_base

    return open_checkpoint(base) if is_folder(base) else open_base(connected(), base, progress=progress)


def _exact(source: str, revision: Digest | None) -> str:
    """The ref, by digest, of the revision that was merged, wherever its name or alias points now."""
    return source if revision is None else f"{Ref.parse(source).name}@{revision}"


def _sources(
    connected: RegistryOpener,
    recipe: MergeRecipe,
    checkpoint: HfCheckpoint,
    progress: Progress,
    texts: Sequence[str] | None = None,
) -> list[MergeSource]:
    """The recipe's inputs, opened; `texts` are the refs to open instead of those in the recipe."""
    from adaptry.bases.fingerprinting import fingerprint
    from adaptry.compute.merging.merge import MergeSource
    from adaptry.compute.merging.weighted_adapter import WeightedAdapter

    found = []
    base = functools.cache(lambda: fingerprint(checkpoint))
    for entry, text in zip(recipe.inputs, texts or [entry.source for entry in recipe.inputs], strict=True):
        parent = open_named_parent(connected, text, progress, base)
        weighted = WeightedAdapter(parent.adapter, entry.weight, parent.label, parent.base)
        found.append(MergeSource(weighted, parent.revision))
    return found


def _tolerance(text: str) -> int:
    """`ulp=2` → 2. Raises `Invalid`."""
    match = re.fullmatch(r"(?:ulp=)?([0-9]{1,9})", text.strip())
    if match is None:
        raise Invalid(f"not a tolerance: {text[:40]!r} (write ulp=1, or ulp=0 for the same bits)")
    return int(match[1])


def _weighted(plan: MergePlan) -> list[str]:
    return [
        entry.label if entry.weight == 1.0 else f"{format_number(entry.weight)} times {entry.label}"
        for entry in plan.inputs
    ]


def _print_verdict(result: Verification, checkpoint: str, what: str) -> None:
    counts = ", ".join(f"{count} {_WORDS[state]}" for state, count in result.counts().items())
    if result.is_proved:
        print_out(f"proved: {checkpoint} is {what}")
    else:
        print_out(f"refuted: {checkpoint} is not {what}")
    print_err(f"{format_count(len(result.tensors), 'tensor')}: {counts}")
    for line in (*result.config, *(f"note: {note}" for note in result.notes)):
        print_err(line)
    roundings = {verdict.hint for verdict in result.tensors if verdict.state == "rounding" and verdict.hint}
    for hint in sorted(roundings):
        print_err(f"of those that differ by roundings only: {hint}")
    refuting = result.failed
    if refuting:
        _print_refuting(refuting)


def _print_refuting(verdicts: tuple[TensorVerdict, ...]) -> None:
    """Prints the tensors that differ (the first ones if there are many), and their common cause."""
    print_table(
        ("tensor", "verdict", "ulp", "elements", "error", "explanation"),
        [
            (
                verdict.tensor,
                verdict.state,
                "" if not verdict.ulp else str(verdict.ulp),
                f"{100 * verdict.share:.2f} %" if verdict.share else "",
                "" if verdict.error is None else format_number(verdict.error),
                verdict.hint or "",
            )
            for verdict in verdicts[:_SHOWN]
        ],
        right=("ulp", "elements", "error"),
        cut=("tensor", "explanation"),
        drop=("explanation", "elements", "ulp"),
    )
    if len(verdicts) > _SHOWN:
        print_err(f"and {format_count(len(verdicts) - _SHOWN, 'tensor')} more (--json lists all)")
    hints = {verdict.hint for verdict in verdicts}
    if len(verdicts) > 1 and len(hints) == 1 and (hint := hints.pop()):
        print_err(f"all of them: {hint}")
