"""Looking up a parameter of the model in memory among a base's tensors, under all names that tools give it.

An adapter made with one version of a library names a weight otherwise than a checkpoint written by
another: with a prefix more or less, in an old spelling, tied to the embedding. One answer or none; where two
tensors could be meant, none is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from adaptry.adapters.base_record import TensorShape
from adaptry.adapters.key_layout import SPELLINGS
from adaptry.adapters.tensor_names import (
    INPUT_EMBEDDINGS,
    OUTPUT_HEADS,
    TIED_HEADS,
    input_embedding,
    is_output_head,
)
from adaptry.adapters.transformers_loading import LoadedTensor, is_converted_on_load, tensors_in_memory

_OLD_ENDS = (
    (".weight", ".gamma"),
    (".bias", ".beta"),
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
)

# Output heads whose names say it in these models only.
_HEADS_BY_MODEL = {
    "proj_out": frozenset(["whisper"]),
    "output_projection": frozenset(["biogpt"]),
    "pred_layer.proj": frozenset(["xlm", "flaubert"]),
}

WhyMissing = Literal["absent", "ambiguous", "experts", "quantised", "renamed", "renumbered"]


@dataclass(frozen=True, slots=True)
class MissingReason:
    """Why something has no place: the kind, for whoever decides by it, and the end of a sentence."""

    kind: WhyMissing
    text: str


_ABSENT = MissingReason("absent", "the base has no such weight")


@dataclass(frozen=True, slots=True)
class LookupResult:
    """A tensor of the base, or the reason why there is none."""

    tensor: LoadedTensor | None = None
    tied: bool = False
    reason: MissingReason = _ABSENT


class ParameterNames:
    """The base's names: those on disk, and those that transformers gives the same tensors in memory."""

    def __init__(self, tensors: Mapping[str, TensorShape], facts: Mapping[str, Any]) -> None:
        """(`Any`: the base's facts are JSON.)"""
        self.model_type = str(facts.get("model_type") or "")
        parts = (part.get("model_type") for part in facts.values() if isinstance(part, Mapping))
        self.is_converted = is_converted_on_load(
            [self.model_type, *(part for part in parts if isinstance(part, str))]
        )
        in_memory = {tensor.name: tensor for tensor in tensors_in_memory(tensors, self.model_type)}
        on_disk = {name: LoadedTensor(name, (name,), tensor.shape) for name, tensor in tensors.items()}
        self.tensors: Mapping[str, LoadedTensor] = in_memory | on_disk
        self._is_tied = facts.get("tie_word_embeddings") is True

    def find(self, parameter: str) -> LookupResult:
        """The tensor of `parameter`: under its own name, an old one, with a prefix more or less, or tied."""
        for name in _spellings(parameter):
            if name in self.tensors:
                return self._found(self.tensors[name])
        near = [self.tensors[name] for spelling in _spellings(parameter) for name in self._prefixed(spelling)]
        candidates = {tensor.parts: tensor for tensor in near}
        if len(candidates) == 1:
            return self._found(near[0])
        if candidates:
            text = f"it could be any of {', '.join(sorted(parts[0] for parts in candidates)[:3])}"
            return LookupResult(reason=MissingReason("ambiguous", text))
        path, _, end = parameter.rpartition(".")
        if self._embedding and path and end == "weight":
            is_copy = path.split(".")[-1] in INPUT_EMBEDDINGS and self._embedding.endswith("shared.weight")
            if is_copy or (self._is_tied and self._is_head(path)):
                return LookupResult(self.tensors[self._embedding], tied=True)
        around = f"{path.rpartition('.')[0]}.bias"  # what a tied head's bias is tied to: cls.predictions.bias
        if end == "bias" and self._is_tied and around in self.tensors and self._is_head(path):
            return LookupResult(self.tensors[around])
        return LookupResult()

    def _is_head(self, path: str) -> bool:
        """Whether the module `path`, which has no weight of its own, is this model's output head.

        Of the names that other modules have as well, those count whose bias or surroundings the base has:
        BERT's `cls.predictions.decoder` lies beside `cls.predictions.transform`. Whisper's has neither.
        """
        around, _, name = path.rpartition(".")
        if name in OUTPUT_HEADS:
            return True
        if path in _HEADS_BY_MODEL:
            return self.model_type in _HEADS_BY_MODEL[path]
        beside = f"{around}." if around else f"{path}."
        return name in TIED_HEADS and any(known.startswith(beside) for known in self.tensors)

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

    def inside(self, path: str) -> tuple[LoadedTensor, ...]:
        """The parameters that the module `path` holds itself."""
        return tuple(self._by_owner.get(path, ()))

    def shapes_inside(self, path: str) -> Iterator[tuple[int, ...]]:
        """The shapes of those of them that are matrices or stacks of matrices."""
        return (tensor.shape for tensor in self.inside(path) if len(tensor.shape) > 1)

    @cached_property
    def _by_owner(self) -> Mapping[str, list[LoadedTensor]]:
        owners: dict[str, list[LoadedTensor]] = {}
        for name, tensor in self.tensors.items():
            owners.setdefault(name.rpartition(".")[0], []).append(tensor)
        return owners

    def _found(self, tensor: LoadedTensor) -> LookupResult:
        name = tensor.parts[0]
        return LookupResult(tensor, self._is_tied and (name == self._embedding or is_output_head(name)))

    @cached_property
    def _embedding(self) -> str | None:
        return input_embedding(tensor.parts[0] for tensor in self.tensors.values() if tensor.is_as_stored)

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
    for memory, disk in SPELLINGS:
        if parameter.startswith(memory):
            yield disk + parameter.removeprefix(memory)
        if parameter.startswith(disk):
            yield memory + parameter.removeprefix(disk)
    for new, old in _OLD_ENDS:
        if parameter.endswith(new):
            yield parameter.removesuffix(new) + old
