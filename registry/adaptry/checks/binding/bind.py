"""An adapter bound to a base: what PEFT, on the model that transformers loads, would make of its files.

PEFT changes the modules that its config selects, and then loads the file's tensors into that model by name
(`load_state_dict` without `strict`): a tensor whose name the model does not have is dropped without a word.
`bind` follows those two steps on headers alone. Files of other tools are looked up tolerantly, since PEFT
never reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.methods.lora import role_of
from adaptry.adapters.spec import ExtraWeight
from adaptry.adapters.tensor_names import is_buffer
from adaptry.bases.model_classes import body_attribute
from adaptry.bases.model_names import model_names
from adaptry.bases.module_map import ExtraTarget, ModuleMap, TargetTensor, place
from adaptry.bases.parameter_lookup import ParameterNames
from adaptry.checks.binding.bound_adapter import BoundAdapter, Dropped
from adaptry.checks.binding.initial_values import starts_changed
from adaptry.checks.binding.refusals import refusals
from adaptry.checks.binding.targets import ModuleTargets, is_embedding, is_head
from adaptry.core.errors import InvalidConfig

_ADAPTED = {"ln_tuning": ("weight", 1), "beft": ("bias", 1)}
"""What a method adapts, where that is not any weight of two dimensions or more."""
_ONE_EXPERT = re.compile(r"(?:.*\.)?experts\.\d+\..+")
_BASE_LAYER = ".base_layer"
_TOKEN_ADAPTER = ".token_adapter"


def bind(adapter: Adapter, base: BaseRecord, *, layers_repeated: bool = False) -> BoundAdapter:
    """What `adapter` is on `base`. `layers_repeated`: the base has the layers of its `layer_replication`.

    Raises `InvalidConfig` only where the config contradicts itself so that no spec can be derived, and
    `Unavailable` where patterns could not be matched now.
    """
    spec = adapter.spec
    if layers_repeated:
        spec = spec.model_copy(
            update={"traits": tuple(trait for trait in spec.traits if trait != "layer_replication")}
        )
    module_map = place(spec, base.tensors, base.facts)
    method = METHODS.get(spec.method)
    if adapter.format is not PEFT or method is None or method.prefix != PREFIX:
        return BoundAdapter(adapter, module_map)
    if not method.names_modules(adapter.config):
        return BoundAdapter(adapter, module_map)
    if "layer_replication" in spec.traits or ParameterNames(base.tensors, base.facts).is_converted:
        return BoundAdapter(adapter, module_map)
    try:
        return _Binding(adapter, base, module_map).bound()
    except InvalidConfig:  # a refused pattern: reported by its own finding, and what it selects is not known
        return BoundAdapter(adapter, module_map)


class _Binding:
    """The two steps for one adapter."""

    def __init__(self, adapter: Adapter, base: BaseRecord, module_map: ModuleMap) -> None:
        self.adapter, self.base, self.module_map = adapter, base, module_map
        spec, config = adapter.spec, adapter.config
        self.model_type = str(base.facts.get("model_type") or "")
        self.targets = ModuleTargets(config, spec.method, self.model_type)
        paths = [_bare(module.path) for module in spec.modules]
        self.names = model_names(
            base.tensors,
            base.facts,
            task=spec.task,
            model_class=_model_class(config),
            used=paths,
            takes_disk_names=spec.method == "lora",
        )
        self.targets.prepare({*paths, *self.names.modules})
        self.known = ParameterNames(base.tensors, base.facts)

    def bound(self) -> BoundAdapter:
        dropped: list[Dropped] = []
        placed: list[TargetTensor] = []
        gone: dict[str, Dropped] = {}
        for target in self.module_map.placed:
            path = target.module.path
            if path not in gone and (lost := self._dropped_module(target)) is not None:
                gone[path] = lost
                dropped.append(lost)
            if path not in gone:
                placed.append(target)
        extras: list[ExtraTarget] = []
        for extra in self.module_map.extras:
            if (why := self._dropped_extra(extra)) is not None:
                dropped.append(why)
            else:
                extras.append(extra)
        unlisted = tuple(self._unlisted())
        dropped += self._unknown(unlisted)
        bound = replace(self.module_map, placed=tuple(placed), extras=(*extras, *unlisted))
        return BoundAdapter(
            self.adapter,
            bound,
            tuple(dropped),
            tuple(refusals(self.adapter, self.names, self.targets, bound)),
            (*(extra for extra in extras if self._is_unlisted(extra.extra)), *unlisted),
            tuple(self._uncovered()),
            starts_changed(self.adapter.config, self.adapter.spec.method),
        )

    def _uncovered(self) -> Iterator[str]:
        """Modules that PEFT adapts and for which the file has no tensor, in the model's order."""
        spec = self.adapter.spec
        if not self.module_map.placed or self.targets.is_free:
            return
        held = {_bare(module.path) for module in spec.modules}
        held |= {extra.target.rpartition(".")[0] for extra in spec.extras}
        parameter, dimensions = _ADAPTED.get(spec.method, ("weight", 2))
        for path in self.names.holders_of(parameter, dimensions):
            if path not in held and self._why_not(path) is None:
                yield path

    def _dropped_module(self, target: TargetTensor) -> Dropped | None:
        """Why PEFT would not change the module; None where it does."""
        module = target.module
        path, tensors = _bare(module.path), tuple(module.tensors.values())
        if module.kind == "parameter" and self.adapter.config.names("target_parameters"):
            return None  # found among the parameters that the config targets, or reported as missing
        if _ONE_EXPERT.fullmatch(path) and target.weight.parts[0].rpartition(".")[0] != path:
            return None  # PEFT puts a layer's experts together, and its config with them
        if not self._is_module(path, target):
            intended = self._loaded_path(_module_of(target))
            return Dropped(module.path, tensors, "name", f"the model has {intended}, and no {path}", intended)
        if _BASE_LAYER in module.path and module.kind != "attention":
            reason = "PEFT has no base_layer there, as the config targets no parameter of it"
            return Dropped(module.path, tensors, "no_place", reason, path)
        if (why := self._why_not(path)) is not None:
            return Dropped(module.path, tensors, "not_targeted", why)
        return self._dropped_as_other_layer(target)

    def _why_not(self, path: str) -> str | None:
        """Why PEFT does not adapt the module; of an attention it adapts the output projection as well."""
        why = self.targets.why_not(path)
        whole = path.removesuffix(".out_proj")
        if why is not None and f"{whole}.in_proj_weight" in self.names.parameters:
            return self.targets.why_not(whole)
        return why

    def _dropped_as_other_layer(self, target: TargetTensor) -> Dropped | None:
        """A LoRA's factors have other names on an embedding than on a matrix."""
        module = target.module
        is_known = body_attribute(self.model_type) != ""  # elsewhere a name says nothing of a layer's class
        if self.adapter.spec.method != "lora" or module.kind not in ("linear", "embedding") or not is_known:
            return None
        is_table = is_embedding(_bare(module.path))
        if is_table == (module.kind == "embedding") or target.orientation == "conv":
            return None
        theirs = "lora_embedding_A and lora_embedding_B" if is_table else "lora_A and lora_B"
        kind = "an embedding" if is_table else "no embedding"
        reason = f"it is {kind}, whose factors PEFT calls {theirs}"
        return Dropped(module.path, tuple(module.tensors.values()), "no_place", reason)

    def _is_module(self, path: str, target: TargetTensor) -> bool:
        if self.names.has_module(path):
            return True
        around = path.rpartition(".")[0]
        return target.tied and (not around or self.names.has_module(around))

    def _dropped_extra(self, placed: ExtraTarget) -> Dropped | None:
        """Why PEFT would not load a whole weight; None where it does."""
        extra = placed.extra
        path, _, parameter = extra.target.rpartition(".")
        key = extra.tensor.removeprefix(PREFIX)
        is_there = self.names.has_parameter(extra.target) or (
            placed.tied and (not path.rpartition(".")[0] or self.names.has_module(path.rpartition(".")[0]))
        )
        if not is_there:
            intended = self._loaded_path(placed.weight.name.rpartition(".")[0])
            reason = f"the model has {intended}, and no {path}"
            return Dropped(path, (extra.tensor,), "name", reason, intended)
        if extra.kind == "token_rows":
            return self._dropped_rows(placed)
        if extra.kind == "norm" or self.adapter.config.is_saved(path):
            return None
        if _TOKEN_ADAPTER in key or self._has_token_adapter(placed):
            return self._dropped_beside_rows(placed)
        is_adapted = self._why_not(path) is None and self._can_be_adapted(path)
        if f"{_BASE_LAYER}.{parameter}" in key and not is_adapted:
            reason = "PEFT does not adapt the module, so it has no base_layer there"
            return Dropped(path, (extra.tensor,), "no_place", reason, extra.target)
        if _BASE_LAYER not in key and is_adapted:
            reason = f"PEFT adapts the module, and holds its weight as {path}.base_layer.{parameter}"
            return Dropped(path, (extra.tensor,), "no_place", reason)
        return None

    def _dropped_beside_rows(self, placed: ExtraTarget) -> Dropped | None:
        """Around an embedding whose rows a LoRA trains, PEFT puts another wrapper."""
        extra = placed.extra
        path, _, parameter = extra.target.rpartition(".")
        is_wrapped = f"{_TOKEN_ADAPTER}{_BASE_LAYER}.{parameter}" in extra.tensor
        if is_wrapped == self._has_token_adapter(placed):
            return None
        if is_wrapped:
            reason = "the config trains no token rows there, so PEFT has no token_adapter"
        else:
            its = f"{path}{_TOKEN_ADAPTER}{_BASE_LAYER}.{parameter}"
            reason = f"PEFT trains rows of it, and holds its weight as {its}"
        return Dropped(path, (extra.tensor,), "no_place", reason)

    def _has_token_adapter(self, placed: ExtraTarget) -> bool:
        indices = self.adapter.config.fields.get("trainable_token_indices")
        if not indices or self.adapter.spec.method == "trainable_tokens":
            return False
        path = placed.extra.target.rpartition(".")[0]
        is_listed = any(map(path.endswith, indices)) if isinstance(indices, dict) else is_embedding(path)
        return is_listed or placed.tied

    def _loaded_path(self, path: str) -> str:
        """The module's name in the model, which holds the bare model under an attribute that a checkpoint
        may leave out."""
        if path in self.names.modules:
            return path
        body = f"{body_attribute(self.model_type)}."
        names = (f"{body}{path}", path.removeprefix(body))
        return next((name for name in names if name in self.names.modules), path)

    def _dropped_rows(self, placed: ExtraTarget) -> Dropped | None:
        """Trained rows are looked up under one name, and only if the config lists their numbers."""
        fields, is_alone = self.adapter.config.fields, self.adapter.spec.method == "trainable_tokens"
        extra = placed.extra
        if not is_alone and not fields.get("trainable_token_indices"):
            reason = "the config trains no token rows (trainable_token_indices)"
        elif is_alone == (".token_adapter." in extra.tensor):
            reason = f"PEFT looks for {'' if is_alone else 'token_adapter.'}trainable_tokens_delta"
        elif not is_alone and not self._has_token_adapter(placed):
            reason = "the config trains no token rows there (trainable_token_indices)"
        else:
            return None
        return Dropped(extra.target.rpartition(".")[0], (extra.tensor,), "no_place", reason)

    def _can_be_adapted(self, path: str) -> bool:
        tensor = self.known.find(f"{path}.weight").tensor
        return tensor is None or len(tensor.shape) > 1 or self.adapter.spec.method in ("ln_tuning", "osf")

    def _is_unlisted(self, extra: ExtraWeight) -> bool:
        """Whether no field of the config names it: `base_layer` weights, biases beside `bias="none"`."""
        path = extra.target.rpartition(".")[0]
        if extra.kind in ("token_rows", "norm", "module") or self.adapter.config.is_saved(path):
            return False
        fields = self.adapter.config.fields
        if extra.kind == "bias":
            return fields.get("bias") in (None, "none")
        return not is_embedding(path) and not is_head(path)

    def _unknown(self, unlisted: Iterable[ExtraTarget]) -> Iterator[Dropped]:
        """Tensors that no rule of the method knows and that are no parameter of the model either."""
        loaded = {extra.extra.tensor for extra in unlisted}
        method = METHODS[self.adapter.spec.method]
        for name in self.adapter.spec.unclaimed:
            if name in loaded or is_buffer(name, self.adapter.tensors[name].shape):
                continue
            key = name.removeprefix(PREFIX)
            found = role_of(key) if method.name == "lora" else method.role(key)
            if found is not None and name.startswith(PREFIX) and self.names.has_module(found[0]):
                reason = f"{key} is not all that the module needs, or has a shape that the config rules out"
                yield Dropped(found[0], (name,), "incomplete", reason)
            else:
                reason = "the model with the adapter has no parameter of this name"
                yield Dropped(name, (name,), "no_place", reason)

    def _unlisted(self) -> Iterator[ExtraTarget]:
        """Tensors that no rule of the method knows, under the name of a parameter of the model."""
        for name in self.adapter.spec.unclaimed:
            target = name.removeprefix(PREFIX)
            if not name.startswith(PREFIX) or not self.names.has_parameter(target) or "lora_" in target:
                continue
            path = target.rpartition(".")[0]
            if self._why_not(path) is None and self._can_be_adapted(path):
                continue  # PEFT holds it as base_layer there
            found = self.known.find(target)
            if found.tensor is not None:
                shape = self.adapter.tensors[name].shape
                extra = ExtraWeight(target=target, kind="module", tensor=name, shape=shape)
                yield ExtraTarget(extra, found.tensor, found.tied)


def _bare(path: str) -> str:
    return path.replace(_BASE_LAYER, "")


def _module_of(target: TargetTensor) -> str:
    return target.weight.name.rpartition(".")[0]


def _model_class(config: AdapterConfig) -> str | None:
    mapping = config.fields.get("auto_mapping")
    name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    return name if isinstance(name, str) else None
