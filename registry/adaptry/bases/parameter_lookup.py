"""Looks up a parameter of the model in memory among a base's tensors, under all names that tools give it.

An adapter from one version of a library may name a weight differently from a checkpoint of another version:
with another prefix, in an old spelling, or tied to the embedding. The result is one tensor or none; if two
tensors are possible, there is no result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

from adaptry.adapters.base_record import TensorShape
from adaptry.adapters.key_layout import SPELLINGS
from adaptry.adapters.tensor_names import (
    OUTPUT_HEADS,
    TIED_HEADS,
    input_embedding,
    is_output_head,
    is_stack_copy,
)
from adaptry.adapters.transformers_conversion import LoadedTensor, is_converted_on_load, tensors_in_memory
from adaptry.bases.conv1d import LinearClasses
from adaptry.bases.model_classes import body_attribute
from adaptry.bases.tied_weights import OWN_EMBEDDINGS
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

_OLD_ENDS = (
    (".weight", ".gamma"),
    (".bias", ".beta"),
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
)

_WRAPPER = lazy_pattern(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and checkpointing add to names."""

# Names that mean an output head only in these models.
_HEADS_BY_MODEL = {
    "proj_out": frozenset(["whisper"]),
    "output_projection": frozenset(["biogpt", "trocr"]),
    "pred_layer.proj": frozenset(["xlm", "flaubert"]),
}

WhyMissing = Literal["absent", "ambiguous", "experts", "quantised", "renamed", "renumbered"]


@dataclass(frozen=True, slots=True)
class MissingReason:
    """Why no tensor was found: a kind, on which code can act, and a text that ends a sentence."""

    kind: WhyMissing
    text: str


_ABSENT = MissingReason("absent", "the base has no such weight")


@dataclass(frozen=True, slots=True)
class LookupResult:
    """A tensor of the base, or the reason why none was found."""

    tensor: LoadedTensor | None = None
    tied: bool = False
    reason: MissingReason = _ABSENT


