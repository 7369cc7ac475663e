"""Layer replication: the tensor names of a deeper model whose layers are copies of a base's.

An adapter trained on such a model (`layer_replication`) uses its layer numbers. This module maps a base's
names to those of the deeper model: a tensor of a layer appears once under each of the layer's new numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.core.errors import InvalidConfig, Unsupported
from adaptry.core.lazy_dataclass import dataclass

_LAYER = re.compile(r"(?P<stem>(?:.+\.)?(?:layers|layer|h))\.(?P<number>\d+)\.(?P<rest>.+)")
_FOUND_BY_PEFT = re.compile(r"(?:model\.)*(?:bert\.)?(?:layers|encoder\.layer|h)")
"""The stacks that PEFT 0.21 replicates (`replicate_layers`): Llama's, BERT's and the bare Falcon's."""
_MAX_LAYERS = 4096


def replicated_layers(config: AdapterConfig) -> tuple[int, ...]:
    """The base's layer at each position; empty if no layers are replicated. Raises `InvalidConfig` if a range
    is malformed.
    """
    ranges = config.fields.get("layer_replication") or []
    layers: list[int] = []
    for pair in ranges if isinstance(ranges, list) else [ranges]:
        is_range = isinstance(pair, list) and len(pair) == 2 and all(type(bound) is int for bound in pair)
        if not is_range or not 0 <= pair[0] < pair[1] or len(layers) + pair[1] - pair[0] > _MAX_LAYERS:
            raise InvalidConfig(
                "adapter_config.json: layer_replication must be ranges [first, end] of layers, not"
                f" {str(pair)[:40]!r}"
            )
        layers.extend(range(*pair))
    return tuple(layers)


def unknown_stack(paths: Iterable[str], tensors: Iterable[str]) -> str | None:
    """The first stack of layers that contains modules at `paths` and that PEFT does not find in a model, if
    any; PEFT then raises a ValueError. If no module is inside a layer, the stacks are those of the base's
    `tensors`.
    """
    stacks = _stacks(paths) or _stacks(tensors)
    return _unknown(stacks) if stacks else "this base"


def _stacks(paths: Iterable[str]) -> list[str]:
    return [match["stem"] for path in paths if (match := _LAYER.fullmatch(path))]


def _unknown(stacks: Iterable[str]) -> str | None:
    return next((stack for stack in stacks if not _FOUND_BY_PEFT.fullmatch(stack)), None)


class LayersBeyondBase(Unsupported):
    """The config replicates layers that the base does not have; PEFT raises an IndexError."""


@dataclass(frozen=True, slots=True)
class DeeperNames:
    """The deeper model's tensors: `source` maps them to the base's names; `depth` is that of the base."""

    source: Mapping[str, str]
    depth: int


def deeper_names(names: Iterable[str], layers: Sequence[int]) -> DeeperNames:
    """The tensors of the model with these layers of the base. Raises `Unsupported` if the base does not have
    exactly one stack of layers, and `LayersBeyondBase` if it has too few. The message continues a sentence
    that begins with the adapter's name.
    """
    names = list(names)
    found = {name: match for name in names if (match := _LAYER.fullmatch(name))}
    depth = 1 + max((int(match["number"]) for match in found.values()), default=-1)
    stacks = len({match["stem"] for match in found.values()})
    if stacks != 1:
        raise Unsupported(
            f"replicates the layers of a model with one stack of layers, but the base has {stacks} stacks"
        )
    if max(layers) >= depth:
        raise LayersBeyondBase(
            f"replicates layers up to {max(layers)}, but the base has {depth} (0 to {depth - 1})"
        )
    places: dict[int, list[int]] = {}
    for place, layer in enumerate(layers):
        places.setdefault(layer, []).append(place)
    source: dict[str, str] = {}
    for name in names:
        match = found.get(name)
        if match is None:
            source[name] = name
            continue
        for place in places.get(int(match["number"]), []):
            source[f"{match['stem']}.{place}.{match['rest']}"] = name
    return DeeperNames(source, depth)


def deeper_record(base: BaseRecord, layers: Sequence[int]) -> BaseRecord:
    """A record of the model with these layers of the base, for looking up names and shapes, and never stored.

    Raises the errors of `deeper_names`.
    """
    names = deeper_names(base.tensors, layers)
    tensors = {name: base.tensors[source] for name, source in names.source.items()}
    return base.model_copy(
        update={"tensors": tensors, "facts": _deeper_facts(base.facts, names.depth, len(layers))}
    )


def _deeper_facts(facts: Mapping[str, Any], depth: int, layers: int) -> dict[str, Any]:
    """(`Any`: facts are JSON.)"""
    changed = dict(facts)
    if facts.get("layers") == depth:
        changed["layers"] = layers
    if isinstance(text := facts.get("text_config"), dict):
        changed["text_config"] = _deeper_facts(text, depth, layers)
    return changed
