"""The change that a LoRA makes to a weight or bias, with PEFT 0.21's order of operations for each variant.

Every variant starts from the weight (or from the part that its initialisation left), and adds `scale · B·A`
in the layer's shape. Variants round at different steps, which affects a fifth of all half-precision values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from adaptry.adapters.methods.lora_config import lora_variant
from adaptry.adapters.methods.lora_init import initial_weight
from adaptry.adapters.methods.method import ModuleTensors, added
from adaptry.adapters.methods.row_change import RowChange, by_rows
from adaptry.adapters.methods.row_formula import FormulaArrays, FormulaKind, ModuleArrays, RowFormula, mapped

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.fused_experts import FusedExpert
    from adaptry.adapters.methods.row_formula import Floats

_TRANSPOSED = ("conv1d", "embedding")


def merge_weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    """`weight` after the merge, in its shape and dtype."""
    start = initial_weight(weight, parts)
    delta = _delta(parts, weight)
    if "magnitude" in parts:
        return _dora(start, delta, parts)
    if parts.module.kind == "attention":
        # PEFT applies out_proj's update twice, in the forward pass and in the merge, so it was trained that
        # way.
        start = start + delta.to(start.dtype)
    if _rounds_delta(parts):
        return start + delta.to(start.dtype)
    return added(start, delta).to(start.dtype)


def merge_rows(parts: ModuleTensors, shape: tuple[int, ...]) -> RowChange | None:
    """`merge_weight` by rows, unless the variant needs the whole weight or the whole of B."""
    variant = lora_variant(parts.config)
    if variant.removed or variant.is_bdlora:
        return None
    return by_rows(merge_weight, "B", "magnitude")(parts, shape)


def merge_formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """`merge_weight` as a formula, unless the variant needs the whole weight or has a diagonal matrix."""
    variant = lora_variant(parts.config)
    if variant.removed or variant.is_bdlora or "diag" in parts:
        return None
    if parts.orientation == "embedding":
        return _embedding_formula(parts, shape)
    if (parts.shape("B")[0], parts.shape("A")[1]) != shape:
        return None
    is_rounded = variant.initialisation == "mica"
    if "magnitude" not in parts:
        kind: FormulaKind = "rounded" if is_rounded else "sum"
        return _formula(kind, parts, lambda: (parts["B"], parts["A"]))
    if is_rounded or parts.shape("magnitude") != shape[:1]:
        return None
    return _formula("normalised", parts, lambda: (parts["B"], parts["A"]), lambda: parts["magnitude"])


def _embedding_formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    if "magnitude" in parts or "embedding_A" not in parts:
        return None
    if (parts.shape("embedding_A")[1], parts.shape("embedding_B")[0]) != shape:
        return None
    return _formula("rounded", parts, lambda: (parts["embedding_A"].T, parts["embedding_B"].T))


def _formula(
    kind: FormulaKind,
    parts: ModuleArrays,
    factors: Callable[[], tuple[Floats, Floats]],
    vector: Callable[[], Floats | None] = lambda: None,
) -> RowFormula:
    def read() -> FormulaArrays:
        return FormulaArrays((factors(),), parts.module.scale, vector=vector())

    return RowFormula(kind, parts.module.rank, read)


def bias_formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """Like `merge_bias`, without torch."""
    if parts.shape("B_bias") != shape[:1]:
        return None

    def read() -> FormulaArrays:
        import numpy as np

        added = parts["B_bias"][:, None] * np.float32(parts.module.scale)
        return mapped(lambda rows, first: rows + added[first : first + len(rows)])

    return RowFormula("mapped", 0, read)


def merge_expert(weight: Tensor, parts: ModuleTensors, expert: FusedExpert) -> Tensor:
    """One expert's matrix [rows, in] after the merge, in the dtype of `weight`, from the factors A
    [experts·r, in] and B [out, r·experts] of all fused experts."""
    rank = parts.module.rank // expert.count
    down = parts["A"][expert.index * rank : (expert.index + 1) * rank]
    up = parts["B"][:, expert.index :: expert.count]
    delta = up @ down * parts.module.scale
    if parts.orientation == "parameter_transposed":
        delta = delta.T
    delta = delta[slice(*expert.rows)]
    return weight + delta.to(weight.dtype)


def merge_bias(bias: Tensor, parts: ModuleTensors) -> Tensor:
    """`bias` [out] after the merge (`lora_bias`); the bias of B is scaled like the update."""
    return (bias.float() + parts["B_bias"] * parts.module.scale).to(bias.dtype)


def _rounds_delta(parts: ModuleTensors) -> bool:
    """Whether the update is rounded to the weight's dtype before it is added."""
    variant = lora_variant(parts.config)
    return (
        parts.orientation in ("embedding", "attention", "parameter", "parameter_transposed")
        or variant.initialisation == "mica"
        or variant.is_bdlora
        or variant.is_kasa
    )


