"""Writes LoRA files of diffusion pipelines: diffusers' and kohya's, from each other or from a part's PEFT
folder.

Factors are copied unchanged. The scale is written where the loader reads it: in the metadata for diffusers,
in an `alpha` of each module for kohya. In kohya's file, alpha is the same for a whole part, since diffusers
0.42 gives attention the most frequent alpha of a part; the rest of a different scale is multiplied into
`lora_up`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptry.adapters.formats import DIFFUSERS, KOHYA, PEFT
from adaptry.adapters.methods.plain_lora import plain_reason
from adaptry.adapters.output_folder import output_folder
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.pipeline_names import diffusers_names, kohya_name
from adaptry.compute.exporting.rewrite import read_tensor
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.tensor_file import write_tensors
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

KOHYA_FILE = "lora.safetensors"
_ROLES = {
    PEFT.name: ("A", "B"),
    DIFFUSERS.name: ("A", "B"),
    KOHYA.name: ("lora_down.weight", "lora_up.weight"),
}


@dataclass(frozen=True, slots=True)
class PipelineModule:
    """A module by its name in the pipeline, beginning with the part, with the roles of its two factors."""

    path: str
    module: ModuleSpec
    roles: tuple[str, str]

    @property
    def part(self) -> str:
        return self.path.partition(".")[0]


def write_diffusers(parent: ParentAdapter, target: Path, options: ExportOptions) -> tuple[str, ...]:
    """Writes diffusers' file. Raises `Unsupported`, `CheckFailed` for anything but a plain LoRA of a
    pipeline, and the errors of `output_folder`.
    """
    modules = _placed(parent, options)
    names = [f"{each.path}.lora_{role}.weight" for each in modules for role in "AB"]
    metadata = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps(_metadata(modules), indent=2, sort_keys=True),
    }
    with output_folder(target, replace=options.may_replace, sources=[parent.adapter.content]) as folder:
        write_tensors(folder / DIFFUSERS.weights, names, _factors(parent, modules, names), metadata)
    return ()


def write_kohya(parent: ParentAdapter, target: Path, options: ExportOptions) -> tuple[str, ...]:
    """Writes kohya's file. Raises `Unsupported`, `CheckFailed` for anything but a plain LoRA of a UNet and
    its text encoders, and the errors of `output_folder`.
    """
    modules = _placed(parent, options)
    parts = {each.part for each in modules}
    kohya_names = [kohya_name(each.path, parts) for each in modules]
    names = [f"{module}.{role}" for module in kohya_names for role in ("lora_down.weight", "lora_up.weight")]
    alphas = [f"{module}.alpha" for module in kohya_names]
    with output_folder(target, replace=options.may_replace, sources=[parent.adapter.content]) as folder:
        tensors = _with_alphas(
            _rescaled_up_factors(_factors(parent, modules, names), modules), alphas, modules
        )
        write_tensors(folder / KOHYA_FILE, [*names, *alphas], tensors, _facts(modules, options))
    return ()


def _placed(parent: ParentAdapter, options: ExportOptions) -> list[PipelineModule]:
    adapter, label = parent.adapter, parent.label
    roles = _ROLES.get(adapter.format.name)
    if roles is None:
        raise Unsupported(
            f"{label} is in the layout of {adapter.format.tool}, which cannot be written as a pipeline's file"
        )
    strange = [
        role for module in adapter.spec.modules for role in module.tensors if role not in (*roles, "alpha")
    ]
    reason = plain_reason(adapter) or (f"has {strange[0]} in addition to its factors" if strange else None)
    if reason or adapter.spec.extras or adapter.spec.unclaimed or not adapter.spec.modules:
        raise CheckFailed(
            f"{label} cannot be written as a pipeline's LoRA file, since it"
            f" {reason or 'does not consist of factors only'}"
        )
    paths = _paths(parent, options)
    return [PipelineModule(paths[module.path], module, roles) for module in adapter.spec.modules]


def _paths(parent: ParentAdapter, options: ExportOptions) -> Mapping[str, str]:
    adapter = parent.adapter
    own = [module.path for module in adapter.spec.modules]
    if adapter.format.name == DIFFUSERS.name:
        return {path: path for path in own}
    if adapter.format.name == KOHYA.name:
        base = options.require_record(f"recovering the module names of {parent.label} from kohya's")
        return diffusers_names(own, base.tensors, parent.label)
    if options.part is None:
        raise CheckFailed(
            f"PEFT's folder does not record which part of a pipeline {parent.label} is for: pass --part "
            "(such as unet)"
        )
    return {path: f"{options.part}.{path}" for path in own}


def _metadata(modules: list[PipelineModule]) -> dict[str, Any]:
    """Each part's LoraConfig under the part's name, as `save_lora_weights` writes it. (`Any`: JSON.)"""
    fields: dict[str, Any] = {}
    for part in sorted({each.part for each in modules}):
        inside = {each.path.removeprefix(f"{part}."): each.module for each in modules if each.part == part}
        rank = Counter(module.rank for module in inside.values()).most_common(1)[0][0]
        alpha = Counter(_alpha(module) for module in inside.values()).most_common(1)[0][0]
        config = {
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {path: module.rank for path, module in inside.items() if module.rank != rank},
            "alpha_pattern": {
                path: _alpha(module) for path, module in inside.items() if _alpha(module) != alpha
            },
            "target_modules": sorted(inside),
            "use_dora": False,
            "use_rslora": False,
            "lora_bias": False,
        }
        fields |= {f"{part}.{key}": value for key, value in config.items()}
    return fields


def _alpha(module: ModuleSpec) -> float:
    alpha = module.scale * module.rank
    return int(alpha) if alpha == int(alpha) else alpha


def _facts(modules: list[PipelineModule], options: ExportOptions) -> dict[str, str]:
    """sd-scripts' metadata fields that people read; if modules differ, its term for that."""
    ranks = {str(each.module.rank) for each in modules}
    alphas = {str(alpha) for alpha in _commonest(modules).values()}
    facts = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": ranks.pop() if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": alphas.pop() if len(alphas) == 1 else "Dynamic",
    }
    return {"format": "pt", **facts, **({"ss_sd_model_name": options.base_name} if options.base_name else {})}


