"""LoHa: the Hadamard product of two low-rank products (FedPara, arXiv 2108.06098; PEFT `tuners/loha`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    add_delta,
    common_number,
    trained_rank,
)
from adaptry.adapters.methods.row_change import by_rows
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor


def scale(config: AdapterConfig, module: ModuleSpec) -> float:
    """α/r, each from its own pattern, as in PEFT's LyCORIS methods."""
    rank = config.rank_for(module.path, config.rank())
    return config.alpha_for(module.path, config.number("alpha", 8)) / rank


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    first, second = shapes["w1_a"], shapes["w1_b"]
    if shapes["w2_a"] != first or shapes["w2_b"] != second:
        raise ValueError("the two products have different shapes")
    if "t1" in shapes:
        rank = common_number(first[0], second[0], *shapes["t1"][:2], *shapes["t2"][:2])
        return ModuleSize(trained_rank(config, rank), second[1], first[1], "conv")
    rank = trained_rank(config, common_number(first[1], second[0]))
    return ModuleSize(rank, second[1], first[0], "flat")


def effective_conv_mismatch(
    module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides
) -> str | None:
    """Why a module does not fit: the config determines whether a kernel larger than one element has its own
    factors.
    """
    is_said = config.flag("use_effective_conv2d") and any(side != 1 for side in weight.kernel)
    kernels = {shapes[role][2:] for role in ("t1", "t2") if role in shapes}
    has_own = bool(kernels)
    if has_own and kernels != {(*weight.kernel, 1)[:2]}:  # a Conv1d has a trailing 1
        return f"has kernels of {' and '.join(map(str, sorted(kernels)))}, but this base's is {weight.kernel}"
    if has_own and not is_said:
        return "has factors of a kernel, but the config (use_effective_conv2d) or this base's weight has none"
    if is_said and not has_own and "w2" not in shapes:
        return "has no factors of the kernel, but the config sets use_effective_conv2d"
    return None


def _delta(parts: ModuleTensors, shape: tuple[int, ...]) -> Tensor:
    return _product(parts).reshape(shape)


def _product(parts: ModuleTensors) -> Tensor:
    import torch

    if "t1" in parts:
        halves = [
            torch.einsum("ijkl,jr,ip->prkl", parts[f"t{n}"], parts[f"w{n}_b"], parts[f"w{n}_a"])
            for n in (1, 2)
        ]
    else:
        halves = [parts[f"w{n}_a"] @ parts[f"w{n}_b"] for n in (1, 2)]
    return halves[0].mul_(halves[1]).mul_(parts.module.scale)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    if "t1" in parts or (parts.shape("w1_a")[0], parts.shape("w1_b")[1]) != shape:
        return None

    def read() -> FormulaArrays:
        halves = tuple((parts[f"w{n}_a"], parts[f"w{n}_b"]) for n in (1, 2))
        return FormulaArrays(halves, parts.module.scale)

    return RowFormula("hadamard", parts.module.rank, read)


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    """up [out, r²] and down [r², in]: each column of one product's factor times each column of the other's.
    If r² exceeds the weight's shorter side, they are the update itself and an identity.
    """
    import torch

    (first_up, first_down), (second_up, second_down) = _halves(parts)
    if first_up.shape[1] ** 2 >= min(fan_out, fan_in):
        update = _product(parts).reshape(fan_out, fan_in)
        return (update, torch.eye(fan_in)) if fan_in <= fan_out else (torch.eye(fan_out), update)
    up = torch.einsum("oi,oj->oij", first_up, second_up).flatten(1)
    down = torch.einsum("ix,jx->ijx", first_down, second_down).flatten(0, 1)
    return up * parts.module.scale, down


def _halves(parts: ModuleTensors) -> list[tuple[Tensor, Tensor]]:
    """The factors [out, r] and [r, in·k…] of the two products."""
    import torch

    if "t1" not in parts:
        return [(parts[f"w{n}_a"], parts[f"w{n}_b"]) for n in (1, 2)]
    return [
        (parts[f"w{n}_a"].T, torch.einsum("ijkl,jr->irkl", parts[f"t{n}"], parts[f"w{n}_b"]).flatten(1))
        for n in (1, 2)
    ]


_weight = add_delta(_delta)

METHOD = Method(
    name="loha",
    title="LoHa",
    key_patterns={rf"hada_{role}": role for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    module_size=_module_size,
    products=(("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"),),
    scale=scale,
    weight=_weight,
    rows=by_rows(_weight, "w1_a", "w2_a"),
    formula=_formula,
    lora_form="exact",
    factors=_factors,
    mismatch=effective_conv_mismatch,
    lora_rank=lambda module, config: module.rank**2,
)
