"""The tensor on disk that each of an adapter's modules changes, and its orientation.

An adapter uses the names of modules in memory; a checkpoint has the names that some tool wrote. The rules
here, from PEFT 0.21 and transformers 5, map one to the other. If they find no unique tensor, the module is
*missing*, with the reason. Nothing is guessed, since a wrong tensor would give a silently wrong answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Literal

from adaptry.adapters.base_record import TensorShape
from adaptry.adapters.fused_experts import FusedExpert, expert_tensors
from adaptry.adapters.spec import ExtraWeight, ModuleSpec, Spec
from adaptry.adapters.tensor_names import is_input_embedding, is_stack_copy, layer_of
from adaptry.adapters.transformers_conversion import LoadedTensor
from adaptry.bases.conv1d import LinearClasses
from adaptry.bases.parameter_lookup import MissingReason, ParameterNames
from adaptry.core.lazy_dataclass import dataclass

Orientation = Literal["linear", "conv1d", "embedding", "conv", "attention", "parameter"]
"""How the weight is stored: `linear` is [out, in], `conv1d` (GPT-2's) [in, out], `embedding` [rows, dim],
`conv` [out, in, *kernel], `attention` a fused in_proj [3·dim, dim], `parameter` [experts, out, in] or its
transpose.
"""

# Models whose experts are stored as [experts, in, out]: if in = out, the shape does not show it
# (transformers' is_transposed).
TRANSPOSED_EXPERTS = frozenset(["gpt_oss", "aria", "aria_text", "openai_privacy_filter"])
PACKED_WEIGHTS = ("qweight", "weight_packed")
_EXPERT = re.compile(r"(?P<path>.+\.experts)\.\d+\..+")

Certainty = Literal["known", "assumed", "unknown"]
"""Whether files show a matrix's orientation. `assumed`: nothing in them contradicts `linear`."""


@dataclass(frozen=True, slots=True)
class TargetTensor:
    """A module and a base weight that it changes. `tied`: that tensor is both embedding and output head.

    Fused experts have an entry for each separately stored matrix of each `expert`. `is_plain`: the update is
    a LoRA's W + scale · B·A and nothing else. `is_transposed`: the factors belong to experts that are stored
    as [in, out]. `certainty`: whether files show that a matrix is `linear` or `conv1d`; otherwise
    `orientation` is `linear`.
    """

    module: ModuleSpec
    weight: LoadedTensor
    orientation: Orientation
    tied: bool = False
    expert: FusedExpert | None = None
    is_plain: bool = False
    is_transposed: bool = False
    certainty: Certainty = "known"

    @property
    def tensor(self) -> str:
        """The tensor on disk; for a weight that is fused at load, the first of `weight.parts`."""
        return self.weight.parts[0]

    @property
    def bias(self) -> str:
        """The name of the weight's bias, if it has one."""
        stem, _, last = self.tensor.rpartition(".")
        return f"{stem}.in_proj_bias" if last == "in_proj_weight" else f"{stem}.bias"

    @property
    def stored_orientation(self) -> str:
        """`orientation`, for experts with the way in which they are stored."""
        return "parameter_transposed" if self.is_transposed else self.orientation


@dataclass(frozen=True, slots=True)
class ExtraTarget:
    """A full weight and the base's tensor that it replaces: completely, or its `rows` if those are known."""

    extra: ExtraWeight
    weight: LoadedTensor
    tied: bool = False
    rows: tuple[int, ...] = ()

    @property
    def tensor(self) -> str:
        return self.weight.parts[0]


@dataclass(frozen=True, slots=True)
class ModuleMap:
    """Every module and extra weight: placed (fused experts several times), or missing, with `reasons` by path
    or target.

    `blocks` are modules that act on a whole part of the base without changing its weights.
    """

    placed: tuple[TargetTensor, ...] = ()
    extras: tuple[ExtraTarget, ...] = ()
    blocks: tuple[ModuleSpec, ...] = ()
    missing: tuple[ModuleSpec, ...] = ()
    missing_extras: tuple[ExtraWeight, ...] = ()
    reasons: Mapping[str, MissingReason] = field(default_factory=dict)


def has_own_rows(extra: ExtraTarget, module_map: ModuleMap) -> bool:
    """Whether `extra` has trained rows that PEFT applies to only one side of a tied embedding: if the adapter
    has other rows for the other side, or none for the embedding itself.
    """
    if extra.extra.kind != "token_rows" or not extra.tied:
        return False
    beside = [
        other
        for other in module_map.extras
        if other.extra.kind == "token_rows" and other.tensor == extra.tensor
    ]
    return len({other.rows for other in beside}) > 1 or not any(map(_is_of_embedding, beside))


def _is_of_embedding(extra: ExtraTarget) -> bool:
    """Whether its module is the model's own input embedding, and not one that is tied to it."""
    path = extra.extra.target.removesuffix(".weight")
    return is_input_embedding(path) and not is_stack_copy(path, extra.tensor)


def place(
    spec: Spec,
    tensors: Mapping[str, TensorShape],
    facts: Mapping[str, Any],
    *,
    fan_in_fan_out: bool = False,
) -> ModuleMap:
    """Maps the modules of `spec` to a base with these tensors on disk and these config facts (`Any`: JSON).

    Shapes determine the orientation, and which of several parameters is meant. Whether the shapes fit is
    tested by the checks. `fan_in_fan_out` is the adapter's setting. PEFT ignores it and looks at the module's
    class, but saves the class in it, so it is a hint if the base does not show the class.
    """
    names = ParameterNames(tensors, facts)
    placed: list[TargetTensor] = []
    extras: list[ExtraTarget] = []
    missing: list[ModuleSpec] = []
    missing_extras: list[ExtraWeight] = []
    reasons: dict[str, MissingReason] = {}
    blocks = [module for module in spec.modules if module.kind == "block" and names.has_part(module.path)]
    for module in spec.modules:
        if module in blocks:
            continue
        found = _place_module(module, names, "layer_replication" in spec.traits, fan_in_fan_out)
        if isinstance(found, MissingReason):
            missing.append(module)
            reasons[module.path] = found
        else:
            placed.extend(found)
    for extra in spec.extras:
        where = names.find(extra.target)
        if where.tensor:
            extras.append(ExtraTarget(extra, where.tensor, where.tied))
        else:
            missing_extras.append(extra)
            reasons[extra.target] = where.reason
    if names.is_converted:
        _mark_renamed_modules(missing, reasons, names)
        _mark_renamed_vectors(missing_extras, reasons, names)
    return ModuleMap(
        tuple(placed), tuple(extras), tuple(blocks), tuple(missing), tuple(missing_extras), reasons
    )


def orientation_of(
    module: ModuleSpec, path: str, shape: tuple[int, ...], classes: LinearClasses
) -> Orientation | None:
    """How the weight of the plain module at `path` of the base is stored: by the module's class, since PEFT
    refuses factors for the transposed weight. None if the class is unknown.
    """
    if module.kind in ("embedding", "conv", "parameter"):
        return module.kind
    if module.kind == "flat" and len(shape) > 2:
        return "conv"
    match classes.is_conv1d(path):
        case True:
            return "conv1d"
        case False:
            return "linear"
    return None


def _place_module(
    module: ModuleSpec, names: ParameterNames, is_replicated: bool, fan_in_fan_out: bool
) -> list[TargetTensor] | MissingReason:
    """The tensors of the module, or the reason why it has none."""
    if is_replicated:
        return MissingReason(
            "renumbered", "layer_replication renumbers the layers, so its names differ from the base's"
        )
    path = module.path.replace(".base_layer", "")
    if module.kind == "parameter":
        return _place_parameter(module, path, names)
    where = names.find(f"{path}.weight")
    if where.tensor:
        stored, classes = where.tensor.parts[0].removesuffix(".weight"), names.linear_classes
        orientation = orientation_of(module, stored, where.tensor.shape, classes)
        certainty: Certainty = "known"
        if orientation is None:
            certainty = "unknown" if fan_in_fan_out or classes.has_conv1d else "assumed"
        return [TargetTensor(module, where.tensor, orientation or "linear", where.tied, certainty=certainty)]
    fused = names.find(f"{path}.in_proj_weight")
    if fused.tensor:
        return [TargetTensor(module, fused.tensor, "attention")]
    packed = next((end for end in PACKED_WEIGHTS if names.find(f"{path}.{end}").tensor), None)
    if packed:
        return MissingReason("quantised", f"its weight is quantised in the base ({packed})")
    if names.find(f"{path}.parametrizations.weight.original0").tensor:
        return MissingReason("renamed", "torch computes its weight from two stored tensors (weight_norm)")
    if (expert := _EXPERT.fullmatch(path)) and _has_room(module, names.shapes_inside(expert["path"])):
        return MissingReason("experts", "the base has fused experts, but the adapter separate ones")
    return where.reason


def _place_parameter(
    module: ModuleSpec, path: str, names: ParameterNames
) -> list[TargetTensor] | MissingReason:
    """Adapters name the module of a 3-D parameter and not the parameter itself, which shape or config
    identifies.
    """
    for parameter in filter(None, (module.parameter, "weight")):
        direct = names.find(f"{path}.{parameter}")
        if direct.tensor:
            return _whole_or_each(module, path, direct.tensor, names, direct.tied)
    sides = {(module.fan_out, module.fan_in), (module.fan_in, module.fan_out)}
    found = [t for t in names.inside(path) if len(t.shape) == 3 and t.shape[1:] in sides]
    if len(found) == 1:
        return _whole_or_each(module, path, found[0], names, False)
    first = [tensor for name, tensor in names.tensors.items() if name.startswith(f"{path}.0.")]
    if any(tensor.name.endswith(PACKED_WEIGHTS) for tensor in first):
        return MissingReason("quantised", "its experts are quantised in the base")
    if each := _each_expert(module, path, path, names, module.parameter):
        return each
    if any(_is_part(tensor.shape, module) for tensor in first):
        return MissingReason("experts", "the base has separate experts, but the adapter fused ones")
    if found:
        return MissingReason("ambiguous", f"{len(found)} parameters of {path} have this shape")
    return MissingReason("absent", "the base has no such parameter")


def _whole_or_each(
    module: ModuleSpec, path: str, tensor: LoadedTensor, names: ParameterNames, tied: bool
) -> list[TargetTensor]:
    """The stored parameter; if loading fuses it from one tensor per expert, an entry for each."""
    whole = [TargetTensor(module, tensor, "parameter", tied)]
    folder, inside, _ = tensor.parts[0].partition(".experts.")
    if len(tensor.parts) == 1 or not inside:
        return whole
    parameter = tensor.name.rpartition(".")[2]
    return _each_expert(module, path, f"{folder}.experts", names, parameter) or whole


def _each_expert(
    module: ModuleSpec, path: str, folder: str, names: ParameterNames, parameter: str | None = None
) -> list[TargetTensor]:
    """An entry for each tensor under `folder` that belongs to a parameter of `path` with the module's
    width.
    """
    sides = (module.fan_out, module.fan_in)
    return [
        TargetTensor(
            module, LoadedTensor(name, (name,), names.tensors[name].shape), "parameter", expert=expert
        )
        for name, expert in expert_tensors(path, folder, sides, names.tensors, parameter)
    ]


def _mark_renamed_modules(
    missing: Iterable[ModuleSpec], reasons: dict[str, MissingReason], names: ParameterNames
) -> None:
    """Marks missing modules as possibly renamed, if the base's layers have weights of the same width."""
    lost = [module for module in missing if reasons[module.path].kind == "absent"]
    widths: dict[int | None, set[tuple[int, ...]]] = {}
    for tensor in names.tensors.values():
        if len(tensor.shape) > 1:
            widths.setdefault(layer_of(tensor.name), set()).add(tensor.shape)
    if all(_has_room(module, widths.get(layer_of(f"{module.path}."), set())) for module in lost):
        reasons.update({module.path: _renamed(names) for module in lost})


def _mark_renamed_vectors(
    missing: Iterable[ExtraWeight], reasons: dict[str, MissingReason], names: ParameterNames
) -> None:
    """Like `_mark_renamed_modules`, for biases and norms, if the base has vectors of the same length in the
    same layer.
    """
    held = {(layer_of(tensor.name), tensor.shape) for tensor in names.tensors.values()}
    for extra in missing:
        is_vector = extra.kind in ("bias", "norm") and reasons[extra.target].kind == "absent"
        if is_vector and (layer_of(extra.target), extra.shape) in held:
            reasons[extra.target] = _renamed(names)


def _renamed(names: ParameterNames) -> MissingReason:
    text = (
        f"transformers renames or fuses the weights of {names.model_type} at load, by rules that Adaptry"
        " does not know"
    )
    return MissingReason("renamed", text)


def _has_room(module: ModuleSpec, shapes: Iterable[tuple[int, ...]]) -> bool:
    """Whether a weight with one of these shapes could be the module's, or contain it fused."""
    rows = max(1, module.fan_out)  # a file may declare 0
    if module.kind == "conv":
        return any(len(shape) > 2 and shape[0] == rows and shape[1] == module.fan_in for shape in shapes)
    width = module.fan_in
    return any(width in (0, shape[-1]) and shape[-2] % rows == 0 for shape in shapes)  # 0: unknown


def _is_part(shape: tuple[int, ...], module: ModuleSpec) -> bool:
    """Whether a weight with this shape could be one expert's part of the module's weight."""
    return len(shape) == 2 and shape[1] == module.fan_in and module.fan_out % max(1, shape[0]) == 0
