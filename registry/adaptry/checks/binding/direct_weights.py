"""Modules whose weights the model's code reads itself, without calling the module.

PEFT's layers change what a module returns when it is called. In some Mamba models PEFT refuses a few of these
modules. Others it adapts, and the adapted model answers as if it had not; only a merge changes the weight.
"""

from __future__ import annotations

from collections.abc import Iterable

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


def refused_module(method: str, model_type: str, selected: Iterable[str]) -> str | None:
    """Why PEFT refuses a module at one of these paths, which the config selects, if it does."""
    if method not in _REFUSING_METHODS or model_type not in _REFUSING_MODELS:
        return None
    path = next((path for path in selected if path.rpartition(".")[2] in _REFUSED), None)
    if path is None:
        return None
    (name,) = fold_layer_numbers([path])
    return f"the config selects {name}, which PEFT does not adapt in models of type {model_type}"


def bypassed_modules(model_type: str, is_quantised: bool, adapted: Iterable[str]) -> tuple[str, ...]:
    """The paths of these adapted modules that the model never calls."""
    if is_quantised and model_type in _CALLED_IF_QUANTISED:
        return ()
    name = _READ_DIRECTLY.get(model_type)
    return tuple(path for path in adapted if path.rpartition(".")[2] == name)
