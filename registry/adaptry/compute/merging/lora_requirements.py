"""Requirements on a LoRA's factors for a merge: the shapes of its weights, and the layers that its variant
supports.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.header import FLOATS
from adaptry.adapters.methods.lora_config import LoraVariant
from adaptry.bases.module_map import ModuleMap, TargetTensor
from adaptry.checks.binding import BoundAdapter
from adaptry.compute.merging.vocabulary import RowCounts
from adaptry.core.errors import CheckFailed, Unsupported


def require_lora(label: str, bound: BoundAdapter, variant: LoraVariant, rows: RowCounts) -> tuple[str, ...]:
    """Checks each module against its weight, which has `rows` rows if it grows, and returns notes. Raises
    `CheckFailed`, `Unsupported`.
    """
    for target in bound.module_map.placed:
        shape = bound.base.tensors[target.tensor].shape
        grown = (rows.get(target.tensor, shape[0]), *shape[1:])
        _check_module(label, bound.adapter, target, variant, grown)
        _check_start(label, target, variant, grown)
        if target.module.kind == "attention" and bound.adapter.config.flag("fan_in_fan_out"):
            raise Unsupported(
                f"{label}: fan_in_fan_out is set, for which PEFT transposes the update of"
                f" {target.module.path}, unless it adapts a linear layer before it: merge it with PEFT"
            )
    return tuple(_notes(label, variant, bound.module_map))


def _check_module(
    label: str, adapter: Adapter, target: TargetTensor, variant: LoraVariant, shape: tuple[int, ...]
) -> None:
    module = target.module
    roles = ("embedding_A", "embedding_B") if module.kind == "embedding" else ("A", "B")
    down, up = (adapter.tensors[module.tensors[role]] for role in roles)
    if not (down.numel and up.numel):
        raise CheckFailed(f"{label}: the factors of {module.path} are empty, so it was never trained")
    if not {down.dtype, up.dtype} <= FLOATS:
        raise Unsupported(
            f"{label}: the factors of {module.path} are {down.dtype} and {up.dtype}, but only"
            " floating-point factors can be merged"
        )
    for_down, for_up = variant.blocks(module.path)
    if module.kind == "conv" and up.shape[1] < module.rank and module.rank % up.shape[1] == 0:
        raise Unsupported(
            f"{label}: {module.path} is a grouped convolution, for which PEFT does not define a LoRA's merge:"
            " serve it with PEFT"
        )
    if down.shape[0] != module.rank or up.shape[1] * for_up != module.rank or module.rank % for_down:
        raise CheckFailed(
            f"{label}: the shapes of the factors of {module.path} do not match: lora_B {list(up.shape)} by "
            f"lora_A {list(down.shape)}"
        )
    if not _fits(target, down.shape, shape):
        raise CheckFailed(
            f"{label}: {module.path} changes a weight of {module.fan_out}×{module.fan_in}, but"
            f" {target.tensor} is {'×'.join(map(str, shape))}: this is not the base it was trained on"
        )


def _notes(label: str, variant: LoraVariant, module_map: ModuleMap) -> Iterator[str]:
    """Notes about how the LoRA is merged."""
    if any(placed.module.kind == "attention" for placed in module_map.placed):
        yield (
            f"{label} changes a MultiheadAttention: PEFT applies the update of its out_proj twice, in"
            " training and in its merge, and so does this merge"
        )
    if variant.removed is not None:
        yield (
            f"{label} moved part of the base's weights into the adapter ({variant.removed}). That part is"
            " computed"
            " again from this base, so the result is correct only if it was trained on exactly these weights"
        )


def _fits(target: TargetTensor, down: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    wanted = (target.module.fan_out, target.module.fan_in)
    if target.expert is not None:
        return target.module.rank % target.expert.count == 0
    match target.orientation:
        case "embedding" | "conv1d":
            return shape == wanted[::-1]
        case "conv":
            return shape == (*wanted, *down[2:])
        case "parameter" if len(shape) == 3:
            return shape[1:] in (wanted, wanted[::-1]) and target.module.rank % shape[0] == 0
        case _:
            return shape == wanted


def _check_start(label: str, target: TargetTensor, variant: LoraVariant, shape: tuple[int, ...]) -> None:
    """Raises `Unsupported` for a variant on a kind of layer for which PEFT does not define it."""
    is_weight = len(shape) == 2 and target.weight.name.endswith(".weight")  # of the module that PEFT reads
    is_matrix = (target.orientation in ("linear", "conv1d") and target.module.kind == "linear") or (
        target.orientation == "parameter" and is_weight
    )
    is_embedding = target.module.kind == "embedding"
    name = variant.removed
    if name is not None and not is_matrix and (name == "KaSA" or not is_embedding):
        layer = "an embedding" if is_embedding else f"a {target.module.kind} layer"
        raise Unsupported(f"{label}: {name} on {target.module.path}, {layer}, is not defined by PEFT either")
    if name == "KaSA" and (target.orientation != "linear" or target.module.rank >= min(shape)):
        raise Unsupported(
            f"{label}: KaSA on {target.module.path} is not defined: it needs a Linear wider than its rank"
        )
    if "B_bias" in target.module.tensors and target.orientation == "attention":
        raise Unsupported(
            f"{label}: PEFT ignores lora_bias on {target.module.path}, a MultiheadAttention, in training and"
            " merging; train with lora_bias=False"
        )
