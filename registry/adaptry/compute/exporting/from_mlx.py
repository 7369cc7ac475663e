"""mlx-lm's LoRA in PEFT's layout: the factors turned round, its one scale as `lora_alpha` over `r`.

The numbers stay as they are, bit for bit. Experts of a layer and DoRA are told to be merged by mlx-lm itself,
and so is an update of an embedding that is the output head too: mlx-lm changes both, PEFT the input only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptry.adapters.formats import MLX
from adaptry.adapters.spec import ModuleSpec
from adaptry.checks.runtimes import Runtime
from adaptry.compute.converting.convert import with_config_fields
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.rewrite import read_tensor
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.compute.lazy_adapters.lora import LoraOptions, build_lora
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.core.errors import Unsupported

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors


def convert_mlx_layout(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Raises `Unsupported` for what is not mlx-lm's plain LoRA."""
    adapter, label = parent.adapter, parent.label
    if adapter.format is not MLX:
        raise Unsupported(
            f"{label} is in the layout of {adapter.format.tool}, and is not brought into PEFT's:"
            f" {adapter.format.usage_hint}"
        )
    odd = [module.path for module in adapter.spec.modules if module.kind not in ("linear", "embedding")]
    if "dora" in adapter.spec.traits or odd:
        what = "a DoRA" if not odd else f"of experts ({odd[0]})"
        raise Unsupported(f"{label} is {what}, which is not brought into PEFT's layout: {MLX.usage_hint}")
    if any(module.kind == "embedding" for module in adapter.spec.modules):
        _refuse_tied(label, options)
    modules = {
        WeightSite(module.path, module.kind, module.fan_out, module.fan_in): module
        for module in adapter.spec.modules
    }

    def compute(site: WeightSite) -> tuple[Factors, Mapping[str, float]]:
        return _factors(parent, modules[site]), {}

    dtypes = {adapter.tensors[name].dtype for name in adapter.tensors}
    lazy = build_lora(
        [parent],
        {"operation": "layout", "from": adapter.format.name},
        list(modules),
        compute,
        LoraOptions(dtypes.pop() if len(dtypes) == 1 else "F32"),
    )
    scale = next(iter(modules.values())).scale if modules else 1.0
    return with_config_fields(
        lazy, scale, {"task_type": "CAUSAL_LM", "target_modules": _targets(adapter.spec.modules)}
    )


def _refuse_tied(label: str, options: ExportOptions) -> None:
    facts = options.require_record(f"bringing the embedding's update of {label} into PEFT's layout").facts
    if facts.get("tie_word_embeddings"):
        raise Unsupported(
            f"{label} updates an embedding that is the output head too, which mlx-lm changes in both places"
            f" and PEFT in one: {MLX.usage_hint}"
        )


def _factors(parent: ParentAdapter, module: ModuleSpec) -> Factors:
    from adaptry.compute.tensors.lowrank import Factors

    down, up = (read_tensor(parent.adapter, module.tensors[role]).float().T for role in ("lora_a", "lora_b"))
    return Factors(up.contiguous(), down.contiguous())


def _targets(modules: tuple[ModuleSpec, ...]) -> list[str]:
    return sorted(module.path for module in modules)