def _factors(
    parent: ParentAdapter, modules: list[PipelineModule], names: list[str]
) -> Iterator[tuple[str, Tensor]]:
    tensors = (each.module.tensors[role] for each in modules for role in each.roles)
    for name, tensor in zip(names, tensors, strict=True):
        yield name, read_tensor(parent.adapter, tensor)


def _with_alphas(
    factors: Iterator[tuple[str, Tensor]], names: list[str], modules: list[PipelineModule]
) -> Iterator[tuple[str, Tensor]]:
    import torch

    yield from factors
    common = _commonest(modules)
    for name, each in zip(names, modules, strict=True):
        yield name, torch.tensor(float(common[each.part]))


def _rescaled_up_factors(
    factors: Iterator[tuple[str, Tensor]], modules: list[PipelineModule]
) -> Iterator[tuple[str, Tensor]]:
    """Each `lora_up`, multiplied by the ratio of its alpha to that of its part."""
    common = _commonest(modules)
    for each in modules:
        rest = _alpha(each.module) / common[each.part]
        yield next(factors)
        name, up = next(factors)
        yield name, up if rest == 1.0 else (up.float() * rest).to(up.dtype)


def _commonest(modules: list[PipelineModule]) -> dict[str, float]:
    """The most frequent alpha of each part."""
    parts = {each.part for each in modules}
    return {
        part: (
            Counter(_alpha(each.module) for each in modules if each.part == part).most_common(1)[0][0] or 1.0
        )  # 0 cannot be a divisor
        for part in parts
    }
