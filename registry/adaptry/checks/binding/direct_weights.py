"""Modules whose weights the model's code reads itself, without calling the module.

PEFT's layers change what a module returns when it is called. In some Mamba models PEFT refuses a few of these
modules. Others it adapts, and the adapted model answers as if it had not; only a merge changes the weight.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.module_map import ModuleMap
from adaptry.checks.binding.loaded_model import LoadedModel
from adaptry.checks.finding_text import fold_layer_numbers

_REFUSED = frozenset(["out_proj", "conv1d"])
_REFUSING_METHODS = frozenset(["lora", "adalora", "randlora"])
_REFUSING_MODELS = frozenset(["falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"])
"""The modules, methods and models of PEFT 0.21's `_check_lora_target_modules_mamba`."""

_READ_DIRECTLY = {
    "falcon_mamba": "dt_proj",
    "jamba": "dt_proj",
    "mamba": "dt_proj",
    "prophetnet": "ngram_embeddings",
}
"""Modules by type of model, as in transformers 5.24."""
_CALLED_IF_QUANTISED = frozenset(["falcon_mamba", "jamba"])


def is_called(path: str, model_type: str) -> bool:
    """Whether a LoRA of the module at `path` changes the answers of such a model in PEFT."""
    name = path.rpartition(".")[2]
    is_refused = model_type in _REFUSING_MODELS and name in _REFUSED
    return not is_refused and _READ_DIRECTLY.get(model_type) != name


def refused_modules(model: LoadedModel) -> Iterator[str]:
    """Why PEFT refuses a module that the config selects, if it does."""
    if model.adapter.spec.method not in _REFUSING_METHODS or model.model_type not in _REFUSING_MODELS:
        return
    for path in model.names.holders_of("weight", 2):
        is_selected = model.reason_not_adapted(path) is None or model.targets.includes_parameter(
            f"{path}.weight"
        )
        if path.rpartition(".")[2] in _REFUSED and is_selected:
            (name,) = fold_layer_numbers([path])
            yield f"the config selects {name}, which PEFT does not adapt in models of type {model.model_type}"
            return


def bypassed_modules(base: BaseRecord, module_map: ModuleMap) -> tuple[str, ...]:
    """The paths of adapted modules that the model never calls."""
    model_type = str(base.facts.get("model_type") or "")
    if model_type in _CALLED_IF_QUANTISED and base.facts.get("quantization"):
        return ()
    name = _READ_DIRECTLY.get(model_type)
    return tuple(
        target.module.path for target in module_map.placed if target.module.path.rpartition(".")[2] == name
    )
