"""Of a pipeline's LoRA file, the modules of one part under their names in that part's model.

A UNet and each text encoder are models of their own, and PEFT's folder is for one model. Which part is
meant is told by the base, which is one, or by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.spec import ModuleSpec
from adaptry.bases.model_names import model_names
from adaptry.core.errors import CheckFailed

CLIP = "text_model."
_PIPELINE = "Pipeline"
_CLASSES = {"CLIPTextModel": "text_encoder", "CLIPTextModelWithProjection": "text_encoder_2"}

Spell = Callable[[str, Sequence[str]], Iterable[tuple[str, str]]]
"""From a part and its model's modules: every name that a foreign file may have, and its module."""


@dataclass(frozen=True, slots=True)
class PlacedPart:
    """`paths`: the name in the `model` of each module of the file that is of this part. `lacks`: why it is
    not this part, if it is not.
    """

    part: str
    paths: Mapping[str, str] = field(default_factory=dict)
    lacks: str = ""
    model: BaseRecord | None = None


def placed_part(
    modules: Mapping[str, Sequence[ModuleSpec]],
    base: BaseRecord,
    spell: Spell,
    part: str | None,
    label: str,
) -> PlacedPart:
    """Which of a file's parts (`modules`, by part) the base is, with their names there. Raises `CheckFailed`
    where it is none, or could be two.
    """
    if part is not None and part not in modules:
        raise CheckFailed(f"{label} has no part {part[:40]}, only {', '.join(modules)}")
    wanted = {name: own for name, own in modules.items() if part in (None, name)}
    placed = [_place(name, own, _model_of(base, name, label), spell) for name, own in wanted.items()]
    fitting = [each for each in placed if not each.lacks]
    if len(fitting) > 1:  # two text encoders of the same shapes
        said = {_CLASSES.get(str(name)) for name in base.facts.get("architectures") or ()}
        fitting = [each for each in fitting if each.part in said] or fitting
    if not fitting:
        raise CheckFailed(f"{label} is for another model than this base: {placed[0].lacks}")
    if len(fitting) > 1:
        raise CheckFailed(
            f"{label} has {' and '.join(each.part for each in fitting)}, and the base could be either: say"
            " which with --part (of `adaptry convert`)"
        )
    return fitting[0]


def clip_names(path: str) -> set[str]:
    """A text encoder's module with and without CLIP's `text_model`."""
    inside = path.removeprefix(CLIP)
    return {path, inside, f"{CLIP}{inside}"}


def left_out(modules: Mapping[str, Sequence[ModuleSpec]], chosen: str, label: str) -> tuple[str, ...]:
    """A sentence about the parts that are another model's."""
    others = [f"{name} ({len(own)} modules)" for name, own in modules.items() if name != chosen]
    if not others:
        return ()
    return (
        f"only {chosen} of {label} is for this model; {' and '.join(others)} is another model's: do the same"
        " with that one as the base",
    )


def _model_of(base: BaseRecord, part: str, label: str) -> BaseRecord:
    """The base itself if it is one model; of a pipeline, the part. Raises `CheckFailed` where it has none."""
    if _PIPELINE not in str(base.facts.get("model_type")):
        return base
    inside = f"{part}."
    tensors = {
        name.removeprefix(inside): tensor for name, tensor in base.tensors.items() if name.startswith(inside)
    }
    if not tensors:
        raise CheckFailed(f"{label} changes the {part} of a pipeline, and the base has none")
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
        if shapes[found[module.path]][:2] != (module.fan_out, module.fan_in):
            sides = "×".join(map(str, shapes[found[module.path]][:2]))
            reason = (
                f"{module.path} changes a weight of {module.fan_out}×{module.fan_in}, which is {sides} there"
            )
            return PlacedPart(part, lacks=reason)
    return PlacedPart(part, found, model=base)


def _shapes(base: BaseRecord) -> Iterable[tuple[str, tuple[int, ...]]]:
    """The modules of the model that PEFT wraps, with their weights' shapes."""
    names = model_names(
        base.tensors, base.facts, task=None, model_class=None, used=(), takes_disk_names=False
    )
    for path in names.holders:
        for name in (path, f"{CLIP}{path}", path.removeprefix(CLIP)):
            if (tensor := base.tensors.get(f"{name}.weight")) is not None and len(tensor.shape) > 1:
                yield path, tensor.shape
                break
