"""AdaLoRA: a LoRA whose ranks were pruned as it trained (arXiv 2303.10512; PEFT `tuners/adalora`).

A file has the ranks that remain; the scale is still divided by the initial rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    common_number,
)
from adaptry.adapters.methods.row_change import by_rows
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-5  # PEFT adds this to the rank before it divides by it


def _first_rank(config: AdapterConfig) -> int:
    return config.rank("init_r", 12)


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (rank, fan_in), (fan_out, up) = shapes["A"], shapes["B"]
    rank_of_diagonal, columns = shapes["E"]
    common_number(rank, up, rank_of_diagonal)
    common_number(1, columns)
    if rank > _first_rank(config):
        raise ValueError("there are more ranks than the initial rank")
    return ModuleSize(rank, fan_in, fan_out, "flat")


def _scale(config: AdapterConfig, module: ModuleSpec) -> float:
    return config.number("lora_alpha", 8) / (_first_rank(config) + _TINY)


def _up_and_down(parts: ModuleTensors) -> tuple[Tensor, Tensor]:
    """The factors [out, r] and [r, in] in float32. Factors that PEFT cuts to size at load pass through the
    base's dtype, as in PEFT.
    """
    import torch

    read = parts.dtype if _is_cut(parts) else torch.float32
    down, values, up = (parts[role].to(read).float() for role in ("A", "E", "B"))
    return up, down * values


def _divisor(parts: ModuleTensors) -> Tensor:
    """The rank to divide by, rounded to the base's dtype as in PEFT."""
    import torch

    return torch.tensor([float(_first_rank(parts.config))], dtype=parts.dtype).float() + _TINY


def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    up, down = _up_and_down(parts)
    update = up @ down
    if parts.orientation == "conv1d":
        update = update.T
    update = update * parts.config.number("lora_alpha", 8) / _divisor(parts)
    return (weight.float() + update.reshape(weight.shape)).to(weight.dtype)


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    up, down = _up_and_down(parts)
    return up * parts.config.number("lora_alpha", 8) / _divisor(parts), down


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    if not parts.module.rank or (parts.shape("B")[0], parts.shape("A")[1]) != shape:
        return None

    def read() -> FormulaArrays:
        import numpy as np

        down, values, up = (parts[role] for role in ("A", "E", "B"))
        if _is_cut(parts):
            down, values, up = (parts.rounded(array) for array in (down, values, up))
        rank = parts.rounded(np.full(1, _first_rank(parts.config), np.float32))
        divisor = float((rank + np.float32(_TINY))[0])
        return FormulaArrays(((up, down * values),), parts.config.number("lora_alpha", 8), divisor)

    return RowFormula("divided", parts.module.rank, read)


def _is_cut(parts: ModuleTensors | ModuleArrays) -> bool:
    """Whether `rank_pattern` lists which ranks of the module remain."""
    return _rank_mask(parts.config, parts.module.path) is not None


def _rank_mask(config: AdapterConfig, path: str) -> object:
    """The module's entry in `rank_pattern`: for each rank, whether it remains. The keys are names of
    parameters here.
    """
    for name, kept in config.pattern_values("rank_pattern").items():
        if pattern_path(name) == path:
            return kept
    return None


def pattern_path(name: str) -> str:
    """The module of a key in `rank_pattern`. PEFT removes the names of the adapter and of the parameter."""
    return ".".join(name.split(".")[: -2 if "default" in name else -1])


def _empty_roles(config: AdapterConfig, path: str) -> frozenset[str]:
    """All roles of a module from which training removed every rank."""
    kept = _rank_mask(config, path)
    is_removed = isinstance(kept, list) and bool(kept) and not any(kept)
    return frozenset({"A", "B", "E"}) if is_removed else frozenset()


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """Why PEFT cannot load the factors: it makes each module with the initial rank, cuts it by
    `rank_pattern`, and then loads the tensors.
    """
    kept, rank = _rank_mask(config, module.path), _first_rank(config)
    if kept is None:
        by = "init_r"
    elif isinstance(kept, list) and len(kept) == rank and all(type(one) is bool for one in kept):
        by, rank = "rank_pattern", sum(kept)
    else:
        return f"has an entry in rank_pattern that is not a list of true or false for each of {rank} ranks"
    return None if module.rank == rank else f"has rank {module.rank}, but according to {by} it is {rank}"


def _unmergeable_reason(config: AdapterConfig) -> str | None:
    if config.number("lora_alpha", 8) > 0:
        return None
    return "lora_alpha is not positive, and PEFT then scales by a different rank at load than in training"


METHOD = Method(
    name="adalora",
    title="AdaLoRA",
    key_patterns={f"lora_{role}": role for role in ("A", "B", "E")},
    module_size=_module_size,
    products=(("A", "B", "E"),),
    scale=_scale,
    weight=_weight,
    rows=by_rows(_weight, "B"),
    formula=_formula,
    lora_form="exact",
    factors=_factors,
    lora_rank=lambda module, config: module.rank,
    mismatch=_mismatch,
    empty_roles=_empty_roles,
    unmergeable_reason=_unmergeable_reason,
    traits=lambda config: ["layer_replication"] if config.fields.get("layer_replication") else [],
)
