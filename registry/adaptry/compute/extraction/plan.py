"""The plan of an extraction: which weights changed, how each is represented, and what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.patterns import check_suffixes, first_match
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.compute.extraction.recipe import ExtractRecipe
from adaptry.compute.extraction.target_choice import TargetChoice, TargetChooser, siblings
from adaptry.compute.extraction.weight_pairs import Facts, WeightPair, WeightPairs, pair_weights
from adaptry.compute.merge_verification.configs import config_differences
from adaptry.compute.torch_requirement import require_torch
from adaptry.core.display import format_count
from adaptry.core.errors import CheckFailed, Invalid, InvalidConfig
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class ExtractPlan:
    """`lora` are the matrices, `whole` the weights that are written completely (for a module in
    modules_to_save all its weights, changed or not), `left_out` changes that an adapter cannot represent, and
    `modules` every module of the model by path.
    """

    recipe: ExtractRecipe
    base: HfCheckpoint
    tuned: HfCheckpoint
    base_record: BaseRecord
    tuned_record: BaseRecord
    lora: tuple[TargetChoice, ...]
    whole: tuple[TargetChoice, ...]
    left_out: tuple[TargetChoice, ...]
    modules: frozenset[str]
    notes: tuple[str, ...]


def plan_extraction(
    recipe: ExtractRecipe, base: HfCheckpoint, tuned: HfCheckpoint, progress: Progress = no_progress
) -> ExtractPlan:
    """Plans the extraction of a LoRA from `tuned`. Reads both files' bytes up to their differences.

    Raises `CheckFailed` (nothing changed, nothing that a LoRA can represent, another architecture),
    `Unsupported` (quantised weights, unknown names), `Invalid` (a pattern that matches nothing),
    `MissingDependency` (no torch).
    """
    require_torch("extracting computes with torch")
    records = fingerprint(base), fingerprint(tuned)
    found = pair_weights(base, records[0].facts, tuned, records[1].facts)
    changed = _changed(found, base, tuned, progress)
    if not changed:
        raise CheckFailed(
            f"{tuned.folder} has the same weights as {base.folder}: there is nothing to extract"
        )
    selected = _matching(changed, recipe.modules)
    chooser = TargetChooser({weight.name: weight.shape for weight in found.weights}, tuned.config)
    choices = [chooser.choose(weight) for weight in selected]
    lora = [each for each in choices if each.kind == "lora"]
    if not lora:
        raise CheckFailed(
            f"none of the {len(selected)} changed weights is a matrix with an unchanged shape (first:"
            f" {selected[0].name}), so a LoRA cannot represent any of them; is"
            f" {base.folder} the base that it was trained from?"
        )
    whole = _whole(choices, found.weights, chooser)
    left_out = [each for each in choices if each.kind == "nothing"]
    notes = [
        *_notes(found, changed, selected, whole, left_out),
        *_of_config(records[0].facts, records[1].facts, [each for each in whole if each.kind == "embedding"]),
    ]
    paths = frozenset(weight.path for weight in found.weights)
    return ExtractPlan(
        recipe, base, tuned, *records, tuple(lora), tuple(whole), tuple(left_out), paths, tuple(notes)
    )


def _changed(
    found: WeightPairs, base: HfCheckpoint, tuned: HfCheckpoint, progress: Progress
) -> list[WeightPair]:
    from adaptry.compute.extraction.diff_scan import CheckpointPair, size_of

    total = sum(size_of(weight) for weight in found.weights)
    done = 0
    changed = []
    with CheckpointPair(base, tuned) as sides:
        for weight in found.weights:
            if sides.is_changed(weight):
                changed.append(weight)
            done += size_of(weight)
            progress("looking for changes", done, total)
    return changed


def _matching(changed: Sequence[WeightPair], patterns: Sequence[str]) -> list[WeightPair]:
    """Weights whose module's path ends with a match of one of the patterns, as in PEFT."""
    if not patterns:
        return list(changed)
    names = [name for weight in changed for name in (weight.path, weight.name)]
    try:
        check_suffixes(patterns, names)
    except InvalidConfig as error:
        raise Invalid(error.message.removeprefix("adapter_config.json: ")) from None
    matched = first_match(dict.fromkeys(patterns, True), names)
    wanted = [weight for weight in changed if weight.path in matched or weight.name in matched]
    if not wanted:
        raise Invalid(
            f"no changed weight matches {' or '.join(map(repr, patterns))} (an example of a changed weight:"
            f" {changed[0].path})"
        )
    return wanted


def _whole(
    choices: Sequence[TargetChoice], weights: Sequence[WeightPair], chooser: TargetChooser
) -> list[TargetChoice]:
    """The weights that are written completely: a saved module with all its weights, each only once."""
    saved = {each.weight.path for each in choices if each.kind == "module"}
    saved |= {weight.path for weight in weights if chooser.is_always_saved(weight)}
    modules = [
        TargetChoice(weight, "module")
        for path, own in siblings(weights).items()
        if path in saved
        for weight in own
    ]
    others = [
        each for each in choices if each.kind in ("bias", "embedding") and each.weight.path not in saved
    ]
    return [*modules, *others]


def _notes(
    found: WeightPairs,
    changed: Sequence[WeightPair],
    wanted: Sequence[WeightPair],
    whole: Sequence[TargetChoice],
    left_out: Sequence[TargetChoice],
) -> Iterable[str]:
    same = len(found.weights) - len(changed)
    yield f"{len(changed)} of {len(found.weights)} weights changed" + (
        f", {same} equal the base's" if same else ""
    )
    if left := len(changed) - len(wanted):
        yield f"{left} of them are left out, because no pattern of --modules matches them"
    for kind, where in (("module", "modules_to_save"), ("bias", "biases"), ("embedding", "saved embeddings")):
        own = [each.weight.name for each in whole if each.kind == kind]
        if own:
            yield f"written completely, in {where}: {format_count(len(own), 'weight')} (first: {own[0]})"
    for each in left_out:
        yield f"{each.weight.name} changed and is left out: {each.reason}"
    if found.missing:
        missing = format_count(len(found.missing), "weight")
        yield f"{missing} of the base not in the fine-tune (first: {found.missing[0]})"


def _of_config(base: Facts, tuned: Facts, embeddings: Sequence[TargetChoice]) -> Iterable[str]:
    """Differences between the configs, which an adapter cannot represent (except a vocabulary with
    embeddings).
    """
    if embeddings and base.get("vocab_size") != tuned.get("vocab_size"):
        yield (
            f"the vocabulary has {tuned.get('vocab_size')} rows, but the base's {base.get('vocab_size')}: "
            "use `adaptry merge --resize-vocab`"
        )
        tuned = {**tuned, "vocab_size": base.get("vocab_size")}
    for line in config_differences(base, tuned, "the base"):
        yield f"{line}: an adapter cannot represent this"
