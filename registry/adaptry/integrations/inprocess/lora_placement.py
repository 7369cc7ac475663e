"""Adds a plain LoRA to a PEFT model that already has LoRA layers: only tensors are added.

`PeftModel.load_adapter` traverses the whole model about ten times and draws random weights that it then
overwrites. This module gives the same result in one pass, for the common case: LoRA without variants, on
linear layers that already have one. For all other cases `lora_placement` returns None, and the caller uses
PEFT.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Any

from adaptry.adapters.spec import ModuleSpec
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.inprocess.fetch import FetchedFiles
from adaptry.integrations.inprocess.tensors import TensorReader

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor
    from torch.nn import Module

_RELEASES = ("0.21.",)
"""The releases of PEFT whose `load_adapter` has the same result; `tests/live/test_load.py` compares the
two."""
_FREE_FIELDS = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights", "lora_alpha",
        "lora_dropout", "peft_type", "peft_version", "r", "revision", "target_modules", "task_type",
        "use_rslora",
    }
)  # fmt: skip
"""Fields of a config that may have any value; the others must have the default."""
_INITIAL_VALUES = (True, False, "gaussian")
"""Values of `init_lora_weights` that do not change the base's weights."""
_MAX_TARGETS = 16
"""PEFT shortens a list of 20 target modules or more."""
_STATE = frozenset(
    {
        "lora_A", "lora_B", "lora_alpha", "lora_bias", "lora_dropout", "r", "scaling", "use_dora",
        "use_rslora",
    }
)  # fmt: skip
"""The attributes in which a layer stores a plain LoRA."""


@dataclass(frozen=True, slots=True)
class LoraPlacement:
    """The tensors to add to each layer of a model; nothing is changed before `apply`."""

    model: PeftModel
    config: LoraConfig
    is_training: bool
    layers: Sequence[tuple[Any, Tensor, Tensor]]
    """A layer of PEFT, with the tensors A [rank, in] and B [out, rank] that it will get."""

    def apply(self, name: str) -> None:
        """Adds the adapter `name`, not active and not trainable. It cannot fail halfway."""
        from torch.nn import Dropout, Identity

        config = self.config
        rank, alpha = config.r, config.lora_alpha
        scale = alpha / math.sqrt(rank) if config.use_rslora else alpha / rank
        for layer, down, up in self.layers:
            dropout = Dropout(p=config.lora_dropout) if config.lora_dropout > 0.0 else Identity()
            layer.r[name], layer.lora_alpha[name], layer.scaling[name] = rank, alpha, scale
            layer.lora_bias[name] = layer.use_dora[name] = False
            layer.use_rslora[name] = config.use_rslora
            for part, module in (
                ("lora_dropout", dropout),
                ("lora_A", _linear(down)),
                ("lora_B", _linear(up)),
            ):
                module.training = False
                # Not by `add_module`, whose checks take longer than the rest; the name was checked before.
                layer._modules[part]._modules[name] = module
        self.model.peft_config[name] = config
        if self.is_training:
            self.model.eval()  # as PEFT does after loading an adapter that is not trained


def lora_placement(model: PeftModel, files: FetchedFiles, name: str) -> LoraPlacement | None:
    """The adapter in each layer of the model; None if it is not plain, or the model has no layers for it.

    If None, the caller lets PEFT load it or raise an error.
    """
    import peft
    from peft.tuners.lora import LoraModel

    if not peft.__version__.startswith(_RELEASES) or not _is_plain_name(name):
        return None
    config = peft.PeftConfig.from_pretrained(str(files.folder))
    configs = [config, *model.peft_config.values()]
    if type(model.base_model) is not LoraModel or not all(map(_is_plain, configs)):
        return None
    modules = _plain_modules(files, config.r)
    if not modules or _is_converted(model):
        return None
    found = _targeted_layers(model.base_model, config)
    if found is None or found.keys() != modules.keys() or not _has_known_state(next(iter(found.values()))):
        return None
    if any((layer.in_features, layer.out_features) != _sides(modules[path]) for path, layer in found.items()):
        return None
    config.inference_mode = True
    return LoraPlacement(
        model,
        config,
        _is_training(model),
        [(layer, *pair) for layer, pair in zip(found.values(), _read(files, modules, found), strict=True)],
    )


def _is_training(model: Module) -> bool:
    """Whether any module is in training mode; iterating over `modules()` would take eight times as long."""
    left = [model]
    while left:
        module = left.pop()
        if module.training:
            return True
        left += [child for child in module._modules.values() if child is not None]
    return False


def _is_plain_name(name: str) -> bool:
    """Whether torch accepts the name for a module of a `ModuleDict`, and PEFT does not warn about it."""
    from torch.nn import ModuleDict

    return "." not in name and not hasattr(ModuleDict(), name) and name not in "lora_"


def _is_plain(config: Any) -> bool:
    """Whether the config describes a LoRA without any variant, including variants of later versions of PEFT.
    (`Any`: PEFT's configs.)
    """
    from peft import LoraConfig

    targets = config.target_modules if type(config) is LoraConfig else None
    if not isinstance(targets, list | set) or len(targets) > _MAX_TARGETS:
        return False
    if not any(config.init_lora_weights is value for value in _INITIAL_VALUES[:2]) and (
        config.init_lora_weights != _INITIAL_VALUES[2]
    ):
        return False
    plain = LoraConfig()
    return config.r > 0 and all(
        getattr(config, field.name) == getattr(plain, field.name)
        for field in dataclasses.fields(LoraConfig)
        if field.name not in _FREE_FIELDS
    )


