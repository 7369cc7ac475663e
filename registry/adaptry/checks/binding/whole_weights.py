"""Whole weights of a file: which PEFT loads in place of the base's, and which it leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.methods.lora import role_of
from adaptry.adapters.spec import ExtraWeight
from adaptry.adapters.tensor_names import is_buffer
from adaptry.bases.module_map import ExtraTarget
from adaptry.checks.binding.bound_adapter import Dropped
from adaptry.checks.binding.loaded_model import BASE_LAYER, LoadedModel, bare_path
from adaptry.checks.binding.targets import is_embedding, is_head

_TOKEN_ADAPTER = ".token_adapter"


def dropped_weight(model: LoadedModel, placed: ExtraTarget) -> Dropped | None:
    """Why PEFT would not load a whole weight; None where it does."""
    extra = placed.extra
    path, _, parameter = extra.target.rpartition(".")
    key = extra.tensor.removeprefix(PREFIX)
    is_tied = placed.tied or placed.weight.name == f"{path.rpartition('.')[0]}.bias"  # a tied head's bias
    if not (model.names.has_parameter(extra.target) or (is_tied and model.has_place(path, is_tied))):
        intended = model.loaded_path(placed.weight.name.rpartition(".")[0])
        reason = f"the model has {intended}, and no {path}"
        return Dropped(path, (extra.tensor,), "name", reason, intended)
    if extra.kind == "token_rows":
        return _dropped_rows(model, placed)
    if extra.kind == "norm" or model.adapter.config.is_saved(path):
        return None
    if _TOKEN_ADAPTER in key or _has_token_adapter(model, placed):
        return _dropped_beside_rows(model, placed)
    is_adapted = model.why_not(path) is None and _can_be_adapted(model, path)
    if f"{BASE_LAYER}.{parameter}" in key and not is_adapted:
        reason = "PEFT does not adapt the module, so it has no base_layer there"
        return Dropped(path, (extra.tensor,), "no_place", reason, extra.target)
    if BASE_LAYER not in key and is_adapted:
        reason = f"PEFT adapts the module, and holds its weight as {path}.base_layer.{parameter}"
        return Dropped(path, (extra.tensor,), "no_place", reason)
    return None


def is_unlisted(model: LoadedModel, placed: ExtraTarget) -> bool:
    """Whether nothing in the config stands for it: `base_layer` weights, biases beside `bias="none"`, and
    embeddings that are neither adapted nor of a larger vocabulary, for which PEFT saves them.
    """
    extra = placed.extra
    path = extra.target.rpartition(".")[0]
    if extra.kind in ("token_rows", "norm", "module") or model.adapter.config.is_saved(path):
        return False
    fields = model.adapter.config.fields
    if extra.kind == "bias":
        return fields.get("bias") in (None, "none")
    if not is_embedding(path) and not is_head(path):
        return True
    is_larger = bool(placed.weight.shape) and extra.shape[:1] > placed.weight.shape[:1]
    return not is_larger and not any(
        is_embedding(bare_path(each.path)) for each in model.adapter.spec.modules
    )


def unlisted_weights(model: LoadedModel) -> Iterator[ExtraTarget]:
    """Tensors that no rule of the method knows, under the name of a parameter of the model."""
    for name in model.adapter.spec.unclaimed:
        target = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or not model.names.has_parameter(target) or "lora_" in target:
            continue
        path = target.rpartition(".")[0]
        if model.why_not(path) is None and _can_be_adapted(model, path):
            continue  # PEFT holds it as base_layer there
        found = model.known.find(target)
        if found.tensor is not None:
            shape = model.adapter.tensors[name].shape
            extra = ExtraWeight(target=target, kind="module", tensor=name, shape=shape)
            yield ExtraTarget(extra, found.tensor, found.tied)


def unknown_tensors(model: LoadedModel, unlisted: Iterable[ExtraTarget]) -> Iterator[Dropped]:
    """Tensors that no rule of the method knows and that are no parameter of the model either."""
    loaded = {extra.extra.tensor for extra in unlisted}
    method = METHODS[model.adapter.spec.method]
    for name in model.adapter.spec.unclaimed:
        if name in loaded or is_buffer(name, model.adapter.tensors[name].shape):
            continue
        key = name.removeprefix(PREFIX)
        found = role_of(key) if method.name == "lora" else method.role(key)
        if found is not None and name.startswith(PREFIX) and model.names.has_module(found[0]):
            reason = f"{key} alone makes no module: others are missing, or its shape contradicts the config"
            yield Dropped(found[0], (name,), "incomplete", reason)
        else:
            reason = "the model with the adapter has no parameter of this name"
            yield Dropped(name, (name,), "no_place", reason)


def _dropped_beside_rows(model: LoadedModel, placed: ExtraTarget) -> Dropped | None:
    """Around an embedding whose rows a LoRA trains, PEFT puts another wrapper."""
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
    return Dropped(path, (extra.tensor,), "no_place", reason)


def _dropped_rows(model: LoadedModel, placed: ExtraTarget) -> Dropped | None:
    """Trained rows are looked up under one name, and only if the config lists their numbers."""
    fields, is_alone = model.adapter.config.fields, model.adapter.spec.method == "trainable_tokens"
    extra = placed.extra
    if not is_alone and not fields.get("trainable_token_indices"):
        reason = "the config trains no token rows (trainable_token_indices)"
    elif is_alone == (".token_adapter." in extra.tensor):
        reason = f"PEFT looks for {'' if is_alone else 'token_adapter.'}trainable_tokens_delta"
    elif not is_alone and not _has_token_adapter(model, placed):
        reason = "the config trains no token rows there (trainable_token_indices)"
    else:
        return None
    return Dropped(extra.target.rpartition(".")[0], (extra.tensor,), "no_place", reason)


def _has_token_adapter(model: LoadedModel, placed: ExtraTarget) -> bool:
    indices = model.adapter.config.fields.get("trainable_token_indices")
    if not indices or model.adapter.spec.method == "trainable_tokens":
        return False
    path = placed.extra.target.rpartition(".")[0]
    is_listed = any(map(path.endswith, indices)) if isinstance(indices, dict) else is_embedding(path)
    return is_listed or placed.tied


def _can_be_adapted(model: LoadedModel, path: str) -> bool:
    tensor = model.known.find(f"{path}.weight").tensor
    return tensor is None or len(tensor.shape) > 1 or model.adapter.spec.method in ("ln_tuning", "osf")
