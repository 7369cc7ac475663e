"""Initialisations that PEFT cannot compute for a kind of layer. PEFT computes the initialisation whenever it
loads an adapter, before it reads the file; here it raises an error.

Observed in PEFT 0.21: `update_layer` of the classes in `tuners/lora/layer.py`. CorDA needs covariances of
activations, which exist only during the run that prepared them.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.methods.lora_config import lora_variant
from adaptry.bases.module_map import ModuleMap, TargetTensor
from adaptry.checks.binding.expert_factors import modules_as_parameters, transformers5_path
from adaptry.checks.binding.loaded_model import LoadedModel, bare_path

_OF_WEIGHTS = ("pissa", "corda", "olora", "mica", "orthogonal", "lora_ga")
"""The beginnings of initialisations for which PEFT reads or replaces the layer's `weight`."""


def refused_starts(model: LoadedModel, module_map: ModuleMap) -> Iterator[str]:
    """A sentence for the first module whose kind PEFT cannot initialise as `init_lora_weights` says."""
    config = model.adapter.config
    if config.peft_type != "LORA":
        return  # AdaLoRA has its own initialisations
    start = lora_variant(config).initialisation
    if not start.startswith((*_OF_WEIGHTS, "eva")):
        return
    as_parameters = modules_as_parameters(model)
    for target in module_map.placed:
        is_parameter = target.module.kind == "parameter" or target.module.path in as_parameters
        if (why := _reason(start, target, model, is_parameter=is_parameter)) is not None:
            yield f"init_lora_weights is {start!a}, {why} ({bare_path(target.module.path)})"
            return


def _reason(start: str, target: TargetTensor, model: LoadedModel, *, is_parameter: bool) -> str | None:
    if is_parameter:
        path = transformers5_path(bare_path(target.module.path))
        is_weight = f"{path}.weight" in model.names.parameters
        if start == "eva" or (is_weight and not start.startswith(("corda", "mica"))):
            return None
        return "which PEFT cannot compute for parameters"
    match target.orientation:
        case "embedding":
            return None
        case _ if start.startswith("pissa") and target.module.scale <= 0:
            return f"but its scale is {target.module.scale:g} (alpha_pattern), whose square root is NaN"
        case "conv" if start != "lora_ga":
            return "which PEFT does not know for convolutions"
        case "attention" if start != "eva":
            return "which PEFT cannot compute for an attention's joint weight"
        case _ if start.startswith("corda"):
            return "which PEFT computes from covariances that only the run that prepared them has"
        case "conv1d" if start == "olora" and len(set(target.weight.shape)) > 1:
            return "for which PEFT makes factors of other shapes of a transposed matrix"
    return None
