"""Pairs of weights: the model's weights in memory, and the tensors of base and fine-tune on disk for each.

An adapter uses the names in memory, so pairs have these names, according to the fine-tune's checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adaptry.adapters.base_record import TensorShape
from adaptry.adapters.key_layout import SPELLINGS
from adaptry.adapters.tensor_names import is_buffer, is_output_head, layer_of
from adaptry.adapters.transformers_conversion import LoadedTensor, is_converted_on_load, tensors_in_memory
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.parameter_lookup import ParameterNames
from adaptry.checks.finding_text import format_count, verb_form
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class WeightPair:
    """One weight: its name, and the tensor (or its parts) in each checkpoint; `base` is None if the base
    lacks the weight.

    `tied`: it is both input embedding and output head, in both checkpoints.
    """

    name: str
    tuned: LoadedTensor
    base: LoadedTensor | None
    tied: bool = False

    @property
    def path(self) -> str:
        """The path of its module."""
        return self.name.rpartition(".")[0]

    @property
    def parameter(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tuned.shape


@dataclass(frozen=True, slots=True)
class WeightPairs:
    """The fine-tune's `weights` in the order of its files, and the base's names that it lacks (`missing`)."""

    weights: tuple[WeightPair, ...]
    missing: tuple[str, ...]


Facts = Mapping[str, Any]
"""Of a config, as a fingerprint has them. (`Any`: JSON.)"""


def pair_weights(
    base: HfCheckpoint, base_facts: Facts, tuned: HfCheckpoint, tuned_facts: Facts
) -> WeightPairs:
    """Pairs the weights of a base and its fine-tune. Raises `Unsupported` if the names in memory are unknown,
    and `CheckFailed` if the two do not have the same architecture.
    """
    kind = str(tuned_facts.get("model_type") or "")
    if is_converted_on_load([kind], tuned.tensors):
        raise Unsupported(
            f"transformers renames or fuses the weights of {kind} at load, by rules that Adaptry does not"
            " know, so the names for an adapter are unknown"
        )
    in_base, in_tuned = ParameterNames(_shapes(base), base_facts), ParameterNames(_shapes(tuned), tuned_facts)
    is_tied = tuned_facts.get("tie_word_embeddings") is True
    named = _renaming(tuned)
    weights: list[WeightPair] = []
    used: set[str] = set()
    for weight in tensors_in_memory(_shapes(tuned), kind):
        if is_buffer(weight.name, weight.shape) or (is_tied and is_output_head(weight.name)):
            continue
        where = in_base.find(weight.name)
        if where.tensor is not None:
            used.update(where.tensor.parts)
        is_one = is_tied and where.tied and base_facts.get("tie_word_embeddings") is True
        weights.append(WeightPair(named(weight.name), weight, where.tensor, is_one))
    lost: list[str] = []
    for weight in tensors_in_memory(_shapes(base), kind):
        if used.intersection(weight.parts) or is_buffer(weight.name, weight.shape):
            continue
        where = in_tuned.find(weight.name)
        if where.tensor is not None and where.tensor.shape == weight.shape:
            weights.append(WeightPair(named(weight.name), where.tensor, weight))
        elif not (is_output_head(weight.name) and base_facts.get("tie_word_embeddings") is True):
            lost.append(weight.name)
    _check_architecture(weights, lost, base, tuned)
    return WeightPairs(tuple(weights), tuple(lost))


def _renaming(tuned: HfCheckpoint) -> Callable[[str], str]:
    """A function from names on disk to names in memory: vision-language models are saved as before
    transformers 4.52.
    """
    is_older = any(name.startswith("language_model.model.") for name in tuned.tensors)
    return _in_memory if is_older else lambda name: name


def _in_memory(name: str) -> str:
    for memory, disk in SPELLINGS:
        if name.startswith(disk) and not name.startswith(memory):
            return memory + name.removeprefix(disk)
    return name


def _check_architecture(
    weights: list[WeightPair], lost: list[str], base: HfCheckpoint, tuned: HfCheckpoint
) -> None:
    """Raises `CheckFailed` if the number of layers differs. A missing or additional head is allowed."""
    added = [weight.name for weight in weights if weight.base is None]
    for names, where, other in ((added, tuned, base), (lost, base, tuned)):
        inside = [name for name in names if layer_of(name) is not None]
        if inside or len(names) * 2 > len(weights):
            raise CheckFailed(
                f"{format_count(len(names), 'weight')} of {where.folder}"
                f" {verb_form(len(names), 'is', 'are')} not in {other.folder} (first:"
                f" {(inside or names)[0]}): they have different architectures;"
                " is this the base it was trained from?"
            )


def _shapes(checkpoint: HfCheckpoint) -> dict[str, TensorShape]:
    return {
        name: TensorShape(dtype=info.dtype, shape=info.shape) for name, info in checkpoint.tensors.items()
    }
