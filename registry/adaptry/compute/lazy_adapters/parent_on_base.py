"""A parent with the names and scales that PEFT gives it on its base, if they differ from those in its files.

PEFT fuses the factors of a layer's single experts, and adapts its router as a parameter. It then takes their
scales from the config's entries for these parameters (`checks.binding.expert_factors`). Without the base,
they are unknown.
"""

from __future__ import annotations

import re
from dataclasses import replace

from adaptry.adapters.adapter import Adapter, with_modules
from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.binding import as_peft_reads, bind
from adaptry.checks.binding.expert_factors import is_single_expert
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed

_ROUTER = re.compile(r".*\.(?:mlp|block_sparse_moe)\.(?:gate|router)")


def parent_as_peft_reads(parent: ParentAdapter, base: BaseRecord | None = None) -> ParentAdapter:
    """`parent` on `base`, or on its own base if that is known.

    Raises `CheckFailed` if its scales depend on a base and none is known.
    """
    record = base or parent.base
    adapter = parent.adapter if record is None else as_peft_reads(parent.adapter, record)
    if _has_scaled_experts(adapter):
        if record is None:
            raise CheckFailed(
                f"{parent.label} changes single experts or routers, and its config has rsLoRA or patterns."
                " PEFT takes their scales from the parameters in which the base holds them, but the base is"
                " unknown here: push the adapter with its base, or pass --base if the command has that option"
            )
        adapter = _with_scales(adapter, record)
    if adapter is parent.adapter:
        return parent
    return replace(parent, adapter=adapter, written=parent.written or parent.adapter)


def _has_scaled_experts(adapter: Adapter) -> bool:
    """Whether the adapter has single experts or routers whose scale may differ from `lora_alpha / r`."""
    fields = adapter.config.fields
    has_patterns = bool(fields.get("rank_pattern") or fields.get("alpha_pattern"))
    if adapter.spec.method != "lora" or not (has_patterns or fields.get("use_rslora")):
        return False
    return any(
        is_single_expert(module.path) or (has_patterns and _ROUTER.fullmatch(module.path))
        for module in adapter.spec.modules
    )


def _with_scales(adapter: Adapter, base: BaseRecord) -> Adapter:
    found = {target.module.path: target.module for target in bind(adapter, base).intended.placed}
    return with_modules(
        adapter,
        (
            module.model_copy(update={"scale": own.scale, "alpha": own.alpha})
            if (own := found.get(module.path))
            else module
            for module in adapter.spec.modules
        ),
    )
