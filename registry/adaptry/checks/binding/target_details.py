"""Details of each update that only the config contains: its scale, the orientation of its factors, its rows.

They are added to the result of `module_map`, so that later code need not read the config.
"""

from __future__ import annotations

from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.formats import PEFT
from adaptry.adapters.header import PLAIN_FLOATS
from adaptry.adapters.methods.extras import token_rows
from adaptry.adapters.methods.lora_config import LoraVariant, scale_of
from adaptry.adapters.methods.target_parameters import is_transposed_by_peft
from adaptry.bases.module_map import TRANSPOSED_EXPERTS, ExtraTarget, ModuleMap, TargetTensor
from adaptry.core.errors import InvalidConfig


def with_target_details(
    found: ModuleMap, adapter: Adapter, base: BaseRecord, variant: LoraVariant | None
) -> ModuleMap:
    """`found`, with the details of each update. `variant` is that of a LoRA. Raises `InvalidConfig` for an
    invalid rank or scale of a parameter, and `Unavailable`.
    """
    if adapter.format is not PEFT:
        return found
    found = replace(found, extras=tuple(_with_rows(extra, adapter.config) for extra in found.extras))
    if variant is None:
        return found
    return replace(
        found, placed=tuple(_with_details(target, adapter, base, variant) for target in found.placed)
    )


def _with_rows(extra: ExtraTarget, config: AdapterConfig) -> ExtraTarget:
    if extra.extra.kind != "token_rows":
        return extra
    try:
        return replace(extra, rows=token_rows(config, extra.extra.target))
    except InvalidConfig:  # no rows are listed; this is reported as a refusal
        return extra


def _with_details(
    target: TargetTensor, adapter: Adapter, base: BaseRecord, variant: LoraVariant
) -> TargetTensor:
    """`target` with the scale from its patterns, whether it is plain, and the orientation of its factors."""
    config, module = adapter.config, target.module
    if module.kind == "parameter" and (
        config.pattern_values("rank_pattern") or config.pattern_values("alpha_pattern")
    ):  # patterns match the parameter's name in memory, which only the base has
        name = target.expert.parameter if target.expert else target.weight.name
        scale, alpha, _ = scale_of(config, name)
        module = module.model_copy(update={"scale": scale, "alpha": alpha})
    is_matrix = module.kind == "linear" and target.orientation in ("linear", "conv1d")
    is_pair = module.tensors.keys() == {"A", "B"}
    is_streamed = all(adapter.tensors[name].dtype in PLAIN_FLOATS for name in module.tensors.values())
    return replace(
        target,
        module=module,
        is_plain=variant.is_plain and is_matrix and is_pair and is_streamed,
        is_transposed=target.orientation == "parameter" and _is_transposed(target, adapter, base),
    )


def _is_transposed(target: TargetTensor, adapter: Adapter, base: BaseRecord) -> bool:
    """Whether the factors belong to experts that are stored as [in, out]."""
    module, shape = target.module, base.tensors[target.tensor].shape
    if module.fan_in == module.fan_out:  # the shapes do not determine it
        is_stored_transposed = len(shape) == 3 and base.facts.get("model_type") in TRANSPOSED_EXPERTS
        return is_stored_transposed or is_transposed_by_peft(adapter.spec.peft_version)
    return len(shape) == 3 and shape[1:] == (module.fan_in, module.fan_out)
