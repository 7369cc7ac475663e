"""Parameters in a LoRA's `target_parameters` that the model lacks or that PEFT cannot adapt."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.plain_patterns import dotted_suffixes
from adaptry.checks.binding.loaded_model import LoadedModel
from adaptry.checks.finding_text import fold_layer_numbers, format_count


def unknown_parameters(model: LoadedModel) -> tuple[str, ...]:
    """The items of a LoRA's `target_parameters` that are not parameters of the model. PEFT only warns if it
    finds none of them, and if the config also selects modules.
    """
    listed = model.adapter.config.names("target_parameters")
    if model.adapter.spec.method != "lora" or not listed:
        return ()
    ends = {end for name in (*model.names.parameters, *model.names.tied) for end in dotted_suffixes(name)}
    return tuple(name for name in listed if name not in ends)


def parameters_of_other_dimensions(model: LoadedModel) -> Iterator[str]:
    """Targeted parameters that PEFT cannot adapt: it adapts those with two or three dimensions."""
    for name, shape in model.names.parameters.items():
        if shape and len(shape) not in (2, 3) and model.targets.includes_parameter(name):
            dimensions = format_count(len(shape), "dimension")
            yield f"target_parameters selects {name}, which has {dimensions}, not 2 or 3"
            return


def refused_beside_parameters(model: LoadedModel) -> Iterator[str]:
    """Fields of a LoRA's config with which PEFT's layer for a parameter raises an error (`ParamWrapper` in
    `tuners/lora/layer.py`). PEFT also adapts fused experts as parameters if `target_modules` selects them by
    their old names.
    """
    adapted = next(filter(model.targets.includes_parameter, model.names.parameters), None)
    if adapted is None:
        return
    config, (name,) = model.adapter.config, fold_layer_numbers([adapted])
    what = f"which PEFT does not support for parameters, such as {name}"
    if config.number("lora_dropout", 0) != 0:
        yield f"lora_dropout is not 0, {what} (it acts in training only: set it to 0 in adapter_config.json)"
    for flag in ("lora_bias", "use_dora"):
        if config.flag(flag):
            yield f"{flag} is set, {what}"
    for field in ("kasa_config", "velora_config", "alora_invocation_tokens"):
        if config.fields.get(field) is not None:
            yield f"{field} is set, {what}"
    if config.flag("fan_in_fan_out") and all(each.kind == "parameter" for each in model.adapter.spec.modules):
        yield f"fan_in_fan_out is set, {what}"  # a preceding linear layer would turn it off
