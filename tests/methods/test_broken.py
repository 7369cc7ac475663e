"""Broken files of every method: each is reported, none raises an unexpected error, and none is merged
silently.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.extras import PREFIX
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint
from adaptry.checks import check
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import AdaptryError

from .corpus import Case, Made, make
from .variants import VARIANTS

Tensors = dict[str, Any]
Break = Callable[[Tensors, dict[str, Any]], None]


def _one_missing(tensors: Tensors, config: dict[str, Any]) -> None:
    del tensors[_last(tensors)]


def _transposed(tensors: Tensors, config: dict[str, Any]) -> None:
    name = _last(tensors)
    turned = tensors[name].T if tensors[name].dim() == 2 else tensors[name].unsqueeze(0)
    tensors[name] = turned.contiguous()


def _renamed(tensors: Tensors, config: dict[str, Any]) -> None:
    name = _last(tensors)
    tensors[f"{name}_x"] = tensors.pop(name)


def _foreign_prefix(tensors: Tensors, config: dict[str, Any]) -> None:
    for name in list(tensors):
        tensors[f"module.{name}"] = tensors.pop(name)


def _one_too_many(tensors: Tensors, config: dict[str, Any]) -> None:
    tensors["base_model.model.model.layers.0.mlp.some_gate.weight"] = torch.ones(2, 2)


def _wrong_rank(tensors: Tensors, config: dict[str, Any]) -> None:
    config["r"] = 2 * config["r"]


def _shared_missing(tensors: Tensors, config: dict[str, Any]) -> None:
    for name in [name for name in tensors if not name.startswith(PREFIX)]:
        del tensors[name]


BREAKS: dict[str, Break] = {
    breaking.__name__.lstrip("_"): breaking
    for breaking in (
        _one_missing,
        _transposed,
        _renamed,
        _foreign_prefix,
        _one_too_many,
        _wrong_rank,
        _shared_missing,
    )
}


def _last(tensors: Tensors) -> str:
    """The tensor to break: the last tensor of a module that is not a vector, or of the whole file if no
    module has one.
    """
    names = sorted(tensors)
    own = [name for name in names if name.startswith(PREFIX)] or names
    return next((name for name in reversed(own) if tensors[name].dim() > 1), own[-1])


def _broken_cases() -> Iterator[Any]:
    for name, method in METHODS.items():
        for variant in VARIANTS.get(name, ())[:1]:
            without = set() if variant.fields.get("r") else {"wrong_rank"}
            if (
                not (method.shared and method.key_patterns) or name == "shadow"
            ):  # no config describes the tensors of its network
                without.add("shared_missing")
            for breaking in sorted(BREAKS.keys() - without):
                case = Case(name, variant, variant.families[0], "fp32")
                yield pytest.param(case, breaking, id=f"{name}-{breaking}")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which each intact adapter is made once."""
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.parametrize(("case", "breaking"), list(_broken_cases()))
def test_a_broken_adapter_gives_a_finding_and_is_not_merged_silently(
    case: Case, breaking: str, corpus: Path, tmp_path: Path
) -> None:
    made = _made(case, corpus)
    whole, base = open_dir(made.adapter), open_checkpoint(made.base)
    known = {found.code for found in check(whole, fingerprint(base)).findings}
    broken = open_dir(_broken(made.adapter, tmp_path / "broken", BREAKS[breaking]))

    new = [found for found in check(broken, fingerprint(base)).findings if found.code not in known]

    assert all(found.reason and found.remedy for found in new)
    if not any(found.severity == "blocks" for found in new):
        merged = _merged(broken, base, tmp_path / "merged")
        assert new or merged is None or _is_same(merged, _merged(whole, base, tmp_path / "whole"))
    if not METHODS[case.method].is_mergeable:
        assert new


def _merged(adapter: Adapter, base: HfCheckpoint, target: Path) -> Tensors | None:
    """The tensors that a merge writes without a note; None if it refuses, or notes what it leaves out."""
    recipe = MergeRecipe(base="base", inputs=(RecipeInput(source="adapter"),))
    try:
        record = merge(recipe, base, [MergeSource(WeightedAdapter(adapter, 1.0, "adapter"))], target)
    except AdaptryError:
        return None
    return None if record.notes else load_file(target / "model.safetensors")


def _is_same(ours: Tensors, theirs: Tensors | None) -> bool:
    return theirs is not None and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _made(case: Case, folder: Path) -> Made:
    try:
        return make(case, folder)
    except ImportError as error:
        pytest.skip(str(error))


def _broken(adapter: Path, target: Path, breaking: Break) -> Path:
    """A broken copy of an adapter."""
    target.mkdir()
    tensors = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    breaking(tensors, config)
    save_file(tensors, target / "adapter_model.safetensors")
    (target / "adapter_config.json").write_text(json.dumps(config))
    return target
