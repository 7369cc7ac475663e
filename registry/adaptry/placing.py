"""Where an adapter's modules lie in a base: which tensor on disk each one changes, and which way round it is stored.

An adapter names modules of the model in memory; a checkpoint names tensors as some tool wrote them. The
rules here, PEFT 0.21's and transformers 5's, lead from one to the other. Whatever they do not settle is *missing* with
the reason: a wrong place would be a silent wrong answer, so nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from adaptry.adapter.spec import ExtraWeight, ModuleSpec, Spec
from adaptry.fingerprint import TensorShape
from adaptry.fused import Expert, expert_tensors
from adaptry.naming import INPUT_EMBEDDINGS, OUTPUT_HEADS, input_embedding, is_output_head

Orientation = Literal["linear", "conv1d", "embedding", "conv", "attention", "parameter"]
"""How the weight is stored: `linear` is [out, in], `conv1d` (GPT-2's) [in, out], `embedding` [rows, dim], `conv`
[out, in, *kernel], `attention` a fused in_proj [3·dim, dim], `parameter` [experts, out, in] or its transpose."""

# Modules that are transformers' Conv1D in these architectures: where in = out, shapes cannot tell.
_CONV1D_MODELS = frozenset(["gpt2", "openai-gpt", "imagegpt", "decision_transformer"])
_CONV1D_MODULES = frozenset(["c_attn", "c_proj", "c_fc", "q_attn"])

# The two spellings of vision-language models: in memory since transformers 4.52, and on disk (§7.2).
_SPELLINGS = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)
_OLD_ENDS = (
    (".weight", ".gamma"),
    (".bias", ".beta"),
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
)


WhyMissing = Literal["absent", "ambiguous", "experts", "quantised", "renumbered"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something has no place: the kind, for whoever decides by it, and the end of a sentence."""

    kind: WhyMissing
    text: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A module and a weight of the base that it changes. `tied`: that tensor is input embedding and output head in one.

    Fused experts have a place for each matrix of each `expert` that is stored by itself.
    """

    module: ModuleSpec
    tensor: str
    orientation: Orientation
    tied: bool = False
    expert: Expert | None = None


@dataclass(frozen=True, slots=True)
class PlacedExtra:
    """A full weight and the tensor of the base that it replaces (wholly, or rows of it)."""

    extra: ExtraWeight
    tensor: str
    tied: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Every module and extra weight: placed (fused experts in many places), or missing. `reasons` says why, by path or target.

    `blocks` are modules placed beside a whole part of the base, of which they change no weight.
    """

    placed: tuple[Placed, ...] = ()
    extras: tuple[PlacedExtra, ...] = ()
    blocks: tuple[ModuleSpec, ...] = ()
    missing: tuple[ModuleSpec, ...] = ()
    missing_extras: tuple[ExtraWeight, ...] = ()
    reasons: Mapping[str, Reason] = field(default_factory=dict)


def place(spec: Spec, tensors: Mapping[str, TensorShape], facts: Mapping[str, Any]) -> Placement:
    """Where `spec` lies in a base with these tensors on disk and these config facts (`Any`: JSON).

    Shapes decide orientation only; whether they fit is for the checks.
    """
    names = _Names(tensors, facts)
    placed: list[Placed] = []
    extras: list[PlacedExtra] = []
    missing: list[ModuleSpec] = []
    missing_extras: list[ExtraWeight] = []
    reasons: dict[str, Reason] = {}
    blocks = [module for module in spec.modules if module.kind == "block" and names.has_part(module.path)]
    for module in spec.modules:
        if module in blocks:
            continue
        found = _place_module(module, names, "layer_replication" in spec.traits)
        if isinstance(found, Reason):
            missing.append(module)
            reasons[module.path] = found
        else:
            placed.extend(found)
    for extra in spec.extras:
        where = names.find(extra.target)
        if where.tensor:
            extras.append(PlacedExtra(extra, where.tensor, where.tied))
        else:
            missing_extras.append(extra)
            reasons[extra.target] = where.reason
    return Placement(
        tuple(placed), tuple(extras), tuple(blocks), tuple(missing), tuple(missing_extras), reasons
    )


def orientation_of(module: ModuleSpec, tensor: str, shape: tuple[int, ...], model_type: str) -> Orientation:
    """Which way round the weight of a plain module is stored. Shapes first, since configs and flags may be wrong;
    the architecture's list where in = out."""
    if module.kind in ("embedding", "conv", "parameter"):
        return module.kind
    if module.fan_in != module.fan_out and len(shape) == 2:
        if shape == (module.fan_in, module.fan_out):
            return "conv1d"
        if shape == (module.fan_out, module.fan_in):
            return "linear"
    if module.kind == "flat" and len(shape) > 2:
        return "conv"
    name = tensor.removesuffix(".weight").rpartition(".")[2]
    return "conv1d" if model_type in _CONV1D_MODELS and name in _CONV1D_MODULES else "linear"


def _place_module(module: ModuleSpec, names: _Names, is_replicated: bool) -> list[Placed] | Reason:
    """The module's places, or why it has none."""
    if is_replicated:
        return Reason("renumbered", "layer_replication renumbers the layers, so its names are not the base's")
    path = module.path.replace(".base_layer", "")
    if module.kind == "parameter":
        return _place_parameter(module, path, names)
    where = names.find(f"{path}.weight")
    if where.tensor:
        shape = names.tensors[where.tensor].shape
        orientation = orientation_of(module, where.tensor, shape, names.model_type)
        return [Placed(module, where.tensor, orientation, where.tied)]
    fused = names.find(f"{path}.in_proj_weight")
    if fused.tensor:
        return [Placed(module, fused.tensor, "attention")]
    packed = next((end for end in ("qweight", "weight_packed") if names.find(f"{path}.{end}").tensor), None)
    if packed:
        return Reason("quantised", f"its weight is quantised in the base ({packed})")
    return where.reason


def _place_parameter(module: ModuleSpec, path: str, names: _Names) -> list[Placed] | Reason:
    """Adapters name the module that holds a 3-D parameter, not the parameter: its shape tells which (§4.7)."""
    direct = names.find(f"{path}.weight")
    if direct.tensor:
        return [Placed(module, direct.tensor, "parameter")]
    sides = {(module.fan_out, module.fan_in), (module.fan_in, module.fan_out)}
    found = [
        name
        for name, tensor in names.tensors.items()
        if name.rpartition(".")[0] == path and len(tensor.shape) == 3 and tensor.shape[1:] in sides
    ]
    if len(found) == 1:
        return [Placed(module, found[0], "parameter")]
    for folder in _spellings(path):
        if any(name.startswith(f"{folder}.0.") for name in names.tensors):
            matrix = (module.fan_out, module.fan_in)
            experts = [
                Placed(module, tensor, "parameter", expert=expert)
                for tensor, expert in expert_tensors(path, folder, matrix, names.tensors)
            ]
            return experts or Reason(
                "experts",
                "the base stores its experts one by one, and not as wide as the adapter's fused ones",
            )
    if found:
        return Reason("ambiguous", f"{len(found)} parameters of {path} have its shape")
    return Reason("absent", "the base has no such parameter")


_ABSENT = Reason("absent", "the base has no such weight")


@dataclass(frozen=True, slots=True)
class _Where:
    """A tensor on disk, or the reason why there is none."""

    tensor: str = ""
    tied: bool = False
    reason: Reason = _ABSENT


class _Names:
    """The base's names, to be asked for a parameter of the model in memory."""

    def __init__(self, tensors: Mapping[str, TensorShape], facts: Mapping[str, Any]) -> None:
        self.tensors = tensors
        self.model_type = str(facts.get("model_type") or "")
        self._is_tied = facts.get("tie_word_embeddings") is True

    def find(self, parameter: str) -> _Where:
        """The tensor of `parameter`: under its own name, an old one, with a prefix more or less, or tied."""
        for name in _spellings(parameter):
            if name in self.tensors:
                return _Where(name, self._serves_both(name))
        candidates = {name for spelling in _spellings(parameter) for name in self._prefixed(spelling)}
        if len(candidates) == 1:
            name = candidates.pop()
            return _Where(name, self._serves_both(name))
        if candidates:
            text = f"it could be any of {', '.join(sorted(candidates)[:3])}"
            return _Where(reason=Reason("ambiguous", text))
        parts = parameter.split(".")
        if self._embedding and len(parts) > 1 and parts[-1] == "weight":
            if self._is_tied and parts[-2] in OUTPUT_HEADS:
                return _Where(self._embedding, tied=True)
            if parts[-2] in INPUT_EMBEDDINGS and self._embedding.endswith("shared.weight"):
                return _Where(self._embedding, tied=True)
        return _Where()

    def has_part(self, path: str) -> bool:
        """Whether the model has a part of this name, which may lack the prefix of a task's model."""
        stem = re.sub(r"\.(?:output|attention)_adapters$", "", path)  # AdapterHub's own parts of a layer
        return any(name in self._parts for name in (stem, stem.partition(".")[2]))

    @cached_property
    def _parts(self) -> frozenset[str]:
        """Every dotted beginning of every name, with its first word and without."""
        return frozenset(
            ".".join(parts[start:end])
            for parts in (name.split(".") for name in self.tensors)
            for end in range(1, len(parts))
            for start in (0, 1)
        )

    @cached_property
    def _embedding(self) -> str | None:
        return input_embedding(self.tensors)

    def _serves_both(self, name: str) -> bool:
        return self._is_tied and (name == self._embedding or is_output_head(name))

    def _prefixed(self, parameter: str) -> Iterator[str]:
        """Names that differ from `parameter` by a prefix, longest common end first, and only the longest.

        A prefix that holds a layer number is no prefix: layer 5 of one model is not a layer 5 of its parts.
        """
        parts = parameter.split(".")
        for start in range(1, len(parts) - 1):
            if parts[start - 1].isdecimal():
                break
            shorter = ".".join(parts[start:])
            if shorter in self.tensors:
                yield shorter
                break
        yield from self._longer.get(parameter, ())

    @cached_property
    def _longer(self) -> Mapping[str, tuple[str, ...]]:
        """Every dotted end of every name, with the names it ends."""
        ends: dict[str, tuple[str, ...]] = {}
        for name in self.tensors:
            parts = name.split(".")
            for start in range(1, len(parts) - 1):
                if parts[start - 1].isdecimal():
                    break
                end = ".".join(parts[start:])
                ends[end] = (*ends.get(end, ()), name)
        return ends


def _spellings(parameter: str) -> Iterator[str]:
    """`parameter`, then the other ways in which tools have written it."""
    yield parameter
    if ".mlp." in parameter:
        yield parameter.replace(".mlp.", ".block_sparse_moe.", 1)
    for memory, disk in _SPELLINGS:
        if parameter.startswith(memory):
            yield disk + parameter.removeprefix(memory)
        if parameter.startswith(disk):
            yield memory + parameter.removeprefix(disk)
    for new, old in _OLD_ENDS:
        if parameter.endswith(new):
            yield parameter.removesuffix(new) + old
