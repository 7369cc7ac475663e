"""Which parameters a LoRA's `target_parameters` selects that the model lacks, or that PEFT cannot adapt."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.plain_patterns import dotted_suffixes
from adaptry.checks.binding.loaded_model import LoadedModel
from adaptry.checks.finding_text import format_count


def unknown_parameters(model: LoadedModel) -> tuple[str, ...]:
    """The items of a LoRA's `target_parameters` that are no parameters of the model. PEFT only warns if it
    finds none of them, and if the config also selects modules.
    """
    listed = model.adapter.config.names("target_parameters")
    if model.adapter.spec.method != "lora" or not listed:
        return ()
    ends = {end for name in (*model.names.parameters, *model.names.tied) for end in dotted_suffixes(name)}
    return tuple(name for name in listed if name not in ends)


def parameters_of_other_dimensions(model: LoadedModel) -> Iterator[str]:
    """PEFT adapts parameters with two or three dimensions."""
    for name, shape in model.names.parameters.items():
        if shape and len(shape) not in (2, 3) and model.targets.includes_parameter(name):
            dimensions = format_count(len(shape), "dimension")
            yield f"target_parameters selects {name}, which has {dimensions}, not 2 or 3"
            return
