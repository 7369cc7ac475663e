"""Selects the modules of one part from a pipeline's LoRA file, under their names in that part's model.

A UNet and each text encoder are separate models, but PEFT's folder is for one model. The base determines the
part, or the user names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.spec import ModuleSpec
from adaptry.bases.model_names import model_names
from adaptry.core.display import format_count
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass

CLIP = "text_model."
_PIPELINE = "Pipeline"
_CLASSES = {"CLIPTextModel": "text_encoder", "CLIPTextModelWithProjection": "text_encoder_2"}

Spell = Callable[[str, Sequence[str]], Iterable[tuple[str, str]]]
"""A function from a part and its model's modules to every possible name in a file, with its module."""


@dataclass(frozen=True, slots=True)
class PlacedPart:
    """`paths`: names in the `model` of the file's modules of this part. `shapes`: the shape of each module's
    weight in the model. `lacks`: the reason why the base is not this part; empty if it is.
    """

    part: str
    paths: Mapping[str, str] = field(default_factory=dict)
    lacks: str = ""
    model: BaseRecord | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def placed_part(
    modules: Mapping[str, Sequence[ModuleSpec]],
    base: BaseRecord,
    spell: Spell,
    part: str | None,
    label: str,
) -> PlacedPart:
    """The part of the file (`modules`, by part) to which the base corresponds, with the names in the base.
    Raises `CheckFailed` if the base corresponds to no part, or possibly to two.
    """
    if part is not None and part not in modules:
        raise CheckFailed(f"{label} has no part {part[:40]}, only {', '.join(modules)}")
    candidates = {name: own for name, own in modules.items() if part in (None, name)}
    placed = [_place(name, own, _model_of(base, name, label), spell) for name, own in candidates.items()]
    fitting = [each for each in placed if not each.lacks]
    if len(fitting) > 1:  # two text encoders with the same shapes
        declared = {_CLASSES.get(str(name)) for name in base.facts.get("architectures") or ()}
        fitting = [each for each in fitting if each.part in declared] or fitting
    if not fitting:
        raise CheckFailed(f"{label} is for a different model than this base: {placed[0].lacks}")
    if len(fitting) > 1:
        raise CheckFailed(
            f"{label} has {' and '.join(each.part for each in fitting)}, and the base could be either: choose"
            " one with --part (of `adaptry convert`)"
        )
    return fitting[0]


def clip_names(path: str) -> set[str]:
    """A text encoder's module with and without CLIP's `text_model`."""
    inside = path.removeprefix(CLIP)
    return {path, inside, f"{CLIP}{inside}"}


def left_out(modules: Mapping[str, Sequence[ModuleSpec]], chosen: str, label: str) -> tuple[str, ...]:
    """A note about the parts for other models."""
    others = [
        f"{name} ({format_count(len(own), 'module')})" for name, own in modules.items() if name != chosen
    ]
    if not others:
        return ()
    return (
        f"only {chosen} of {label} is for this model; {' and '.join(others)} belongs to another model:"
        " repeat this with that model as the base",
    )


def _model_of(base: BaseRecord, part: str, label: str) -> BaseRecord:
    """The base itself if it is a single model, else the part of the pipeline. Raises `CheckFailed` if there
    is none.
    """
    if _PIPELINE not in str(base.facts.get("model_type")):
        return base
    inside = f"{part}."
    tensors = {
        name.removeprefix(inside): tensor for name, tensor in base.tensors.items() if name.startswith(inside)
    }
    if not tensors:
        raise CheckFailed(f"{label} changes the {part} of a pipeline, but the base has none")
    return base.model_copy(update={"tensors": tensors, "facts": {"model_type": part}})


def _place(part: str, modules: Sequence[ModuleSpec], base: BaseRecord, spell: Spell) -> PlacedPart:
    shapes = dict(_shapes(base))
    known: dict[str, set[str]] = {}
    for name, path in spell(part, list(shapes)):
        known.setdefault(name, set()).add(path)
    found: dict[str, str] = {}
    for module in modules:
        paths = known.get(module.path, set())
        if len(paths) != 1:
            why = f"could be {' or '.join(sorted(paths))}" if paths else "is not in it"
            return PlacedPart(part, lacks=f"{module.path} {why}")
        (found[module.path],) = paths
        sides = _sides(shapes[found[module.path]], module)
        if sides != (module.fan_out, module.fan_in):
            there = "×".join(map(str, sides))
            reason = (
                f"{module.path} changes a weight of {module.fan_out}×{module.fan_in}, which is {there} there"
            )
            return PlacedPart(part, lacks=reason)
    return PlacedPart(part, found, model=base, shapes=shapes)


def _sides(shape: tuple[int, ...], module: ModuleSpec) -> tuple[int, ...]:
    """(outputs, inputs) of a weight in the module's terms."""
    return (shape[0], math.prod(shape[1:])) if module.kind == "flat" else shape[:2]


def _shapes(base: BaseRecord) -> Iterable[tuple[str, tuple[int, ...]]]:
    """The modules of the model that PEFT wraps, with the shapes of their weights."""
    names = model_names(
        base.tensors, base.facts, task=None, model_class=None, used=(), takes_disk_names=False
    )
    for path in names.holders:
        for name in (path, f"{CLIP}{path}", path.removeprefix(CLIP)):
            if (tensor := base.tensors.get(f"{name}.weight")) is not None and len(tensor.shape) > 1:
                yield path, tensor.shape
                break