def _plain_modules(files: FetchedFiles, rank: int) -> Mapping[str, ModuleSpec] | None:
    """The file's modules by path; None unless its tensors are the factors of linear layers, of this rank,
    under the names that PEFT writes.
    """
    spec = files.adapter.spec
    if spec.method != "lora" or spec.extras or spec.unclaimed or spec.shared:
        return None
    modules = {module.path: module for module in spec.modules}
    for path, module in modules.items():
        names = {role: f"base_model.model.{path}.lora_{role}.weight" for role in "AB"}
        if module.kind != "linear" or module.rank != rank or module.tensors != names:
            return None
    return modules if len(modules) == len(spec.modules) else None


def _is_converted(model: PeftModel) -> bool:
    """Whether transformers renames this model's weights, or several devices or processes have parts of it."""
    from torch import distributed

    try:
        from transformers import conversion_mapping
    except ImportError:
        return True
    mapping_of: Callable[[str], object] = conversion_mapping.get_checkpoint_conversion_mapping
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind is not None and mapping_of(kind) is not None:
        return True
    if distributed.is_available() and distributed.is_initialized():
        return True
    return getattr(model, "hf_device_map", None) is not None


def _targeted_layers(tuner: Any, config: LoraConfig) -> dict[str, Any] | None:
    """The layers in which PEFT would add the adapter, by path; None if one is not a plain layer of PEFT.

    (`Any`: PEFT's model and layers.)
    """
    from peft.utils.other import AuxiliaryTrainingWrapper

    known = set(tuner.targeted_module_names)
    found: dict[str, Any] = {}
    for path, module in _modules_outside_adapters(tuner.model):
        if isinstance(module, AuxiliaryTrainingWrapper):
            return None
        if tuner._check_target_module_exists(config, path):
            tuner._check_target_module_compatiblity(config, tuner.model, path.rpartition(".")[2])
            if path not in known or not _is_plain_layer(module):
                return None
            found[path] = module
    return found


def _modules_outside_adapters(model: Module) -> Iterator[tuple[str, Module]]:
    """Like `named_modules`, without the model itself and without modules inside PEFT's layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    seen: set[int] = set()
    left = [(name, module) for name, module in reversed(model._modules.items())]
    while left:
        path, module = left.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        if not isinstance(module, BaseTunerLayer):
            left += [(f"{path}.{name}", child) for name, child in reversed(module._modules.items())]


def _is_plain_layer(layer: Any) -> bool:
    """Whether the module is PEFT's unmerged layer around a linear one, with all weights present."""
    import torch
    from peft.tuners.lora.layer import Linear

    if type(layer) is not Linear or type(layer.base_layer) is not torch.nn.Linear or layer.merged:
        return False
    weight = layer.base_layer.weight
    if weight.is_meta or weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    return not layer.fan_in_fan_out and getattr(layer.base_layer, "_hf_tp_plan", None) is None


def _has_known_state(layer: Any) -> bool:
    """Whether we would set everything that the layer keeps for an adapter."""
    from torch.nn import ModuleDict, ParameterDict

    name = next(iter(layer.lora_A), None)
    held = {**vars(layer), **layer._modules}.items()
    kept = {
        attribute
        for attribute, value in held
        if isinstance(value, dict | ModuleDict | ParameterDict) and name in value
    }
    return kept == _STATE


def _sides(module: ModuleSpec) -> tuple[int, int]:
    return module.fan_in, module.fan_out


def _read(
    files: FetchedFiles, modules: Mapping[str, ModuleSpec], layers: Mapping[str, Any]
) -> list[tuple[Tensor, Tensor]]:
    """A and B for each layer, on its device. PEFT keeps adapters of half precision in float32."""
    import torch

    adapter = files.adapter
    found: dict[str, Tensor] = {}
    with closing(TensorReader(files.folder / adapter.format.weights, adapter.tensors)) as stored:
        for path, layer in layers.items():
            device = layer.base_layer.weight.device
            for name in modules[path].tensors.values():
                stored.require(name)
                found[name] = torch.empty(stored.shape(name), dtype=torch.float32, device=device)
        stored.read_all_into(found.items())
    names = (modules[path].tensors for path in layers)
    return [(found[each["A"]], found[each["B"]]) for each in names]


def _linear(weight: Tensor) -> Module:
    """A frozen linear layer in evaluation mode with this weight, [out, in].

    `Linear` would first create another weight, and `Module.__init__` takes longer than the rest.
    """
    from torch.nn import Linear, Parameter

    layer = Linear.__new__(Linear)
    plain, containers = _attributes_of_a_layer()
    state = vars(layer)
    state.update(plain)
    for name, kind in containers:
        state[name] = kind()
    state["out_features"], state["in_features"] = weight.shape
    state["_parameters"].update(weight=Parameter(weight, requires_grad=False), bias=None)
    return layer


@cache
def _attributes_of_a_layer() -> tuple[Mapping[str, Any], Sequence[tuple[str, type]]]:
    """The attributes of a layer in evaluation mode: plain values, and the types of those that are empty
    containers once its weight is taken out.
    """
    from torch.nn import Linear

    layer = Linear(1, 1, bias=False, device="meta").eval()
    layer._parameters.clear()
    found = vars(layer)
    containers = [(name, type(value)) for name, value in found.items() if isinstance(value, dict | set)]
    return {name: value for name, value in found.items() if not isinstance(value, dict | set)}, containers
