"""Every method against its own library: described, checked, merged, and the merge compared with PEFT's, bit for bit.

    python bench/conformance.py [--cache .bench/corpus] [--methods loha,ia3] [--write docs/methods.md]

The corpus (adapters of every method, on every family of models that supports it, in two precisions) is made by PEFT
in `--cache` and used again. Exit code 1 where a result is not what the method's table entry promises.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the corpus is the tests'

import torch
import transformers
from methods_page import Tally, page
from safetensors.torch import load_file
from tests.methods.corpus import VARIANTS, Case, Made, cases, make

from adaptry import open_dir
from adaptry.adapter.spec import Spec
from adaptry.adapter.view import Adapter
from adaptry.checkpoint import open_checkpoint
from adaptry.checks import check
from adaptry.errors import AdaptryError
from adaptry.fingerprinting import fingerprint
from adaptry.merging.fitting import Weighted
from adaptry.merging.merge import Source, merge
from adaptry.merging.recipe import Input, Recipe
from adaptry.methods import METHODS

Tensors = dict[str, torch.Tensor]
NEAR = {"fp32": 1e-4, "bf16": 2e-2}
"""The largest difference of a method that is not promised to be bit-equal: its weights here are of size 0.1."""


@dataclass(frozen=True)
class Outcome:
    """What came of one case. `difference`: the largest between our merge and PEFT's, None where it was refused;
    `wrong`: what is not as it should be."""

    case: Case
    is_described: bool = False
    is_checked: bool = False
    difference: float | None = None
    refused: str = ""
    wrong: tuple[str, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=Path(".bench/corpus"))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(VARIANTS))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table of methods there")
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    outcomes = list(_run(list(cases(asked.methods)), asked.cache))
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    print(f"{len(outcomes)} cases, {len(outcomes) - len(wrong)} as promised")
    if asked.write:
        asked.write.write_text(page(tallies(outcomes)))
    sys.exit(bool(wrong))


def _run(chosen: Sequence[Case], cache: Path) -> Iterator[Outcome]:
    for case in chosen:
        try:
            made = make(case, cache)
        except ImportError as error:  # some methods want a package more to be trained
            print(f"left out  {case}: {error}")
            continue
        outcome = measure(made, cache / "merged")
        said = "; ".join(outcome.wrong) or outcome.refused or f"difference {outcome.difference:g}"
        print(f"{'wrong' if outcome.wrong else 'ok':<9} {case}: {said}", flush=True)
        yield outcome


def measure(made: Made, scratch: Path) -> Outcome:
    """One case, all the way."""
    case, adapter, base = made.case, open_dir(made.adapter), open_checkpoint(made.base)
    wrong = _misread(adapter.spec)
    is_described = not wrong
    report = check(adapter, fingerprint(base))
    if report.is_blocked:
        wrong.append(f"blocked: {report.sentence()}")
    target = scratch / f"{case}-ours"
    shutil.rmtree(target, ignore_errors=True)
    recipe = Recipe(base="base", inputs=(Input(source=str(case)),))
    try:
        merge(recipe, base, [Source(Weighted(adapter, 1.0, case.method))], target)
    except AdaptryError as error:
        if _should_merge(adapter):
            wrong.append(f"not merged: {error.message}")
        return Outcome(case, is_described, not report.is_blocked, refused=error.message, wrong=tuple(wrong))
    except Exception as error:  # noqa: BLE001 -- a bug of ours: the other cases are worth knowing all the same
        wrong.append(f"{type(error).__name__}: {error}")
        return Outcome(case, is_described, not report.is_blocked, wrong=tuple(wrong))
    ours, theirs = _tensors(target), _unwrapped(_tensors(made.merged_by_peft(scratch / f"{case}-peft")))
    if ours.keys() != theirs.keys():
        wrong.append(f"other tensors: {sorted(ours.keys() ^ theirs.keys())[:3]}")
    difference = _difference(ours, theirs)
    is_equal = METHODS[case.method].tolerance.startswith("bit-equal")
    if difference > (0 if is_equal else NEAR[case.dtype]):
        wrong.append(f"differs by {difference:g}")
    if _difference(ours, _tensors(made.base)) == 0:
        wrong.append("the merge changed nothing")
    return Outcome(case, is_described, not report.is_blocked, difference, wrong=tuple(wrong))


def _should_merge(adapter: Adapter) -> bool:
    """Whether the table promises a merge of it."""
    method = METHODS.get(adapter.spec.method)
    return method is None or (method.is_baked and method.refuses(adapter.config) is None)


def _misread(spec: Spec) -> list[str]:
    """What of a file was not understood."""
    wrong = []
    if "not_described" in spec.traits:
        wrong.append("not described")
    if spec.unclaimed:
        wrong.append(f"unclaimed: {', '.join(spec.unclaimed[:3])}")
    if others := [module.path for module in spec.modules if module.kind == "other"]:
        wrong.append(f"not read: {', '.join(others[:3])}")
    return wrong


def _tensors(folder: Path) -> Tensors:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def _unwrapped(tensors: Tensors) -> Tensors:
    """LN tuning's merge in PEFT leaves saved modules in their wrappers: the trained one is what counts."""
    return {
        name.replace(".modules_to_save.default.", "."): tensor
        for name, tensor in tensors.items()
        if ".original_module." not in name
    }


def _difference(ours: Tensors, theirs: Tensors) -> float:
    """The largest between elements of one name; infinite where a dtype or shape differs."""
    largest = 0.0
    for name in ours.keys() & theirs.keys():
        mine, other = ours[name], theirs[name]
        if mine.dtype != other.dtype or mine.shape != other.shape:
            return float("inf")
        if not torch.equal(mine, other):
            largest = max(largest, float((mine.double() - other.double()).abs().max()))
    return largest


def tallies(outcomes: Sequence[Outcome]) -> dict[str, Tally]:
    """By method, what the page says of its cases."""
    found: dict[str, Tally] = {}
    for name in dict.fromkeys(outcome.case.method for outcome in outcomes):
        ours = [outcome for outcome in outcomes if outcome.case.method == name]
        found[name] = Tally(
            cases=len(ours),
            described=sum(outcome.is_described for outcome in ours),
            checked=sum(outcome.is_checked for outcome in ours),
            merged=sum(outcome.difference is not None for outcome in ours),
            equal=sum(outcome.difference == 0 for outcome in ours),
            difference=max(
                (outcome.difference for outcome in ours if outcome.difference is not None), default=None
            ),
        )
    return found


if __name__ == "__main__":
    main()
