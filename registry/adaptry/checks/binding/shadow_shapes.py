"""Tensors of a Shadow adapter's second model that PEFT refuses, since it builds that model like the base."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.checks.binding.loaded_model import LoadedModel
from adaptry.checks.finding_text import shorten_names

_SIZES = ("shadow_hidden_size", "shadow_intermediate_size")
_ROLE = "backbone."


def unlike_base_layers(model: LoadedModel) -> Iterator[str]:
    """The reason for the first tensor whose shape differs from that of the base's weight with its name. Empty
    if the config gives the second model other sizes than the base's.
    """
    adapter = model.adapter
    is_mirror = adapter.config.fields.get("shadow_model", "mirror") == "mirror"
    if not is_mirror or any(adapter.config.fields.get(size) is not None for size in _SIZES):
        return
    for role, name in adapter.spec.shared.items():
        weight = model.known.find(role.removeprefix(_ROLE)).tensor
        found = adapter.tensors[name].shape
        if role.startswith(_ROLE) and weight is not None and weight.shape != found:
            yield (
                f"{shorten_names([name])} is {list(found)}, but PEFT makes its model like the base, in which"
                f" it is {list(weight.shape)}"
            )
            return
