"""Runs one case of the conformance corpus: describes, checks and merges it, and compares the merge with
PEFT's.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tests.methods.corpus import Case, Made

from adaptry import open_dir
from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods import METHODS
from adaptry.adapters.spec import Spec
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.compute.tensors.torch_kernel import single_torch_threads
from adaptry.core.errors import AdaptryError

Tensors = dict[str, torch.Tensor]
ROUNDING = {"fp32": 2.0**-20, "bf16": 2.0**-7}
"""The largest relative difference of a method that is equal within rounding, or bit-equal only with the same
libraries and threads: one unit in the last place in bfloat16, and eight in float32, because some sums have
hundreds of terms.
"""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one case. `difference`: the largest between our merge and PEFT's, divided by the largest
    element of the same tensor; None if there is no merge. `refused`: why we do not merge it. `by_peft`: why
    PEFT itself does not create or merge it. `wrong`: errors.
    """

    case: Case
    is_described: bool = False
    is_checked: bool = False
    difference: float | None = None
    refused: str = ""
    by_peft: str = ""
    wrong: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = "; ".join(self.wrong) or self.by_peft or self.refused or f"difference {self.difference:g}"
        return f"{'wrong' if self.wrong else 'ok':<9} {self.case}: {' '.join(said.split())}"


def measure(made: Made, scratch: Path) -> Outcome:
    """Raises `NotByPeft` if PEFT has no merge to compare with."""
    case, adapter, base = made.case, open_dir(made.adapter), open_checkpoint(made.base)
    is_promised = _is_promised(adapter)
    theirs = _unwrapped(_merged_by_peft(made, scratch)) if is_promised else {}
    wrong = _misread(adapter.spec)
    is_described = not wrong
    report = check(adapter, fingerprint(base))
    if report.is_blocked:
        wrong.append(f"blocked: {report.sentence()}")
    target = scratch / f"{case}-ours"
    shutil.rmtree(target, ignore_errors=True)
    difference, refused = None, ""
    try:
        recipe = MergeRecipe(base="base", inputs=(RecipeInput(source=str(case)),))
        merge(recipe, base, [MergeSource(WeightedAdapter(adapter, 1.0, case.method))], target)
    except AdaptryError as error:
        refused = error.message
        if is_promised and "or refused if" not in METHODS[case.method].tolerance:
            wrong.append(f"not merged: {refused}")
    except Exception as error:  # noqa: BLE001
        # A bug in Adaptry; continue with the other cases.
        wrong.append(f"{type(error).__name__}: {error}")
    else:
        ours = _tensors(target)
        difference = _difference(ours, theirs)
        wrong += _unlike(case, ours, theirs, difference)
        if _difference(ours, _tensors(made.base)) == 0:
            wrong.append("the merge changed nothing")
    return Outcome(case, is_described, not report.is_blocked, difference, refused, wrong=tuple(wrong))


def _merged_by_peft(made: Made, scratch: Path) -> Tensors:
    """PEFT's merge; on one thread, like ours, if a bit-equal merge is promised only for equal numbers of
    threads.
    """
    promise = METHODS[made.case.method].tolerance
    if "number of threads" not in promise or "within rounding" in promise:
        return _tensors(made.merged_by_peft(scratch / f"{made.case}-peft"))
    with single_torch_threads():
        return _tensors(made.merged_by_peft(scratch / f"{made.case}-peft-on-one-thread"))


def _is_promised(adapter: Adapter) -> bool:
    """Whether the table promises that it can be merged."""
    method = METHODS.get(adapter.spec.method)
    return method is None or (method.is_mergeable and method.unmergeable_reason(adapter.config) is None)


def _misread(spec: Spec) -> list[str]:
    """The parts of a file that were not recognised."""
    wrong = []
    if "not_described" in spec.traits:
        wrong.append("not described")
    if spec.unclaimed:
        wrong.append(f"unclaimed: {', '.join(spec.unclaimed[:3])}")
    if others := [module.path for module in spec.modules if module.kind == "other"]:
        wrong.append(f"not read: {', '.join(others[:3])}")
    return wrong


def _unlike(case: Case, ours: Tensors, theirs: Tensors, difference: float) -> list[str]:
    """How our merge differs from PEFT's beyond the documented tolerance."""
    wrong = []
    if ours.keys() != theirs.keys():
        wrong.append(f"other tensors: {sorted(ours.keys() ^ theirs.keys())[:3]}")
    promise = METHODS[case.method].tolerance
    if difference > (ROUNDING[case.dtype] if "within rounding" in promise else 0.0):
        wrong.append(f"differs by {difference:g}")
    return wrong


def _tensors(folder: Path) -> Tensors:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def _unwrapped(tensors: Tensors) -> Tensors:
    """LN tuning's merge in PEFT leaves saved modules in their wrappers: the trained module is compared."""
    return {
        name.replace(".modules_to_save.default.", "."): tensor
        for name, tensor in tensors.items()
        if ".original_module." not in name
    }


def _difference(ours: Tensors, theirs: Tensors) -> float:
    """The largest difference between elements of tensors with the same name, divided by the tensor's largest
    element in `theirs`; infinite if a dtype or shape differs.
    """
    largest = 0.0
    for name in ours.keys() & theirs.keys():
        mine, other = ours[name], theirs[name]
        if mine.dtype != other.dtype or mine.shape != other.shape:
            return float("inf")
        if not torch.equal(mine, other):
            difference = (mine.double() - other.double()).abs().max() / other.double().abs().max()
            largest = max(largest, float(difference.nan_to_num(nan=float("inf"))))
    return largest
