"""Why PEFT would not change a module of which a file has the tensors."""

from __future__ import annotations

import re

from adaptry.bases.model_classes import body_attribute
from adaptry.bases.module_map import TargetTensor
from adaptry.checks.binding.bound_adapter import Dropped
from adaptry.checks.binding.loaded_model import BASE_LAYER, LoadedModel, bare_path
from adaptry.checks.binding.targets import is_embedding, is_matrix

_ONE_EXPERT = re.compile(r"(?:.*\.)?experts\.\d+\..+")


def dropped_module(model: LoadedModel, target: TargetTensor) -> Dropped | None:
    """Why PEFT would not change the module; None where it does."""
    module = target.module
    path, tensors = bare_path(module.path), tuple(module.tensors.values())
    if module.kind == "parameter" and model.adapter.config.names("target_parameters"):
        return None  # found among the parameters that the config targets, or reported as missing
    if _ONE_EXPERT.fullmatch(path) and target.weight.parts[0].rpartition(".")[0] != path:
        return None  # PEFT puts a layer's experts together, and its config with them
    if not model.has_place(path, target.tied):
        intended = model.loaded_path(_module_of(target))
        return Dropped(module.path, tensors, "name", f"the model has {intended}, and no {path}", intended)
    if BASE_LAYER in module.path and module.kind != "attention":
        reason = "PEFT has no base_layer there, as the config targets no parameter of it"
        return Dropped(module.path, tensors, "no_place", reason, path)
    if (why := model.why_not(path)) is not None:
        return Dropped(module.path, tensors, "not_targeted", why)
    return _dropped_as_other_layer(model, target)


def _dropped_as_other_layer(model: LoadedModel, target: TargetTensor) -> Dropped | None:
    """A LoRA's factors have other names on an embedding than on a matrix."""
    module = target.module
    is_known = body_attribute(model.model_type) != ""  # elsewhere a name says nothing of a layer's class
    if model.adapter.spec.method != "lora" or module.kind not in ("linear", "embedding") or not is_known:
        return None
    path = bare_path(module.path)
    is_table = module.kind == "linear"  # and has the factors of a matrix
    if target.orientation == "conv" or not (is_embedding(path) if is_table else is_matrix(path)):
        return None
    theirs = "lora_embedding_A and lora_embedding_B" if is_table else "lora_A and lora_B"
    kind = "an embedding" if is_table else "no embedding"
    reason = f"it is {kind}, whose factors PEFT calls {theirs}"
    return Dropped(module.path, tuple(module.tensors.values()), "no_place", reason)


def _module_of(target: TargetTensor) -> str:
    return target.weight.name.rpartition(".")[0]
