"""Writes mlx-lm's adapter: `lora_a` [in, r], `lora_b` [r, out], one `scale` for all, and the list of modules.

mlx-lm creates LoRA layers, all with one rank, for every module in `keys` in the last `num_layers` layers. A
module without factors in the file would keep random ones, so missing factors are written as zeros.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.formats import CONFIG, MLX, PEFT
from adaptry.adapters.methods.plain_lora import plain_reason
from adaptry.adapters.output_folder import output_folder
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import Json, ParentAdapter
from adaptry.compute.lazy_adapters.sites import lora_factors
from adaptry.compute.lazy_adapters.tensor_file import write_tensors
from adaptry.core.errors import CheckFailed, Unsupported

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

_LAYER = re.compile(r"(?P<before>(?:.*\.)?layers)\.(?P<number>\d+)\.(?P<key>.+)")


def write(parent: ParentAdapter, target: Path, options: ExportOptions) -> tuple[str, ...]:
    """Writes the folder. Raises `Unsupported` for modules that mlx-lm lacks, `CheckFailed` for parts that its
    LoRA cannot represent, and the errors of `output_folder`.
    """
    layers = options.require_record("an adapter for mlx-lm").facts.get("layers")
    modules = _checked(parent)
    if not isinstance(layers, int):
        raise CheckFailed(
            "the base's config has no number of layers, and mlx-lm counts layers from the last one"
        )
    filled = dict(_filled(modules, layers))
    rank = max(module.rank for module in modules.values())
    scales = {module.scale for module in modules.values()}
    scale = scales.pop() if len(scales) == 1 else 1.0
    names = [f"{path}.{role}" for path in filled for role in ("lora_a", "lora_b")]
    with output_folder(target, replace=options.may_replace, sources=[parent.adapter.content]) as folder:
        write_tensors(folder / MLX.weights, names, _tensors(parent, filled, rank, scale))
        text = json.dumps(_config(parent, options, filled, layers, rank, scale), indent=2)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    zeros = sum(path not in modules for path in filled)
    return (f"{zeros} modules for which mlx-lm creates layers have zero updates",) if zeros else ()


def _checked(parent: ParentAdapter) -> Mapping[str, ModuleSpec]:
    adapter, label = parent.adapter, parent.label
    if adapter.format is not PEFT:
        raise Unsupported(
            f"{label} is in the layout of {adapter.format.tool}; only PEFT's can be written for mlx-lm"
        )
    if (reason := plain_reason(adapter)) or adapter.spec.extras or adapter.spec.unclaimed:
        whole = (*(extra.target for extra in adapter.spec.extras), *adapter.spec.unclaimed)
        reason = reason or f"contains the whole weight {whole[0]}"
        raise CheckFailed(
            f"{label} {reason}, which mlx-lm's LoRA cannot represent: merge it (--format checkpoint)"
        )
    odd = [
        module.path
        for module in adapter.spec.modules
        if module.kind != "linear" or not _LAYER.fullmatch(module.path)
    ]
    if odd or not adapter.spec.modules:
        raise Unsupported(
            f"{label} changes {odd[0] if odd else 'nothing'}, but only linear modules inside layers can be"
            " written for mlx-lm"
        )
    if experts := [module.path for module in adapter.spec.modules if ".experts." in module.path]:
        raise Unsupported(
            f"{label} changes {experts[0]}, but mlx-lm has the experts of a layer in one module, and refuses"
            " adapters of single ones: merge it (--format checkpoint)"
        )
    return {module.path: module for module in adapter.spec.modules}


def _filled(modules: Mapping[str, ModuleSpec], layers: int) -> Iterator[tuple[str, ModuleSpec]]:
    """Every module for which mlx-lm creates a layer, with a module of the same kind and sides."""
    found = [match for path in modules if (match := _LAYER.fullmatch(path))]
    first = min(int(match["number"]) for match in found)
    kinds = {(match["before"], match["key"]): modules[match[0]] for match in found}
    for (before, key), like in kinds.items():
        for number in range(first, layers):
            path = f"{before}.{number}.{key}"
            yield path, modules.get(path, like)


def _config(
    parent: ParentAdapter,
    options: ExportOptions,
    filled: Mapping[str, ModuleSpec],
    layers: int,
    rank: int,
    scale: float,
) -> Json:
    found = [match for path in filled if (match := _LAYER.fullmatch(path))]
    return {
        "model": options.base_name or parent.adapter.config.base_name or "",
        "fine_tune_type": "lora",
        "num_layers": layers - min(int(match["number"]) for match in found),
        "lora_parameters": {
            "rank": rank,
            "scale": scale,
            "dropout": 0.0,
            "keys": sorted({match["key"] for match in found}),
        },
    }


def _tensors(
    parent: ParentAdapter, filled: Mapping[str, ModuleSpec], rank: int, scale: float
) -> Iterator[tuple[str, Tensor]]:
    for path, module in filled.items():
        factors = _factors(parent, module, rank, scale) if module.path == path else _zeros(module, rank)
        yield f"{path}.lora_a", factors.down.T.contiguous()
        yield f"{path}.lora_b", factors.up.T.contiguous()


def _factors(parent: ParentAdapter, module: ModuleSpec, rank: int, scale: float) -> Factors:
    from adaptry.compute.lazy_adapters.rounding import check_values
    from adaptry.compute.tensors.lowrank import Factors, pad_rank

    own = check_values(lora_factors(parent.adapter, module), f"{parent.label}: the update of {module.path}")
    up = own.up if module.scale == scale else own.up * (module.scale / scale)
    return pad_rank(Factors(up, own.down), rank)


def _zeros(module: ModuleSpec, rank: int) -> Factors:
    import torch

    from adaptry.compute.tensors.lowrank import Factors

    return Factors(torch.zeros(module.fan_out, rank), torch.zeros(rank, module.fan_in))
