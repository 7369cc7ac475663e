"""Why PEFT refuses an adapter because of the modules that it saves whole (`modules_to_save`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.key_layout import SPELLINGS
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.extras import PREFIX
from adaptry.bases.model_names import ModelNames
from adaptry.checks.binding.loaded_model import LoadedModel
from adaptry.checks.binding.targets import is_embedding
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.checks.inner_modules import base_layers_without_tensors

_LISTS = (
    *("albert_layer_groups", "attentions", "auxiliary_layers", "biases", "block", "blocks", "bottlenecks"),
    *("conformer", "conv_layers", "convs", "decoder_layers", "deepstack_merger_list", "encoder_layers"),
    *("ffns", "fpn_layers", "h", "layer", "layer_norm1", "layer_norm2", "layers", "merger_list", "mixers"),
    *("network", "norms", "output_hypernetworks_mlps", "point_embed", "r_layers", "self_attends"),
    *("spatial_layers", "stages", "temporal_layers", "x_layers"),
)
"""The names of the lists of modules (`ModuleList`) in the models of transformers 5.24, outside of layers."""
_SEQUENCES = {"blocks": ("flava", "flava_image_codebook", "mgp-str")}
"""The types of models in which such a name is that of a `Sequential`, which PEFT saves."""


def saved_module_refusals(model: LoadedModel, adapted: Iterable[str]) -> Iterator[str]:
    """A sentence for each reason, without a full stop. `adapted` are the paths of PEFT's layers."""
    adapter, names = model.adapter, model.names
    if (inner := _saved_twice(adapter.config, names)) is not None:
        (path,) = fold_layer_numbers([inner])
        yield f"{_source(adapter.config)}, which selects {path} and a module around it"
    if (stack := _saved_list(adapter.config, names, model.model_type)) is not None:
        yield f"{_source(adapter.config)}, which selects {stack}, a list that PEFT cannot save whole"
    yield from _without_tensors(adapter, names)
    lost = base_layers_without_tensors(
        adapter.config.saved_modules, adapted, names.parameters, adapter.tensors
    )
    if first := sorted(lost):
        yield f"{_source(adapter.config)}, but the file lacks {shorten_names(fold_layer_numbers(first))}"
    if model.is_input_among_tied and adapter.config.ties_saved:
        yield (
            "ensure_weight_tying is set, but PEFT counts this model's input embedding among those that are"
            " tied to it, and then does not save it"
        )
    copies = [path for name in names.tied if is_embedding(path := name.removesuffix(".weight"))]
    if copies and not model.is_input_among_tied and adapter.config.ties_saved:
        yield (
            f"ensure_weight_tying is set, but PEFT puts a linear layer in the place of {copies[0]}, with"
            " which the model raises an error"
        )


def saved_in_prompt(model: LoadedModel) -> Iterator[str]:
    """The reason for a soft prompt, whose files have another prefix."""
    yield from _without_tensors(model.adapter, model.names, METHODS[model.adapter.spec.method].prefix)


def _source(config: AdapterConfig) -> str:
    modules = shorten_names(config.saved_modules)
    is_listed = bool(config.names("modules_to_save"))
    return (
        f"modules_to_save lists {modules}" if is_listed else f"for its task_type, PEFT saves {modules} whole"
    )


def _saved_twice(config: AdapterConfig, names: ModelNames) -> str | None:
    """The first module that PEFT would wrap although it is inside one that it wraps already. The names in
    `saved_modules` are ends of names: `embeddings` also selects `embeddings.word_embeddings`.
    """
    ends = config.saved_modules
    selected = {path for path in names.modules if path.endswith(ends)}
    return next((path for path in sorted(selected) if not selected.isdisjoint(_around(path))), None)


def _saved_list(config: AdapterConfig, names: ModelNames, model_type: str) -> str | None:
    """The first list of layers that PEFT would wrap: it raises a TypeError. Those of a part of a model, such
    as `stages.0.layers`, may be a `Sequential`, which PEFT saves.
    """
    ends = config.saved_modules
    selected = (path for path in names.modules if path.endswith(ends) and path.endswith(_LISTS))
    return min((path for path in selected if _is_list(path, names, model_type)), default=None)


def _is_list(path: str, names: ModelNames, model_type: str) -> bool:
    *around, name = path.split(".")
    is_inside = any(map(str.isdecimal, around)) or model_type in _SEQUENCES.get(name, ())
    return name in _LISTS and not is_inside and f"{path}.0" in names.modules


def _around(path: str) -> Iterator[str]:
    """The modules that contain `path`."""
    while path := path.rpartition(".")[0]:
        yield path


def _without_tensors(adapter: Adapter, names: ModelNames, prefix: str = PREFIX) -> Iterator[str]:
    """Parameters of saved modules that the file lacks: PEFT reads all parameters of such modules, and fails
    if one is missing.
    """
    lost = sorted(
        parameter
        for parameter in (*names.parameters, *names.tied)
        if adapter.config.is_saved(parameter.rpartition(".")[0])
        and not any(
            f"{prefix}{name}" in adapter.tensors for name in (parameter, *_spelled_otherwise(parameter))
        )
    )
    if lost:
        yield f"{_source(adapter.config)}, but the file lacks {shorten_names(fold_layer_numbers(lost))}"


def _spelled_otherwise(parameter: str) -> Iterator[str]:
    """The names of the same parameter in other versions of transformers; the model has one of them."""
    return (new + parameter.removeprefix(old) for new, old in SPELLINGS if parameter.startswith(old))
