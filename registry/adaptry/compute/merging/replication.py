"""Layer replication: a deeper model whose layers are copies of the base's, each with its own update.

An adapter trained so names the layers of the deeper model. Here the base is read as that model: the tensors
of a layer appear once under each of its new numbers, so that every copy is merged by itself. (PEFT lets
copies share their storage, and its merge adds all their updates to each.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from adaptry.adapters.config import AdapterConfig
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.layer_replication import deeper_names, replicated_layers
from adaptry.core.errors import CheckFailed, Unsupported


def replicate_layers(checkpoint: HfCheckpoint, configs: Iterable[tuple[str, AdapterConfig]]) -> HfCheckpoint:
    """The base as the adapters (label, config) were trained on: itself, or the deeper model they all name.

    Raises `CheckFailed` where they name different ones, `Unsupported` where the base has no one stack of
    layers.
    """
    wanted = {label: replicated_layers(config) for label, config in configs}
    maps = set(wanted.values())
    if maps <= {()}:
        return checkpoint
    if len(maps) > 1:
        raise CheckFailed(
            f"{', '.join(wanted)} were trained on models of different depth (layer_replication): merge each"
            " into a result of its own"
        )
    label, layers = next(iter(wanted.items()))
    try:
        names = deeper_names(checkpoint.tensors, layers)
    except Unsupported as error:
        raise Unsupported(f"{label} {error.message} ({checkpoint.folder}); serve it with PEFT") from None
    tensors = {name: checkpoint.tensors[source] for name, source in names.source.items()}
    shard_of = {name: checkpoint.shard_of[source] for name, source in names.source.items()}
    config = _deeper(checkpoint.config, names.depth, layers)
    return replace(checkpoint, config=config, tensors=tensors, shard_of=shard_of)


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
