"""Binds an adapter to a base: determines how PEFT applies its files to the model that transformers loads.

PEFT first adapts the modules that the config selects, and then loads the file's tensors into that model by
name (`load_state_dict` without `strict`). It silently drops a tensor whose name the model does not have.
`bind` follows these two steps on headers alone. Names in other tools' files are looked up tolerantly, since
PEFT never reads those files.
"""

from __future__ import annotations

from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS, prompts
from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.methods.lora_config import lora_variant
from adaptry.adapters.spec import Spec
from adaptry.bases.layer_replication import (
    LayersBeyondBase,
    deeper_record,
    replicated_layers,
    unknown_stack,
)
from adaptry.bases.module_map import ModuleMap, place
from adaptry.bases.parameter_lookup import ParameterNames
from adaptry.checks.binding.bound_adapter import BoundAdapter
from adaptry.checks.binding.expert_factors import modules_as_parameters, with_parameter_scales
from adaptry.checks.binding.initial_values import changes_untrained_modules, precision_loss
from adaptry.checks.binding.loaded_model import bare_path, load_model
from adaptry.checks.binding.loaded_parts import loaded_parts
from adaptry.checks.binding.parameter_targets import unknown_parameters
from adaptry.checks.binding.refusals import refusals, uncovered_modules
from adaptry.checks.binding.saved_modules import saved_in_prompt
from adaptry.checks.binding.target_details import with_target_details
from adaptry.core.errors import InvalidConfig, Unsupported

_REPLICATION = "layer_replication"


def bind(adapter: Adapter, base: BaseRecord) -> BoundAdapter:
    """Binds `adapter` to `base`, or to the deeper model that its `layer_replication` makes of it.

    Raises `InvalidConfig` only if the config contradicts itself so that no spec can be derived, and
    `Unavailable` if patterns could not be matched now.
    """
    layers: tuple[int, ...] = ()
    if _REPLICATION in adapter.spec.traits:
        layers = replicated_layers(adapter.config)
        paths = [bare_path(module.path) for module in adapter.spec.modules]
        if (stack := unknown_stack(paths, base.tensors)) is not None:
            reason = f"layer_replication is set, but PEFT does not replicate the layers in {stack}"
            return BoundAdapter(adapter, base, ModuleMap(), ModuleMap(), refusals=(reason,))
        try:
            base = deeper_record(base, layers)
        except LayersBeyondBase as error:
            return BoundAdapter(adapter, base, ModuleMap(), ModuleMap(), refusals=(f"it {error.message}",))
        except Unsupported as error:
            return BoundAdapter(adapter, base, ModuleMap(), ModuleMap(), unbound=error.message)
    is_loaded_by_name = _is_loaded_by_name(adapter, base)
    is_lora = adapter.spec.method == "lora" and adapter.format is PEFT
    variant = lora_variant(adapter.config) if is_lora else None
    found = place(
        _without_replication(adapter.spec),
        base.tensors,
        base.facts,
        fan_in_fan_out=adapter.config.flag("fan_in_fan_out"),
    )
    intended = with_target_details(found, adapter, base, variant)
    tolerant = BoundAdapter(adapter, base, intended, intended, variant=variant, layers=layers)
    if not is_loaded_by_name:
        return replace(tolerant, refusals=_refusals_of_prompt(adapter, base))
    try:
        model = load_model(adapter, base)
        as_parameters = modules_as_parameters(model) if model.experts is not None else frozenset()
        intended = with_parameter_scales(model, intended) if as_parameters else intended
        parts = loaded_parts(model, intended)
        # A quantised base stores other parameters in place of those in memory.
        has_known_parameters = bool(model.targets.parameters) and not base.facts.get("quantization")
        uncovered = tuple(uncovered_modules(model, intended))
        return replace(
            tolerant,
            module_map=parts.module_map,
            intended=intended,
            as_parameters=as_parameters,
            dropped=parts.dropped,
            unlisted=parts.unlisted,
            uncovered=uncovered,
            refusals=tuple(refusals(model, parts.module_map, uncovered)),
            unknown_parameters=unknown_parameters(model) if has_known_parameters else (),
            fills_in=changes_untrained_modules(adapter.config, adapter.spec.method),
            precision_loss=precision_loss(adapter, base, parts.module_map),
            chosen_class=model.chosen_class,
        )
    except InvalidConfig:  # a refused pattern has its own finding; the modules that it selects are unknown
        return tolerant


def _without_replication(spec: Spec) -> Spec:
    """The spec on the deeper model, which has the layers that the spec's modules name."""
    traits = tuple(trait for trait in spec.traits if trait != _REPLICATION)
    return spec if traits == spec.traits else spec.model_copy(update={"traits": traits})


def _refusals_of_prompt(adapter: Adapter, base: BaseRecord) -> tuple[str, ...]:
    """Why PEFT refuses a soft prompt because of the modules that it saves whole."""
    method = METHODS.get(adapter.spec.method)
    if method is None or method.prefix != prompts.PREFIX or not adapter.config.saved_modules:
        return ()
    if adapter.format is not PEFT or ParameterNames(base.tensors, base.facts).is_converted:
        return ()
    return tuple(saved_in_prompt(load_model(adapter, base)))


def _is_loaded_by_name(adapter: Adapter, base: BaseRecord) -> bool:
    """Whether PEFT reads the file, and the names in the model are known."""
    method = METHODS.get(adapter.spec.method)
    if adapter.format is not PEFT or method is None or method.prefix != PREFIX:
        return False
    return method.names_modules(adapter.config) and not ParameterNames(base.tensors, base.facts).is_converted
