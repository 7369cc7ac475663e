"""An adapter bound to a base: what PEFT, on the model that transformers loads, would make of its files.

PEFT changes the modules that its config selects, and then loads the file's tensors into that model by name
(`load_state_dict` without `strict`): a tensor whose name the model does not have is dropped without a word.
`bind` follows those two steps on headers alone. Files of other tools are looked up tolerantly, since PEFT
never reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.extras import PREFIX
from adaptry.bases.module_map import ExtraTarget, ModuleMap, TargetTensor, place
from adaptry.bases.parameter_lookup import ParameterNames
from adaptry.checks.binding.bound_adapter import BoundAdapter, Dropped
from adaptry.checks.binding.initial_values import starts_changed
from adaptry.checks.binding.loaded_model import LoadedModel, bare_path, load_model
from adaptry.checks.binding.modules import dropped_module
from adaptry.checks.binding.refusals import refusals
from adaptry.checks.binding.whole_weights import (
    dropped_weight,
    is_unlisted,
    unknown_tensors,
    unlisted_weights,
)
from adaptry.core.errors import InvalidConfig

_ADAPTED = {"ln_tuning": ("weight", 1), "beft": ("bias", 1)}
"""What a method adapts, where that is not any weight of two dimensions or more."""


def bind(adapter: Adapter, base: BaseRecord, *, layers_repeated: bool = False) -> BoundAdapter:
    """What `adapter` is on `base`. `layers_repeated`: the base has the layers of its `layer_replication`.

    Raises `InvalidConfig` only where the config contradicts itself so that no spec can be derived, and
    `Unavailable` where patterns could not be matched now.
    """
    spec = adapter.spec
    if layers_repeated:
        spec = spec.model_copy(
            update={"traits": tuple(trait for trait in spec.traits if trait != "layer_replication")}
        )
    module_map = place(spec, base.tensors, base.facts)
    method = METHODS.get(spec.method)
    if adapter.format is not PEFT or method is None or method.prefix != PREFIX:
        return BoundAdapter(adapter, module_map)
    if not method.names_modules(adapter.config):
        return BoundAdapter(adapter, module_map)
    if "layer_replication" in spec.traits or ParameterNames(base.tensors, base.facts).is_converted:
        return BoundAdapter(adapter, module_map)
    try:
        return _bound(load_model(adapter, base), module_map)
    except InvalidConfig:  # a refused pattern: reported by its own finding, and what it selects is not known
        return BoundAdapter(adapter, module_map)


def _bound(model: LoadedModel, module_map: ModuleMap) -> BoundAdapter:
    dropped: list[Dropped] = []
    placed: list[TargetTensor] = []
    gone: dict[str, Dropped] = {}
    for target in module_map.placed:
        path = target.module.path
        if path not in gone and (lost := dropped_module(model, target)) is not None:
            gone[path] = lost
            dropped.append(lost)
        if path not in gone:
            placed.append(target)
    extras: list[ExtraTarget] = []
    for extra in module_map.extras:
        if (why := dropped_weight(model, extra)) is not None:
            dropped.append(why)
        else:
            extras.append(extra)
    unlisted = tuple(unlisted_weights(model))
    dropped += unknown_tensors(model, unlisted)
    bound = replace(module_map, placed=tuple(placed), extras=(*extras, *unlisted))
    return BoundAdapter(
        model.adapter,
        bound,
        tuple(dropped),
        tuple(refusals(model.adapter, model.names, model.targets, bound)),
        (*(extra for extra in extras if is_unlisted(model, extra)), *unlisted),
        tuple(_uncovered(model, module_map)),
        starts_changed(model.adapter.config, model.adapter.spec.method),
    )


def _uncovered(model: LoadedModel, module_map: ModuleMap) -> Iterator[str]:
    """Modules that PEFT adapts and for which the file has no tensor, in the model's order."""
    spec = model.adapter.spec
    if not module_map.placed or model.targets.is_free:
        return
    held = {bare_path(module.path) for module in spec.modules}
    held |= {extra.target.rpartition(".")[0] for extra in spec.extras}
    parameter, dimensions = _ADAPTED.get(spec.method, ("weight", 2))
    for path in model.names.holders_of(parameter, dimensions):
        if path not in held and model.why_not(path) is None:
            yield path
