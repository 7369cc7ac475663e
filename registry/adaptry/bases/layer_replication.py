"""Layer replication: the names of a deeper model whose layers are copies of a base's.

An adapter trained on such a model (`layer_replication`) names its layers. Here a base's names are read as
that model's: a tensor of a layer is there once under each of the layer's new numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.core.errors import InvalidConfig, Unsupported

_LAYER = re.compile(r"(?P<stem>(?:.+\.)?(?:layers|layer|h))\.(?P<number>\d+)\.(?P<rest>.+)")
_MOST = 4096


def replicated_layers(config: AdapterConfig) -> tuple[int, ...]:
    """Which layer of the base stands at each place; none where nothing is replicated. Raises `InvalidConfig`
    if a range is none.
    """
    ranges = config.fields.get("layer_replication") or []
    layers: list[int] = []
    for pair in ranges if isinstance(ranges, list) else [ranges]:
        is_range = isinstance(pair, list) and len(pair) == 2 and all(type(bound) is int for bound in pair)
        if not is_range or not 0 <= pair[0] < pair[1] or len(layers) + pair[1] - pair[0] > _MOST:
            raise InvalidConfig(
                "adapter_config.json: layer_replication holds ranges [first, end] of layers, not"
                f" {str(pair)[:40]!r}"
            )
        layers.extend(range(*pair))
    return tuple(layers)


class LayersBeyondBase(Unsupported):
    """Layers are replicated that the base does not have; PEFT raises an IndexError."""


@dataclass(frozen=True, slots=True)
class DeeperNames:
    """The deeper model's tensors: `source` has the base's name of each; `depth` is the base's own."""

    source: Mapping[str, str]
    depth: int


def deeper_names(names: Iterable[str], layers: Sequence[int]) -> DeeperNames:
    """The tensors of the model with these layers of the base. Raises `Unsupported` where the base has no one
    stack of layers, `LayersBeyondBase` where it has too few; the message continues the adapter's name.
    """
    names = list(names)
    found = {name: match for name in names if (match := _LAYER.fullmatch(name))}
    depth = 1 + max((int(match["number"]) for match in found.values()), default=-1)
    stacks = len({match["stem"] for match in found.values()})
    if stacks != 1:
        raise Unsupported(
            f"replicates the layers of a model with one stack of them, and the base has {stacks} stacks"
        )
    if max(layers) >= depth:
        raise LayersBeyondBase(
            f"replicates layers up to {max(layers)}, and the base has {depth} (0 to {depth - 1})"
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
    """The base as the model with these of its layers, to look names and shapes up in: no record to store.

    Raises as `deeper_names`.
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
