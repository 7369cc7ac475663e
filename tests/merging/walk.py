"""The path of a merge's inputs through the source files, from the command to the plan.

    .venv/bin/python -m tests.merging.walk prints it

The inputs are an adapter and a base, in every form that the code gives them: views, configs, specs, names,
places. A *step* is a function that gets one of them, counted at its first call, so a loop over modules is one
step. Reading a field or property of an input is not a step. A *stay* is a run of steps in one file; a *climb*
is a stay in a file that the walk had left. With few stays, a reader finds the path of an adapter in few
places; with few climbs, these places follow one another.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import adaptry

ROOT = f"{Path(adaptry.__file__).parent}/"
_FIRST_USE = "core/lazy_dataclass.py"
"""Compiles a constructor at its first use, so it is part of the walk only in some orders of the tests."""
INPUTS = frozenset(
    [
        *("MergeRecipe", "RecipeInput", "MergeSource", "WeightedAdapter", "BoundInput", "BoundAdapter"),
        "SidedInput",
        *("Adapter", "AdapterConfig", "Spec", "ModuleSpec", "ExtraWeight"),
        *("HfCheckpoint", "LogicalView", "BaseRecord", "ParameterNames", "ModelNames", "LoadedModel"),
        *("ModuleTargets", "ModuleMap", "TargetTensor", "ExtraTarget", "LoraVariant", "LoadedParts"),
    ]
)


@dataclass(frozen=True)
class Step:
    """A function that gets an input."""

    file: str
    function: str


def steps_of(work: Callable[[], Any]) -> Mapping[Step, int]:
    """The steps of `work` in the order of their first calls, with how often each was called."""
    found: Counter[Step] = Counter()

    def record(frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        if event != "call" or code.co_filename.endswith(_FIRST_USE):
            return
        if not code.co_filename.startswith(ROOT) or code.co_name.startswith("<"):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        handed = [frame.f_locals[name] for name in names if name not in ("self", "cls")]
        if any(_is_input(value) for value in handed):
            found[Step(code.co_filename.removeprefix(ROOT), code.co_qualname)] += 1

    sys.setprofile(record)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def stays_of(steps: Iterable[Step]) -> list[list[Step]]:
    """The steps in runs within one file."""
    stays: list[list[Step]] = []
    for step in steps:
        if not stays or stays[-1][0].file != step.file:
            stays.append([])
        stays[-1].append(step)
    return stays


def climbs_of(stays: list[list[Step]]) -> list[str]:
    """The files to which the walk returns."""
    files = [stay[0].file for stay in stays]
    return [file for place, file in enumerate(files) if file in files[:place]]


def _is_input(value: object) -> bool:
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return type(value).__name__ in INPUTS


def walk_of_a_merge(folder: Path) -> Mapping[Step, int]:
    """The steps of planning a merge of a LoRA, as PEFT writes it, into a small Llama."""
    from adaptry import open_dir
    from adaptry.bases.hf_folder import open_checkpoint
    from adaptry.compute.merging.merge import MergeSource, plan_recipe
    from adaptry.compute.merging.weighted_adapter import WeightedAdapter
    from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
    from adaptry.testing.samples import tiny_base, tiny_lora

    base, lora = tiny_base(folder / "base"), tiny_lora(folder / "lora")
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source=str(lora)),))

    def plan() -> None:
        sources = [MergeSource(WeightedAdapter(open_dir(lora), 1.0, str(lora)))]
        plan_recipe(recipe, open_checkpoint(base), sources)

    return steps_of(plan)


def main() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        steps = walk_of_a_merge(Path(folder))
    stays = stays_of(steps)
    climbs = climbs_of(stays)
    for number, stay in enumerate(stays, 1):
        back = " (back)" if stay[0].file in {other[0].file for other in stays[: number - 1]} else ""
        print(f"{number:3} {stay[0].file}{back}: {', '.join(step.function for step in stay)}")
    files = {step.file for step in steps}
    print(f"{len(stays)} stays in {len(files)} files, under {len(steps)} names; {len(climbs)} climbs")


if __name__ == "__main__":
    main()
