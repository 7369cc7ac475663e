"""Layer replication: a deeper model whose layers are copies of the base's, each with its own update.

An adapter trained so names the layers of the deeper model. Here the base is read as that model: the tensors
of a layer appear once under each of its new numbers, so that every copy is merged by itself. (PEFT lets
copies share their storage, and its merge adds all their updates to each.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.core.errors import CheckFailed, InvalidConfig, Unsupported

_LAYER = re.compile(r"(?P<stem>(?:.+\.)?(?:layers|layer|h))\.(?P<number>\d+)\.(?P<rest>.+)")
_MOST = 4096


def replicate_layers(checkpoint: HfCheckpoint, configs: Iterable[tuple[str, AdapterConfig]]) -> HfCheckpoint:
    """The base as the adapters (label, config) were trained on: itself, or the deeper model they all name.

    Raises `CheckFailed` where they name different ones, `Unsupported` where the base has no one stack of
    layers.
    """
    wanted = {label: _layers(config) for label, config in configs}
    maps = set(wanted.values())
    if maps <= {()}:
        return checkpoint
    if len(maps) > 1:
        raise CheckFailed(
            f"{', '.join(wanted)} were trained on models of different depth (layer_replication): merge each"
            " into a result of its own"
        )
    label, layers = next(iter(wanted.items()))
    found = {name: match for name in checkpoint.tensors if (match := _LAYER.fullmatch(name))}
    depth = 1 + max((int(match["number"]) for match in found.values()), default=-1)
    if len({match["stem"] for match in found.values()}) != 1 or max(layers) >= depth:
        raise Unsupported(
            f"{label} replicates layers up to {max(layers)} of a model with one stack of them, and"
            f" {checkpoint.folder} has {depth} in {len({match['stem'] for match in found.values()})} stacks;"
            " serve it with PEFT"
        )
    places: dict[int, list[int]] = {}
    for place, layer in enumerate(layers):
        places.setdefault(layer, []).append(place)
    tensors: dict[str, TensorInfo] = {}
    shard_of: dict[str, str] = {}
    for name, info in checkpoint.tensors.items():
        match = found.get(name)
        names = [name]
        if match:
            copies = places.get(int(match["number"]), [])
            names = [f"{match['stem']}.{place}.{match['rest']}" for place in copies]
        for copy in names:
            tensors[copy], shard_of[copy] = info, checkpoint.shard_of[name]
    config = _deeper(checkpoint.config, depth, layers)
    return replace(checkpoint, config=config, tensors=tensors, shard_of=shard_of)


def _layers(config: AdapterConfig) -> tuple[int, ...]:
    """Which layer of the base stands at each place; none where nothing is replicated."""
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


def _deeper(config: Mapping[str, Any], depth: int, layers: tuple[int, ...]) -> dict[str, Any]:
    """(`Any`: the fields are the model's own.) The number of layers, and what is listed for each of them."""
    changed = dict(config)
    for key, value in config.items():
        if key in ("num_hidden_layers", "n_layer") and value == depth:
            changed[key] = len(layers)
        elif "layer" in key and isinstance(value, list) and len(value) == depth:
            changed[key] = [value[layer] for layer in layers]
        elif key == "text_config" and isinstance(value, dict):
            changed[key] = _deeper(value, depth, layers)
    return changed
