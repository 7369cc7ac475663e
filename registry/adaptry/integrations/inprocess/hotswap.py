"""Hotswap: replaces a loaded adapter's weights by another's, under the same name, in a possibly compiled
model.

PEFT copies the weights and the scale. Cases that it would silently do wrongly are refused first, and its
config is updated to match the model, so that saving the model is correct.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from adaptry.adapters.formats import PEFT
from adaptry.core.errors import CheckFailed, NotFound, Unsupported
from adaptry.integrations.inprocess.fetch import FetchedFiles

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.nn import Module


def swap_adapter(model: Module, files: FetchedFiles, name: str) -> PeftModel:
    """The model, with the adapter in place of `name`. Modules that it does not change are as in the base.

    Raises `NotFound` without an adapter of that name, `Unsupported` if PEFT cannot swap it, `CheckFailed` if
    it does not fit; then the model is unchanged.
    """
    from peft import PeftConfig, PeftModel
    from peft.utils.hotswap import check_hotswap_configs_compatible

    whole: Any = model  # torch.compile's wrapper forwards all attributes
    if not isinstance(getattr(model, "_orig_mod", model), PeftModel):
        raise NotFound("hotswap replaces an adapter, and this model has none; load one first without hotswap")
    if name not in whole.peft_config:
        have = ", ".join(sorted(whole.peft_config))
        raise NotFound(f"the model has no adapter {name!r} to replace; it has {have}")
    _require_plain(files)
    config = PeftConfig.from_pretrained(str(files.folder))
    try:
        check_hotswap_configs_compatible(whole.peft_config[name], config)
    except ValueError as error:
        raise Unsupported(f"{files} cannot replace {name!r} in place: {error}") from error
    _swapped(whole, files, name)
    whole.peft_config[name] = _as_it_is(whole, name, config)
    return model  # type: ignore[return-value]  # a PeftModel, or compiled from one


def _require_plain(files: FetchedFiles) -> None:
    """Only factors are swapped: a head, biases or embeddings would stay those of the old adapter."""
    adapter = files.adapter
    spec = adapter.spec
    if adapter.format is not PEFT or spec.method != "lora":
        raise Unsupported(
            f"{files} is {spec.method} ({adapter.format.name}); PEFT swaps LoRAs of its own format"
        )
    if spec.extras or spec.unclaimed:
        others = [extra.target for extra in spec.extras] or list(spec.unclaimed)
        raise Unsupported(
            f"{files} has more than factors ({', '.join(others[:3])}), which would not be swapped; "
            "load it under another name instead"
        )


def _swapped(model: Any, files: FetchedFiles, name: str) -> None:
    """(`Any`: a PEFT model, perhaps compiled.)"""
    from peft.utils.hotswap import hotswap_adapter

    _require_sides(model, files, name)
    try:
        hotswap_adapter(model, str(files.folder), adapter_name=name, torch_device=_device(model))
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise CheckFailed(f"PEFT does not swap {files} in: {error}") from error


def _require_sides(model: Any, files: FetchedFiles, name: str) -> None:
    """PEFT compares shapes only during a swap, and writes narrower modules into wider ones."""
    layers = {path: layer for path, layer in model.named_modules() if name in getattr(layer, "lora_A", ())}
    for module in files.adapter.spec.modules:
        if module.kind != "linear":
            raise Unsupported(
                f"{files} changes {module.path} ({module.kind}); PEFT swaps linear layers in place"
            )
        layer = next((layers[path] for path in layers if f".{path}".endswith(f".{module.path}")), None)
        if layer is None:
            raise CheckFailed(f"{files} changes {module.path}, which the adapter {name!r} does not")
        sides = (layer.lora_A[name].in_features, layer.lora_B[name].out_features)
        if sides != (module.fan_in, module.fan_out):
            raise CheckFailed(
                f"{files} has {module.path} from {module.fan_in} to {module.fan_out}, "
                f"and the model from {sides[0]} to {sides[1]}"
            )


def _device(model: Any) -> str:
    return str(next(model.parameters()).device)


def _as_it_is(model: Any, name: str, config: Any) -> Any:
    """The new config, with the tensors' rank: they keep their size if the new adapter's are smaller."""
    held = [
        layer.lora_A[name].weight.shape[0]
        for layer in model.modules()
        if name in getattr(layer, "lora_A", ())
    ]
    rank = max(held, default=config.r)
    if rank == config.r or config.rank_pattern or config.alpha_pattern:
        return config
    grown = math.sqrt(rank / config.r) if config.use_rslora else rank / config.r
    config.lora_alpha, config.r = config.lora_alpha * grown, rank
    return config
