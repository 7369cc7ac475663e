"""VB-LoRA: a LoRA made from a bank of vectors shared by all modules (arXiv 2405.15179; PEFT `tuners/vblora`).

Each piece of a factor is a mixture of the few vectors with the highest logits. A file has all logits, or only
the selected indices and their weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    add_delta,
    common_number,
    factor_product,
    product_rows,
    trained_rank,
)
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.methods.softmax import softmax
from adaptry.adapters.methods.top_k import is_order_known, top_k

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    vectors, length = shapes["bank"]
    common_number(vectors, config.rank("num_vectors", 256))
    common_number(length, config.rank("vector_length", 256))
    if config.flag("save_only_topk_weights"):
        (rank, tiles_in, chosen), (tiles_out, up, again) = shapes["A_choices"], shapes["B_choices"]
        for side in "AB":
            (_, _, weighted) = shapes[f"{side}_weights"]
            common_number(config.rank("topk", 2), chosen, again, weighted + 1)
    else:
        (rank, tiles_in, logits), (tiles_out, up, again) = shapes["A"], shapes["B"]
        common_number(vectors, logits, again)
    return ModuleSize(trained_rank(config, common_number(rank, up), 4), tiles_in * length, tiles_out * length)


def _logits(parts: ModuleTensors, side: str) -> Tensor:
    """The logits, as PEFT restores them from saved choices: minus infinity for every vector that was not
    chosen.
    """
    import torch

    if not parts.config.flag("save_only_topk_weights"):
        return parts[side]
    choices, weights = parts[f"{side}_choices"].long(), parts[f"{side}_weights"]
    weights = torch.cat([weights, 1 - weights.sum(-1, keepdim=True)], dim=-1)
    none = torch.full((*weights.shape[:-1], parts["bank"].shape[0]), float("-inf"))
    return none.scatter(-1, choices, torch.log(weights))


_IN_ORDER = 4
"""How many vectors torch adds one after another, whatever their length."""


def _pieces(parts: ModuleTensors, side: str) -> Tensor:
    import torch

    highest, choices = _logits(parts, side).topk(parts.config.rank("topk", 2), dim=-1)
    weights = torch.softmax(highest, dim=-1)
    return (weights.unsqueeze(-1) * parts["bank"][choices]).sum(-2)


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    rank = parts.module.rank
    down = _pieces(parts, "A").reshape(rank, -1)
    up = _pieces(parts, "B").transpose(1, 2).reshape(-1, rank)
    return up, down


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    count = parts.config.rank("topk", 2)
    if count > _IN_ORDER or not is_order_known(parts.shape("bank")[0], count):
        return None
    if parts.config.flag("save_only_topk_weights"):
        # The logarithms of saved weights are MKL's, whose last bits depend on the processor.
        return None
    length, (rank, tiles_in, _), (tiles_out, up, _) = (
        parts.shape("bank")[1],
        parts.shape("A"),
        parts.shape("B"),
    )
    if (tiles_out * length, tiles_in * length) != shape or rank != up:
        return None

    def read() -> FormulaArrays:
        down = _piece_arrays(parts, "A").reshape(rank, -1)
        up = _piece_arrays(parts, "B").transpose(0, 2, 1).reshape(-1, rank)
        return FormulaArrays(((up, down),))

    return RowFormula("sum", rank, read)


def _piece_arrays(parts: ModuleArrays, side: str) -> Floats:
    """Like `_pieces`, without torch."""
    import numpy as np

    logits, bank = parts[side], parts["bank"]
    choices = top_k(logits, parts.config.rank("topk", 2))
    weights = softmax(np.take_along_axis(logits, choices, -1))
    total: Floats = weights[..., :1] * bank[choices[..., 0]]
    for place in range(1, choices.shape[-1]):
        total += weights[..., place : place + 1] * bank[choices[..., place]]
    return total


def _empty_roles(config: AdapterConfig, path: str) -> frozenset[str]:
    """PEFT saves the weights of all chosen vectors except the last, so it saves no weight if there is only
    one.
    """
    is_alone = config.flag("save_only_topk_weights") and config.rank("topk", 2) == 1
    return frozenset({"A_weights", "B_weights"}) if is_alone else frozenset()


METHOD = Method(
    name="vblora",
    title="VB-LoRA",
    key_patterns={
        **{f"vblora_logits_{side}": side for side in "AB"},
        **{f"vblora_logits_{side}_topk_indices": f"{side}_choices" for side in "AB"},
        **{f"vblora_logits_{side}_topk_weights": f"{side}_weights" for side in "AB"},
    },
    shared={"vblora_vector_bank": "bank"},
    module_size=_module_size,
    products=(("bank",),),
    weight=add_delta(factor_product(_factors)),
    rows=product_rows(_factors),
    formula=_formula,
    lora_form="exact",
    factors=_factors,
    lora_rank=lambda module, config: module.rank,
    integer_roles=frozenset({"A_choices", "B_choices"}),
    empty_roles=_empty_roles,
)
