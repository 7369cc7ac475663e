"""Compares what PEFT does with an adapter on its base to our findings and our merge."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.adapters.inspection.inspector import Inspector
from adaptry.adapters.methods import METHODS
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.checks.weights import UNTRAINED, check_weights
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import AdaptryError, InvalidWeights, Unsupported

from .families import Family
from .mutations import PREFIX

FOREIGN = ("new_head", "saved_module_dropped")
"""Findings that say that the file has modules that the base lacks."""
State = dict[str, torch.Tensor]


@dataclass
class ByPeft:
    """PEFT's answer. `error`: why it raised an error, with `is_served` if only the merge failed; `state`: the
    merged model; `unexpected` and `missing`: names that it left out, and names that it filled with its own
    values; `is_random`: another run gives different values; `is_shuffled`: the same tensors with the prefix
    before every name give different values.
    """

    error: str = ""
    is_served: bool = False
    state: State | None = None
    unexpected: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    is_random: bool = False
    changes_nothing: bool = False
    is_shuffled: bool = False

    @property
    def takes_all(self) -> bool:
        """Whether PEFT applies the whole file, and this changes the model."""
        if self.changes_nothing or self.is_shuffled:
            return False
        return not self.error and not self.unexpected and not self.missing and not self.is_random


@dataclass
class ByUs:
    """Our answer. `findings`: codes and reasons of the blocking ones; `refusal`: why it is not merged."""

    blocked: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    refusal: str = ""
    is_unsupported: bool = False
    folder: Path | None = None


def write(folder: Path, tensors: State, config: dict[str, Any]) -> Path:
    """(`Any`: JSON.)"""
    folder.mkdir(parents=True)
    save_file(
        {name: value.contiguous().clone() for name, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def ask_peft(family: Family, base: Path, adapter: Path) -> ByPeft:
    answers = [_merged_by_peft(family, base, adapter, seed) for seed in (5, 6)]
    first, second = answers
    if first.error or first.state is None or second.state is None:
        return first
    first.is_random = any(not _near(first.state[name], second.state[name]) for name in first.state)
    first.is_shuffled = _is_shuffled(family, base, adapter, first.state)
    before = family.load(base).state_dict()
    first.changes_nothing = all(
        torch.equal(value, first.state[name]) for name, value in before.items() if name in first.state
    )
    return first


def _is_shuffled(family: Family, base: Path, adapter: Path, merged: State) -> bool:
    tensors = load_file(adapter / "adapter_model.safetensors")
    names = {
        name: name if name.startswith(PREFIX) or ".lora_" not in name else f"{PREFIX}{name}"
        for name in tensors
    }
    if all(map(str.__eq__, names, names.values())):
        return False
    config = json.loads((adapter / "adapter_config.json").read_text())
    prefixed = {names[name]: value for name, value in tensors.items()}
    answer = _merged_by_peft(family, base, write(adapter.with_suffix(".prefixed"), prefixed, config), 5)
    return answer.state is not None and bool(differing(answer.state, merged))


def _merged_by_peft(family: Family, base: Path, adapter: Path, seed: int) -> ByPeft:
    with warnings.catch_warnings(action="ignore"):
        torch.manual_seed(seed)
        model = family.load(base)
        own = getattr(model, "config", None)
        if hasattr(own, "use_cache"):
            own.use_cache = False  # X-LoRA asks users to set this
        try:
            live = peft.PeftModel.from_pretrained(model, adapter)
            tensors = load_file(adapter / "adapter_model.safetensors")
            loaded = peft.set_peft_model_state_dict(live, tensors)
            prefix = live.base_model.prefix if hasattr(live.base_model, "prefix") else "\0"
            missing = tuple(name for name in loaded.missing_keys if prefix in name)
            is_listed = bool(getattr(live.peft_config["default"], "modules_to_save", None))
        except Exception as error:  # noqa: BLE001  (whatever PEFT raises is its answer)
            return ByPeft(error=f"{type(error).__name__}: {error}")
        try:
            merged = live.merge_and_unload()
        except Exception as error:  # noqa: BLE001
            return ByPeft(error=f"{type(error).__name__}: {error}", is_served=True)
        state = {name: value.detach().clone() for name, value in merged.state_dict().items()}
        unexpected = tuple(
            name for name in loaded.unexpected_keys if not is_harmless(name, tensors, is_listed)
        )
        return ByPeft(state=state, unexpected=unexpected, missing=missing)


def is_harmless(name: str, tensors: State, is_listed: bool) -> bool:
    """Whether the name is a buffer, or the copy that PEFT itself writes of a module that it saves whole, with
    its biases.
    """
    own = name.replace(".modules_to_save.", ".")
    return name.endswith("inv_freq") or (own != name and own in tensors and is_listed)


def ask_us(base: Path, adapter: Path, target: Path, inspector: Inspector | None = None) -> ByUs:
    """Our answer. `inspector` avoids starting a process to inspect the weights."""
    checkpoint = open_checkpoint(base)
    try:
        opened = open_dir(adapter)
        record = fingerprint(checkpoint)
        findings = [*check(opened, record).findings, *check_weights(opened, inspector, base=record)]
    except AdaptryError as error:
        return ByUs(blocked=(f"{type(error).__name__}: {error}",), refusal=str(error))
    blocked = tuple(f"{one.code}: {one.reason}" for one in findings if one.severity == "blocks")
    told = tuple(f"{one.code}: {one.reason}" for one in findings if one.severity != "blocks")
    recipe = MergeRecipe(
        base=str(base), inputs=(RecipeInput(source=str(adapter), weight=1.0),), resize_vocab=True
    )
    try:
        merge(recipe, checkpoint, [MergeSource(WeightedAdapter(opened, 1.0, "it"))], target)
    except AdaptryError as error:
        method = METHODS.get(opened.spec.method)
        # No check of headers can detect problems that depend on the base's values.
        unsupported = isinstance(error, Unsupported | InvalidWeights) or method is None
        return ByUs(blocked, told, str(error), unsupported)
    return ByUs(blocked, told, folder=target)


def load_merged(family: Family, folder: Path) -> State:
    with warnings.catch_warnings(action="ignore"):
        state = {name: value.clone() for name, value in family.load(folder).state_dict().items()}
    shutil.rmtree(folder)
    return state


def differing(ours: State, theirs: State) -> list[str]:
    """Names whose values are not nearly equal."""
    return [name for name in sorted(ours.keys() & theirs.keys()) if not _near(ours[name], theirs[name])]


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4 * _size(other), equal_nan=True)


def _size(values: torch.Tensor) -> float:
    largest = float(values.float().abs().max()) if values.numel() else 1.0
    return largest if math.isfinite(largest) and largest > 0 else 1.0


def verdict(family: Family, theirs: ByPeft, ours: ByUs) -> str | None:
    """The error in our answer, given PEFT's; None if it is right."""
    if ours.blocked:
        if ours.folder is not None:
            return "it is blocked, and merged all the same"
        is_odd = says_the_value_is_odd(ours)
        return f"a false alarm: {ours.blocked[0]}" if theirs.takes_all and not is_odd else None
    said = " ".join(ours.told)
    if "method_retired" in said or ("vocabulary_resized" in said and "size mismatch" in theirs.error):
        return None  # reported; only an older PEFT, or a base of that size, could confirm it
    if theirs.error:
        return None if _is_no_merge(theirs, ours) else f"it is fine, and PEFT raises {theirs.error[:300]}"
    is_told_idle = any(code in said for code in UNTRAINED)
    if ours.refusal:
        is_foreign = any(code in said for code in FOREIGN) and bool(theirs.unexpected)
        is_right = ours.is_unsupported or is_foreign or (theirs.changes_nothing and is_told_idle)
        return None if is_right else f"it is fine, and not merged: {ours.refusal}"
    if theirs.unexpected:
        return f"it is fine, and PEFT drops {', '.join(theirs.unexpected[:3])}"
    if theirs.is_shuffled:
        return "it is fine, and PEFT takes tensors for those of other modules"
    if theirs.is_random:
        return f"it is fine, and PEFT fills in {', '.join(theirs.missing[:3])}"
    if theirs.changes_nothing:
        return None if is_told_idle else "it is fine, and PEFT changes nothing"
    assert ours.folder is not None and theirs.state is not None
    other = differing(load_merged(family, ours.folder), theirs.state)
    if "saved_copy_unused" in said:
        other = [name for name in other if not name.endswith("shared.weight")]
    return f"it is fine, and merged to other weights: {', '.join(other[:3])}" if other else None


def says_the_value_is_odd(ours: ByUs) -> bool:
    """Whether it is blocked for a value of another type, or null, which PEFT may happen not to look at, or
    for NaN and infinite values.
    """
    return "adapter_config.json" in ours.blocked[0] or ours.blocked[0].startswith(
        ("config_refused", "weights_")
    )


def _is_no_merge(theirs: ByPeft, ours: ByUs) -> bool:
    """Whether PEFT serves the adapter but does not merge it, as we report too."""
    is_told = "merg" in theirs.error or "not support" in theirs.error
    # Its merge may fail on a module without tensors, which does nothing: ours leaves that weight alone.
    is_idle = any(told.startswith("layers_uncovered") for told in ours.told)
    return theirs.is_served and (ours.is_unsupported or is_told or is_idle)