def _delta(parts: ModuleTensors, weight: Tensor) -> Tensor:
    """`scale · B·A` in float32, in the weight's stored shape."""
    scale = parts.module.scale
    match parts.orientation:
        case "embedding":
            return (parts["embedding_B"] @ parts["embedding_A"]).T * scale
        case "conv":
            return _conv(parts["A"], parts["B"]) * scale
        case "parameter" | "parameter_transposed" if weight.ndim == 3:
            return _experts(parts, weight.shape[0]) * scale
        case "conv1d":
            return _product(parts).T * scale
        case _:
            return _product(parts).mul_(scale)


def _product(parts: ModuleTensors) -> Tensor:
    import torch

    down, up = parts["A"], parts["B"]
    # BD-LoRA stores only the blocks of one factor.
    for_down, for_up = lora_variant(parts.config).blocks(parts.module.path)
    if for_down > 1:
        down = _diagonal(torch.chunk(down, for_down, dim=0))
    if for_up > 1:
        up = _diagonal(torch.chunk(up, for_up, dim=0))
    if "diag" in parts:
        up = up * parts["diag"]
    return up @ down


def _diagonal(parts: Sequence[Tensor]) -> Tensor:
    import torch

    whole: Tensor = torch.block_diag(*parts)  # type: ignore[no-untyped-call]  # torch has no types for it
    return whole


def _conv(down: Tensor, up: Tensor) -> Tensor:
    """`down` convolved with the 1×1 kernel `up`: [out, in, *kernel]. For a 1×1 kernel this is a product."""
    from torch.nn import functional

    if down.ndim == 4 and down.shape[2:] == (1, 1):
        return (up.squeeze(3).squeeze(2) @ down.squeeze(3).squeeze(2)).unsqueeze(2).unsqueeze(3)
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[down.ndim - 3]
    return convolve(down.transpose(0, 1), up).transpose(0, 1)


def _experts(parts: ModuleTensors, experts: int) -> Tensor:
    """The update of all experts, [experts, out, in] or transposed. Expert e has the `rank` rows of A from
    e·rank on, and every `experts`-th column of B from e on.
    """
    import torch

    down = parts["A"].reshape(experts, -1, parts.module.fan_in)
    up = parts["B"].reshape(parts.module.fan_out, -1, experts)
    sides = "e i o" if parts.orientation == "parameter_transposed" else "e o i"
    return torch.einsum(f"o r e, e r i -> {sides}", up, down)


def _dora(start: Tensor, delta: Tensor, parts: ModuleTensors) -> Tensor:
    """DoRA (arXiv 2402.09353): the updated weight, its rows scaled to the learned magnitudes."""
    import torch

    magnitude = parts["magnitude"]
    if parts.orientation == "conv":
        updated = start + delta
        norm = updated.norm(p=2, dim=tuple(range(1, updated.ndim)), keepdim=True).transpose(1, 0)
        factor = (magnitude / norm).view(-1, *[1] * (updated.ndim - 1))
        result: Tensor = factor * updated
        return result.to(start.dtype)
    is_transposed = parts.orientation in _TRANSPOSED
    oriented = start.T + delta.T if is_transposed else None
    updated = added(
        start, delta, torch.promote_types(start.dtype, delta.dtype)
    )  # adding mixed dtypes is slow
    factor = (magnitude / torch.linalg.norm(updated if oriented is None else oriented, dim=1)).view(-1, 1)
    return updated.mul_(factor.T if is_transposed else factor).to(start.dtype)
