"""Hotswap: replaces a loaded adapter's weights by another's, under the same name, in a possibly compiled
model.

Everything is checked before anything is changed; then the weights are copied into the existing parameters.
Cases in which PEFT's own hotswap would silently give wrong results are refused, and the model's config is
updated, so that saving the model is correct.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from adaptry.adapters.formats import PEFT
from adaptry.adapters.spec import ModuleSpec
from adaptry.core.errors import CheckFailed, NotFound, Unavailable, Unsupported
from adaptry.core.failpoints import reach
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.inprocess.fetch import FetchedFiles
from adaptry.integrations.inprocess.tensors import TensorReader

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from torch.nn import Module, Parameter


def swap_adapter(model: Module, files: FetchedFiles, name: str) -> PeftModel:
    """The model, with the adapter in place of `name`. Modules that it does not change are as in the base.

    Raises `NotFound` without an adapter of that name, `Unsupported` if it cannot be swapped, `CheckFailed` if
    it does not fit; then the model is unchanged. Raises `Unavailable` if the disk fails while the weights are
    copied; then the adapter `name` is all zeros.
    """
    import torch
    from peft import PeftConfig, PeftModel

    whole: Any = model  # torch.compile's wrapper forwards all attributes
    if not isinstance(getattr(model, "_orig_mod", model), PeftModel):
        raise NotFound("hotswap replaces an adapter, and this model has none; load one first without hotswap")
    if name not in whole.peft_config:
        have = ", ".join(sorted(whole.peft_config))
        raise NotFound(f"the model has no adapter {name!r} to replace; it has {have}")
    _require_plain(files)
    config = PeftConfig.from_pretrained(str(files.folder))
    _require_compatible(whole.peft_config[name], config, files, name)
    adapter = files.adapter
    with closing(TensorReader(files.folder / adapter.format.weights, adapter.tensors)) as stored:
        swaps = _planned(whole, files, name, stored)
        reach("hotswap.checked")
        with torch.no_grad(), _zeros_after_an_error(swaps):
            stored.read_all_into(read for swap in swaps for read in _copied(swap, stored))
            for swap in swaps:
                if swap.tensors:
                    _set_scale(swap.layer.scaling, name, swap.scale)
    whole.peft_config[name] = _as_it_is(swaps, config)
    return model  # type: ignore[return-value]  # a PeftModel, or compiled from one


def _require_compatible(present: Any, config: Any, files: FetchedFiles, name: str) -> None:
    """Raises `Unsupported` if PEFT does not swap these configs. (`Any`: PEFT's configs.)"""
    from peft.utils.hotswap import CONFIG_KEYS_TO_CHECK, check_hotswap_configs_compatible

    keys = CONFIG_KEYS_TO_CHECK.get(config.peft_type, ())
    if (
        present.peft_type == config.peft_type
        and keys
        and all(getattr(present, key, None) == getattr(config, key, None) for key in keys)
    ):
        return  # PEFT would find the same, after copying both configs
    try:
        check_hotswap_configs_compatible(present, config)
    except ValueError as error:
        raise Unsupported(f"{files} cannot replace {name!r} in place: {error}") from error


def _require_plain(files: FetchedFiles) -> None:
    """Raises an error unless the adapter has only factors. A head, biases or embeddings would remain those of
    the old adapter.
    """
    adapter = files.adapter
    spec = adapter.spec
    if adapter.format is not PEFT or spec.method != "lora":
        raise Unsupported(
            f"{files} is {spec.method} ({adapter.format.name}); only LoRAs in PEFT's format can be swapped"
            " in place"
        )
    if spec.extras or spec.unclaimed:
        others = [extra.target for extra in spec.extras] or list(spec.unclaimed)
        raise Unsupported(
            f"{files} has tensors other than factors ({', '.join(others[:3])}), which would not be swapped;"
            " load it under another name instead"
        )


@dataclass(frozen=True, slots=True)
class _Swap:
    """One layer of the model, its parameters by role, the file's tensors to copy into them (none: zeros), and
    its new scale."""

    layer: Any  # a LoRA layer of PEFT
    parameters: Mapping[str, Parameter]
    tensors: Mapping[str, str]
    scale: float = 0.0


def _planned(model: Any, files: FetchedFiles, name: str, stored: TensorReader) -> list[_Swap]:
    """A swap for each layer with an adapter `name`. Nothing is changed yet; everything that could go wrong is
    checked.
    """
    layers = _layers_with(model, name)
    _require_unmerged(layers, name)
    swaps: list[_Swap] = []
    left = dict(layers)
    for module in files.adapter.spec.modules:
        if module.kind != "linear":
            raise Unsupported(
                f"{files} changes {module.path} ({module.kind}); only linear layers are swapped in place"
            )
        layer = left.pop(module.path, None)
        if layer is None:
            raise CheckFailed(f"{files} changes {module.path}, which the adapter {name!r} does not")
        parameters = _parameters(layer, name)
        _require_fit(parameters, module, files)
        for tensor in module.tensors.values():
            stored.require(tensor)
        swaps.append(_Swap(layer, parameters, module.tensors, module.scale))
    for path, layer in left.items():
        parameters = _parameters(layer, name)
        if "magnitude" in parameters:
            raise Unsupported(
                f"{files} does not change {path}, whose DoRA magnitudes would stay those of the old adapter"
            )
        swaps.append(_Swap(layer, parameters, {}))
    return swaps


def _layers_with(model: Any, name: str) -> dict[str, Any]:
    """The LoRA layers with an adapter `name`, by their paths in the base.

    PEFT lists the modules that it replaced, which is much faster than going through the whole model.
    """
    base = model.base_model
    if model.peft_config[name].target_parameters:  # several layers may then wrap one module
        modules: Iterable[tuple[str, Any]] = base.model.named_modules()
    else:
        modules = ((path, _submodule(base.model, path)) for path in base.targeted_module_names)
    return {path: layer for path, layer in modules if _has_adapter(layer, name)}


def _submodule(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = module._modules.get(part)
        if module is None:
            return None
    return module


def _has_adapter(layer: Any, name: str) -> bool:
    held = getattr(layer, "_modules", {})
    return name in held.get("lora_A", ()) or name in held.get("lora_embedding_A", ())


def _require_unmerged(layers: Mapping[str, Any], name: str) -> None:
    for path, layer in layers.items():
        if name in layer.merged_adapters:
            raise Unsupported(
                f"the adapter {name!r} is merged into {path}; call model.unmerge_adapter() before the swap"
            )


def _parameters(layer: Any, name: str) -> dict[str, Parameter]:
    """The parameters of the adapter `name` in a LoRA layer, by role."""
    found: dict[str, Parameter] = {}
    for role, part in (("A", "lora_A"), ("B", "lora_B"), ("magnitude", "lora_magnitude_vector")):
        own = layer._modules[part]._modules.get(name) if part in layer._modules else None
        if own is not None:
            found[role] = own._parameters["weight"]
            if role == "B" and own._parameters.get("bias") is not None:
                found["B_bias"] = own._parameters["bias"]
    for role in ("embedding_A", "embedding_B"):
        if name in layer._modules.get(f"lora_{role}", ()):
            found[role] = layer._modules[f"lora_{role}"][name]
    return found


def _require_fit(parameters: Mapping[str, Parameter], module: ModuleSpec, files: FetchedFiles) -> None:
    """Raises `CheckFailed` unless the module's tensors have the parameters' shapes, except for the rank."""
    tensors = module.tensors
    if parameters.keys() != tensors.keys():
        raise CheckFailed(
            f"{files} has {', '.join(sorted(tensors))} of {module.path},"
            f" and the model {', '.join(sorted(parameters))}"
        )
    sides = parameters["A"].shape[1], parameters["B"].shape[0]
    if sides != (module.fan_in, module.fan_out):
        raise CheckFailed(
            f"{files} has {module.path} from {module.fan_in} to {module.fan_out}, "
            f"and the model from {sides[0]} to {sides[1]}"
        )
    infos = files.adapter.tensors
    if any(
        parameters[role].shape != infos[tensor].shape
        for role, tensor in tensors.items()
        if role not in ("A", "B")
    ):
        raise CheckFailed(f"{files} has biases or magnitudes of a different size for {module.path}")


@contextmanager
def _zeros_after_an_error(swaps: Sequence[_Swap]) -> Iterator[None]:
    """Sets the adapter to zero if its weights are copied only in part, so that the model answers like its
    base.
    """
    try:
        yield
    except Unavailable:
        for parameter in (parameter for swap in swaps for parameter in swap.parameters.values()):
            parameter.data.zero_()
        raise


def _copied(swap: _Swap, stored: TensorReader) -> Iterator[tuple[str, Tensor]]:
    """Returns the tensors to read into parameters of the same shape. Copies all others: a smaller rank is
    filled with zeros; a larger one replaces the parameters' memory.
    """
    for role, parameter in swap.parameters.items():
        held = parameter.data
        if role not in swap.tensors:
            held.zero_()
            continue
        tensor = swap.tensors[role]
        shape = stored.shape(tensor)
        if held.shape == shape:
            yield tensor, held
        elif all(map(int.__ge__, held.shape, shape)):
            held.zero_()[tuple(map(slice, shape))].copy_(stored.read(tensor))
        else:
            parameter.data = stored.read(tensor).to(held.device, held.dtype, copy=True)


def _set_scale(scaling: Any, name: str, scale: float) -> None:
    """Sets the scale. A compiled model's scale is a tensor (`prepare_model_for_compiled_hotswap`), which is
    kept.
    """
    if isinstance(scaling[name], float | int):
        if scaling[name] != scale:
            scaling[name] = scale
    else:
        scaling[name].fill_(scale)


def _as_it_is(swaps: Sequence[_Swap], config: Any) -> Any:
    """The new config, with the rank of the model's tensors, which keep their size if those of the new adapter
    are smaller.
    """
    rank = max((swap.parameters["A"].shape[0] for swap in swaps), default=config.r)
    if rank == config.r or config.rank_pattern or config.alpha_pattern:
        return config
    grown = math.sqrt(rank / config.r) if config.use_rslora else rank / config.r
    config.lora_alpha, config.r = config.lora_alpha * grown, rank
    return config
