"""Layer replication: a deeper model whose layers are copies of the base's, each with its own update.

An adapter trained like this uses the layer numbers of the deeper model. Here the base is read as that model:
the tensors of a layer appear once under each of its new numbers, so every copy is merged separately. (In PEFT
copies share their storage, so its merge adds all their updates to each copy.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.layer_replication import deeper_names
from adaptry.checks.binding import BoundAdapter
from adaptry.core.errors import CheckFailed, Unsupported


def replicate_layers(checkpoint: HfCheckpoint, inputs: Sequence[tuple[str, BoundAdapter]]) -> HfCheckpoint:
    """The deeper model on which the adapters (label, bound to the base) were trained.

    Raises `CheckFailed` if they declare different models, and `Unsupported` if the base does not have exactly
    one stack of layers.
    """
    for label, bound in inputs:
        if bound.unbound is not None:
            raise Unsupported(f"{label} {bound.unbound} ({checkpoint.folder}); serve it with PEFT")
    found = {bound.layers for _, bound in inputs}
    if len(found) > 1:
        labels = ", ".join(label for label, _ in inputs)
        raise CheckFailed(
            f"{labels} were trained on models of different depth (layer_replication): merge each separately"
        )
    (layers,) = found
    names = deeper_names(checkpoint.tensors, layers)
    tensors = {name: checkpoint.tensors[source] for name, source in names.source.items()}
    shard_of = {name: checkpoint.shard_of[source] for name, source in names.source.items()}
    config = _deeper(checkpoint.config, names.depth, layers)
    return replace(checkpoint, config=config, tensors=tensors, shard_of=shard_of)


def _deeper(config: Mapping[str, Any], depth: int, layers: tuple[int, ...]) -> dict[str, Any]:
    """The config with the new number of layers, and lists per layer adjusted. (`Any`: the model's fields.)"""
    changed = dict(config)
    for key, value in config.items():
        if key in ("num_hidden_layers", "n_layer") and value == depth:
            changed[key] = len(layers)
        elif "layer" in key and isinstance(value, list) and len(value) == depth:
            changed[key] = [value[layer] for layer in layers]
        elif key == "text_config" and isinstance(value, dict):
            changed[key] = _deeper(value, depth, layers)
    return changed
