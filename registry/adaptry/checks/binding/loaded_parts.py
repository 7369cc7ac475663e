"""The parts of an adapter that PEFT loads, and those that it silently drops, with the reasons.

PEFT loads the tensors of the modules that the config makes it adapt, and the whole weights for which the
model with the adapter has a parameter of their name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.extras import INSIDE_WRAPPER, PREFIX
from adaptry.adapters.methods.lora import role_of
from adaptry.adapters.methods.lora_config import scale_of
from adaptry.adapters.spec import ExtraWeight
from adaptry.adapters.tensor_names import is_buffer
from adaptry.bases.model_classes import body_attribute, converts_adapters
from adaptry.bases.module_map import ExtraTarget, ModuleMap, TargetTensor
from adaptry.bases.parameter_lookup import is_head_of_type
from adaptry.checks.binding.bound_adapter import DroppedPart
from adaptry.checks.binding.expert_factors import (
    expert_matrix,
    modules_as_parameters,
    why_expert_not_loaded,
)
from adaptry.checks.binding.forced_ties import HEAD
from adaptry.checks.binding.loaded_model import BASE_LAYER, LoadedModel, bare_path
from adaptry.checks.binding.targets import is_embedding, is_head, is_matrix
from adaptry.checks.finding_text import format_count
from adaptry.core.lazy_dataclass import dataclass

_ONE_EXPERT = re.compile(r"(?:.*\.)?experts\.\d+\..+")
_TOKEN_ADAPTER = ".token_adapter"


@dataclass(frozen=True, slots=True)
class LoadedParts:
    """`module_map` has the parts that PEFT applies; `unlisted` are its whole weights that no field of the
    config names.
    """

    module_map: ModuleMap
    dropped: tuple[DroppedPart, ...]
    unlisted: tuple[ExtraTarget, ...]


def loaded_parts(model: LoadedModel, intended: ModuleMap) -> LoadedParts:
    """Divides the intended places into those that PEFT applies and those that it drops."""
    reasons: dict[str, DroppedPart | None] = {}
    for target in intended.placed:  # experts have several places in one module
        path = target.module.path
        reasons[path] = reasons.get(path) or _dropped_module(model, target)
    weights = [(extra, _dropped_weight(model, extra)) for extra in intended.extras]
    extras = [extra for extra, reason in weights if reason is None]
    unlisted, tied = list(_unlisted_weights(model)), list(_tied_copies(model))
    unknown = _unknown_tensors(model, [*unlisted, *tied])
    dropped = (*reasons.values(), *(reason for _, reason in weights), *unknown)
    return LoadedParts(
        replace(
            intended,
            placed=tuple(target for target in intended.placed if reasons[target.module.path] is None),
            extras=(*extras, *tied, *unlisted),
        ),
        tuple(reason for reason in dropped if reason is not None),
        (*(extra for extra in extras if _is_unlisted(model, extra)), *unlisted),
    )


def _dropped_module(model: LoadedModel, target: TargetTensor) -> DroppedPart | None:
    """Why PEFT does not change the module; None if it does."""
    module = target.module
    path, tensors = bare_path(module.path), tuple(module.tensors.values())
    if module.kind == "parameter" and model.adapter.config.names("target_parameters"):
        return _dropped_parameter(model, target)
    if (matrix := expert_matrix(path, model.model_type)) is not None and model.adapter.spec.method == "lora":
        reason_not_adapted = why_expert_not_loaded(model, matrix)
        return DroppedPart(module.path, tensors, *reason_not_adapted) if reason_not_adapted else None
    if _ONE_EXPERT.fullmatch(path) and target.weight.parts[0].rpartition(".")[0] != path:
        return None  # PEFT fuses a layer's experts, and converts the config too
    if not model.has_module(path, target.tied):
        intended = model.loaded_path(_module_of(target))
        return DroppedPart(module.path, tensors, "name", f"the model has {intended}, but no {path}", intended)
    if BASE_LAYER in module.path and module.kind != "attention":
        reason = "PEFT has no base_layer there, since the config targets none of its parameters"
        return DroppedPart(module.path, tensors, "no_place", reason, path)
    own = model.names.own_module(path)
    if (why := model.reason_not_adapted(own)) is not None:
        if own != path and model.reason_not_adapted(path) is None:
            return DroppedPart(module.path, tensors, "name", f"the model has {own}, and {why}", own)
        return DroppedPart(module.path, tensors, "not_targeted", why)
    if own != path and (why := _other_numbers(model, target, own)) is not None:
        return DroppedPart(module.path, tensors, "name", why, own)
    return _dropped_as_other_layer(model, target)


def _other_numbers(model: LoadedModel, target: TargetTensor, own: str) -> str | None:
    """The difference between the rank or scale of a LoRA's module and those that PEFT looks up by its name in
    the model.
    """
    if model.adapter.spec.method != "lora":
        return None
    module = target.module
    scale, alpha, rank = scale_of(model.adapter.config, module.name.replace(bare_path(module.path), own))
    if rank == module.rank and scale == module.scale:
        return None
    if model.experts is not None and module.path in modules_as_parameters(model):
        return None  # PEFT adapts it as a parameter, whose name it looks up instead
    return (
        f"the model has {own}, for which the config gives rank {rank} and alpha {alpha:g}, but here"
        f" {module.rank} and {module.alpha:g}"
    )


def _dropped_parameter(model: LoadedModel, target: TargetTensor) -> DroppedPart | None:
    """Why PEFT drops the factors of a parameter. It wraps a module once for each of its parameters that the
    config targets, and names the factors of the outermost wrapper without `base_layer`.
    """
    path = bare_path(target.module.path)
    own = [name for name in model.names.parameters if name.rpartition(".")[0] == path]
    wrapped = [name for name in own if model.targets.includes_parameter(name)]
    intended = model.loaded_path(_module_of(target))
    if not own and target.expert is None and intended in model.names.modules and intended != path:
        reason, tensors = f"the model has {intended}, but no {path}", tuple(target.module.tensors.values())
        return DroppedPart(target.module.path, tensors, "name", reason, intended)
    if not own or target.module.path.count(BASE_LAYER) < len(wrapped):
        return None  # a module that the model lacks is reported as missing
    reason = f"the config targets {format_count(len(wrapped), 'parameter')} of it (target_parameters)"
    return DroppedPart(target.module.path, tuple(target.module.tensors.values()), "not_targeted", reason)


def _dropped_as_other_layer(model: LoadedModel, target: TargetTensor) -> DroppedPart | None:
    """Why PEFT drops factors of another kind of layer: they have other names on an embedding than on a
    matrix.
    """
    module = target.module
    is_known = (
        body_attribute(model.model_type) != ""
    )  # in other models, a name does not determine a layer's class
    if model.adapter.spec.method != "lora" or module.kind not in ("linear", "embedding") or not is_known:
        return None
    path = bare_path(module.path)
    is_table = module.kind == "linear"  # with a matrix's factors
    if target.orientation == "conv" or not (is_embedding(path) if is_table else is_matrix(path)):
        return None
    theirs = "lora_embedding_A and lora_embedding_B" if is_table else "lora_A and lora_B"
    kind = "an embedding" if is_table else "no embedding"
    reason = f"it is {kind}, whose factors PEFT calls {theirs}"
    return DroppedPart(module.path, tuple(module.tensors.values()), "no_place", reason)


def _module_of(target: TargetTensor) -> str:
    return target.weight.name.rpartition(".")[0]


def _dropped_weight(model: LoadedModel, placed: ExtraTarget) -> DroppedPart | None:
    """Why PEFT does not load a whole weight; None if it does."""
    extra = placed.extra
    path, _, parameter = extra.target.rpartition(".")
    key = extra.tensor.removeprefix(PREFIX)
    has_parts = f"{path}.dense" in model.names.modules  # a head of several layers holds no weight itself
    is_tied = (
        placed.tied and not has_parts
    ) or placed.weight.name == f"{path.rpartition('.')[0]}.bias"  # a tied head's bias
    is_known = _has_whole_weight(model, extra.target) or (is_tied and model.has_module(path, is_tied))
    if not is_known:
        intended = model.loaded_path(placed.weight.name.rpartition(".")[0])
        reason = f"the model has {intended}, but no {path}"
        return DroppedPart(path, (extra.tensor,), "name", reason, intended)
    if extra.kind == "token_rows":
        return _dropped_rows(model, placed)
    if extra.kind == "norm":
        why = model.reason_not_adapted(path)
        return None if why is None else DroppedPart(path, (extra.tensor,), "not_targeted", why)
    if model.adapter.config.is_saved(path):
        return None
    if _TOKEN_ADAPTER in key or _has_token_adapter(model, placed):
        return _dropped_beside_rows(model, placed)
    is_adapted = _is_adapted(model, path)
    if f"{BASE_LAYER}.{parameter}" in key and not is_adapted:
        reason = "PEFT does not adapt the module, so it has no base_layer there"
        return DroppedPart(path, (extra.tensor,), "no_place", reason, extra.target)
    if BASE_LAYER not in key and is_adapted:
        reason = f"PEFT adapts the module, and holds its weight as {path}.base_layer.{parameter}"
        return DroppedPart(path, (extra.tensor,), "no_place", reason)
    return None


def _has_whole_weight(model: LoadedModel, target: str) -> bool:
    """Whether PEFT loads a whole weight by this name. In the families whose adapters it converts, it accepts
    names on disk only for factors and for the modules that it saves. A single expert is not such a module.
    """
    if converts_adapters(model.model_type) and not model.adapter.config.is_saved(target.rpartition(".")[0]):
        return target in model.names.parameters
    own = model.names.aliases.get(target, target)
    is_fused = own.rpartition(".")[2] != target.rpartition(".")[2]
    return target in model.names.parameters or (model.names.has_parameter(target) and not is_fused)


def _is_unlisted(model: LoadedModel, placed: ExtraTarget) -> bool:
    """Whether no field of the config accounts for it: `base_layer` weights, biases with `bias="none"`, and
    embeddings that are neither adapted nor resized (the cases in which PEFT saves them).
    """
    extra = placed.extra
    path = extra.target.rpartition(".")[0]
    if extra.kind in ("token_rows", "norm", "module") or model.adapter.config.is_saved(path):
        return False
    if placed.tied and model.adapter.config.ties_saved:
        return False  # PEFT saves the other side too
    fields = model.adapter.config.fields
    if extra.kind == "bias":
        return fields.get("bias") in (None, "none")
    if not is_embedding(path) and not is_head(path):
        return True
    is_larger = bool(placed.weight.shape) and extra.shape[:1] > placed.weight.shape[:1]
    adapted = [bare_path(each.path) for each in model.adapter.spec.modules]
    return not is_larger and not any(is_embedding(path) or is_head(path) for path in adapted)


def _unlisted_weights(model: LoadedModel) -> Iterator[ExtraTarget]:
    """Unclaimed tensors with the name of a parameter of the model."""
    for name in model.adapter.spec.unclaimed:
        target = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or target not in model.names.parameters or "lora_" in target:
            continue  # PEFT accepts names on disk for factors only
        path = target.rpartition(".")[0]
        if _is_adapted(model, path):
            continue  # PEFT has it as base_layer
        found = model.known.find(target)
        if found.tensor is not None:
            shape = model.adapter.tensors[name].shape
            extra = ExtraWeight(target=target, kind="module", tensor=name, shape=shape)
            yield ExtraTarget(extra, found.tensor, found.tied)


def _tied_copies(model: LoadedModel) -> Iterator[ExtraTarget]:
    """The weight of a head that PEFT saves with the embedding to which it ties it. If the head has a common
    name, this is recognised without the base.
    """
    for name in model.adapter.spec.unclaimed if model.adapter.config.ties_saved else ():
        target = name.removeprefix(PREFIX)
        is_head = is_head_of_type(target.removesuffix(".weight"), model.model_type)
        if is_head or (target in model.names.tied and target not in model.names.parameters):
            found = model.known.find(target)
            if found.tensor is not None and found.tied:
                shape = model.adapter.tensors[name].shape
                extra = ExtraWeight(target=target, kind="module", tensor=name, shape=shape)
                yield ExtraTarget(extra, found.tensor, found.tied)


def _unknown_tensors(model: LoadedModel, unlisted: Iterable[ExtraTarget]) -> Iterator[DroppedPart]:
    """Unclaimed tensors without a parameter of that name in the model."""
    loaded = {extra.extra.tensor for extra in unlisted}
    method = METHODS[model.adapter.spec.method]
    for name in model.adapter.spec.unclaimed:
        if name in loaded or is_buffer(name, model.adapter.tensors[name].shape):
            continue
        key = name.removeprefix(PREFIX)
        found = role_of(key) if method.name == "lora" else method.role(key)
        if found is not None and name.startswith(PREFIX) and model.names.has_module(found[0]):
            reason = (
                f"{key} alone does not form a module: other tensors are missing, or its shape contradicts"
                " the config"
            )
            yield DroppedPart(found[0], (name,), "incomplete", reason)
        else:
            reason = (
                "PEFT looks for a saved module under the module's own name"
                if INSIDE_WRAPPER.search(key)
                else "the model with the adapter has no parameter of this name"
            )
            yield DroppedPart(name, (name,), "no_place", reason)


def _dropped_beside_rows(model: LoadedModel, placed: ExtraTarget) -> DroppedPart | None:
    """Why PEFT drops a whole weight: an embedding whose rows a LoRA trains has another wrapper."""
    extra = placed.extra
    path, _, parameter = extra.target.rpartition(".")
    is_wrapped = f"{_TOKEN_ADAPTER}{BASE_LAYER}.{parameter}" in extra.tensor
    if is_wrapped == _has_token_adapter(model, placed):
        return None
    if is_wrapped:
        reason = "the config trains no token rows there, so PEFT has no token_adapter"
    else:
        its = f"{path}{_TOKEN_ADAPTER}{BASE_LAYER}.{parameter}"
        reason = f"PEFT trains rows of it, and holds its weight as {its}"
    return DroppedPart(path, (extra.tensor,), "no_place", reason)


def _dropped_rows(model: LoadedModel, placed: ExtraTarget) -> DroppedPart | None:
    """Why PEFT drops trained rows: it looks them up under one name, and only if the config lists their
    indices.
    """
    is_alone = model.adapter.spec.method == "trainable_tokens"
    extra = placed.extra
    if not is_alone and not model.adapter.config.token_indices:
        reason = "the config trains no token rows (trainable_token_indices)"
    elif is_alone and not _selects_rows(model, placed):
        reason = "target_modules does not include it"
    elif is_alone == (".token_adapter." in extra.tensor):
        reason = f"PEFT looks for {'' if is_alone else 'token_adapter.'}trainable_tokens_delta"
    elif not is_alone and not _has_token_adapter(model, placed):
        reason = "the config trains no token rows there (trainable_token_indices)"
    else:
        return None
    return DroppedPart(extra.target.rpartition(".")[0], (extra.tensor,), "no_place", reason)


def _selects_rows(model: LoadedModel, placed: ExtraTarget) -> bool:
    """Whether TRAINABLE_TOKENS trains rows of the module: it does so by default, and if the module is tied to
    the embedding.
    """
    is_default = model.adapter.config.fields.get("target_modules") is None
    path = placed.extra.target.rpartition(".")[0]
    is_tied = placed.tied or (path == HEAD and model.is_head_forced)
    return is_default or is_tied or model.targets.names(path)


def _has_token_adapter(model: LoadedModel, placed: ExtraTarget) -> bool:
    indices = model.adapter.config.token_indices
    if not indices or model.adapter.spec.method == "trainable_tokens":
        return False
    path = placed.extra.target.rpartition(".")[0]
    is_listed = any(map(path.endswith, indices)) if isinstance(indices, dict) else is_embedding(path)
    return is_listed or placed.tied or f"{path}.weight" in model.names.tied


def _is_adapted(model: LoadedModel, path: str) -> bool:
    """Whether PEFT wraps the module, and therefore holds its weights as `base_layer`."""
    if model.adapter.spec.method == "trainable_tokens":
        is_default = model.adapter.config.fields.get("target_modules") is None
        return is_embedding(path) if is_default else model.targets.names(path)
    return model.reason_not_adapted(path) is None and _can_be_adapted(model, path)


def _can_be_adapted(model: LoadedModel, path: str) -> bool:
    tensor = model.known.find(f"{path}.weight").tensor
    return tensor is None or len(tensor.shape) > 1 or model.adapter.spec.method in ("ln_tuning", "osf")