class ParameterNames:
    """The names of a base's tensors on disk, and in memory as transformers loads it."""

    def __init__(self, tensors: Mapping[str, TensorShape], facts: Mapping[str, Any]) -> None:
        """(`Any`: the base's facts are JSON.)"""
        self.model_type: str = str(facts.get("model_type") or "")
        parts = (part.get("model_type") for part in facts.values() if isinstance(part, Mapping))
        self.is_converted: bool = is_converted_on_load(
            [self.model_type, *(part for part in parts if isinstance(part, str))], tensors
        )
        in_memory = {tensor.name: tensor for tensor in tensors_in_memory(tensors, self.model_type)}
        on_disk = {name: LoadedTensor(name, (name,), tensor.shape) for name, tensor in tensors.items()}
        self.tensors: Mapping[str, LoadedTensor] = in_memory | on_disk
        self._body = body_attribute(self.model_type)
        self._is_tied = facts.get("tie_word_embeddings") is True
        self.linear_classes = LinearClasses(self._shape_of, self.tensors, facts)

    def find(self, parameter: str) -> LookupResult:
        """The tensor of `parameter`: under its name, an old one, one with another prefix, or tied."""
        for name in (*_spellings(parameter), f"{self._body}.{parameter}"):
            if name in self.tensors:
                return self._found(self.tensors[name])
        near = [self.tensors[name] for spelling in _spellings(parameter) for name in self._prefixed(spelling)]
        candidates = {tensor.parts: tensor for tensor in near}
        if len(candidates) == 1:
            return self._found(near[0])
        if candidates:
            text = f"it matches several weights: {', '.join(sorted(parts[0] for parts in candidates)[:3])}"
            return LookupResult(reason=MissingReason("ambiguous", text))
        path, _, end = parameter.rpartition(".")
        embedding = self._embedding
        if (
            embedding
            and path
            and end == "weight"
            and (is_stack_copy(path, embedding) or (self._is_tied and self._is_head(path)))
        ):
            return LookupResult(self.tensors[embedding], tied=True)
        around = f"{path.rpartition('.')[0]}.bias"  # a tied head's bias is tied to this parameter
        is_tied = self._is_tied or path.startswith("decoder.")  # whose own config says so
        if end == "bias" and is_tied and around in self.tensors and self._is_head(path):
            return LookupResult(self.tensors[around])
        return LookupResult()

    def _is_head(self, path: str) -> bool:
        """Whether the module `path`, which has no separate weight on disk, is this model's output head.

        A name that other modules have as well counts only if the base has its bias or neighbours: BERT's
        `cls.predictions.decoder` has the neighbour `cls.predictions.transform`. Whisper's has neither.
        """
        around, _, name = path.rpartition(".")
        if name in OUTPUT_HEADS:
            return True
        if path in _HEADS_BY_MODEL:
            return is_head_of_type(path, self.model_type)
        beside = f"{around}." if around else f"{path}."
        return name in TIED_HEADS and any(known.startswith(beside) for known in self.tensors)

    def has_part(self, path: str) -> bool:
        """Whether the model has a part with this name, which may lack a task model's prefix."""
        stem = re.sub(r"\.(?:output|attention)_adapters$", "", path)  # parts of a layer that AdapterHub adds
        return any(name in self._parts for name in (stem, stem.partition(".")[2]))

    @cached_property
    def _parts(self) -> frozenset[str]:
        """Every dotted prefix of every name, both with and without the name's first part."""
        return frozenset(
            ".".join(parts[start:end])
            for parts in (name.split(".") for name in self.tensors)
            for end in range(1, len(parts))
            for start in (0, 1)
        )

    def inside(self, path: str) -> tuple[LoadedTensor, ...]:
        """The parameters that the module `path` has directly."""
        return tuple(self._by_owner.get(path, ()))

    def shapes_inside(self, path: str) -> Iterator[tuple[int, ...]]:
        """The shapes of `inside(path)` that are matrices or stacks of matrices."""
        return (tensor.shape for tensor in self.inside(path) if len(tensor.shape) > 1)

    @cached_property
    def _by_owner(self) -> Mapping[str, list[LoadedTensor]]:
        owners: dict[str, list[LoadedTensor]] = {}
        for name, tensor in self.tensors.items():
            owners.setdefault(name.rpartition(".")[0], []).append(tensor)
        return owners

    def _shape_of(self, parameter: str) -> tuple[int, ...] | None:
        tensor = self.tensors.get(parameter)
        return None if tensor is None else tensor.shape

    def _found(self, tensor: LoadedTensor) -> LookupResult:
        name = tensor.parts[0]
        return LookupResult(tensor, self._is_tied and (name == self._embedding or is_output_head(name)))

    @cached_property
    def _embedding(self) -> str | None:
        names = [tensor.parts[0] for tensor in self.tensors.values() if tensor.is_as_stored]
        decoders = (name for name in names if name.startswith("decoder."))  # EncoderDecoderModel has two
        return (
            input_embedding(names)
            or next((name for name in names if self._is_own_embedding(name)), None)
            or input_embedding(decoders)
        )

    def _is_own_embedding(self, name: str) -> bool:
        """Whether the name belongs to an embedding whose name has this meaning only in models of this
        type.
        """
        return name.endswith(OWN_EMBEDDINGS.get(self.model_type, ())) if self.model_type else False

    def _prefixed(self, parameter: str) -> Iterator[str]:
        """Names that differ from `parameter` only by a prefix: those with the longest common ending.

        A prefix must not contain a layer number: layer 5 of a model is not layer 5 of one of its parts.
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
        """Every dotted suffix of every name, with the names that end with it."""
        ends: dict[str, tuple[str, ...]] = {}
        for name in self.tensors:
            parts = name.split(".")
            for start in range(1, len(parts) - 1):
                if parts[start - 1].isdecimal():
                    break
                end = ".".join(parts[start:])
                ends[end] = (*ends.get(end, ()), name)
        return ends


def is_head_of_type(path: str, model_type: str) -> bool:
    """Whether the module is the output head of models of this type, by a name that others use differently."""
    return model_type in _HEADS_BY_MODEL.get(path, ())


def _spellings(parameter: str) -> Iterator[str]:
    """`parameter`, then the other spellings that tools have used."""
    yield parameter
    if "wrapped_module." in parameter or "_orig_mod." in parameter:
        yield _WRAPPER.sub("", parameter)
    for memory, disk in SPELLINGS:
        if parameter.startswith(memory):
            yield disk + parameter.removeprefix(memory)
        if parameter.startswith(disk):
            yield memory + parameter.removeprefix(disk)
        elif parameter.startswith(bare := memory.removeprefix("model.")):  # in a bare model
            yield disk + parameter.removeprefix(bare)
    for new, old in _OLD_ENDS:
        if parameter.endswith(new):
            yield parameter.removesuffix(new) + old
