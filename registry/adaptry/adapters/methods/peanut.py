"""PEANuT: a small network computes the update of the weight (arXiv 2410.01870; PEFT `tuners/peanut`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.activations import activation
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Doubles

_ACTIVATIONS = {
    "relu": "relu", "relu6": "relu6", "leaky_relu": "leaky_relu", "gelu": "gelu", "silu": "silu",
    "swish": "silu", "mish": "mish", "tanh": "tanh", "sigmoid": "sigmoid",
}  # fmt: skip
"""Activations by transformers' names, with their names in `torch.nn.functional`."""


def _depth(config: AdapterConfig) -> int:
    return int(config.number("depth", 0))


def _activation(config: AdapterConfig) -> str:
    return str(config.fields.get("act_fn", "relu"))


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    rank, fan_out = shapes["A"]
    square = [shapes[f"{coder}.{n}"] for n in range(_depth(config)) for coder in ("encoders", "decoders")]
    if shapes["B"] != (fan_out, rank) or any(shape != (rank, rank) for shape in square):
        raise ValueError("the shapes of consecutive layers do not match")
    return ModuleSize(rank, 0, fan_out)


def _unmergeable_reason(config: AdapterConfig) -> str | None:
    if _activation(config) in _ACTIVATIONS:
        return None
    return (
        f"its act_fn is {_activation(config)[:40]!a}, but only {', '.join(_ACTIVATIONS)} are supported: "
        "merge it with PEFT's merge_and_unload"
    )


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    """Δ is computed in float32 and rounded to the weight's dtype before it is added, as in PEFT."""
    from torch.nn import functional

    act = getattr(functional, _ACTIVATIONS[_activation(parts.config)])
    hidden = act(weight.T.float() @ parts["A"].T)
    passed: list[Tensor] = []
    for layer in range(_depth(parts.config)):
        passed.append(hidden)
        hidden = act(functional.linear(hidden, parts[f"encoders.{layer}"]))
    for layer in range(_depth(parts.config)):
        hidden = act(functional.linear(hidden, parts[f"decoders.{layer}"])) + passed.pop()
    update = functional.linear(hidden, parts["B"]) * parts.config.number("scaling", 1.0)
    return weight + update.T.to(weight.dtype)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    rank, fan_out = parts.shape("A")
    if fan_out != shape[0]:
        return None

    def change(product: Doubles) -> FormulaArrays:
        import numpy as np

        act, depth = activation(_ACTIVATIONS[_activation(parts.config)]), range(_depth(parts.config))
        hidden = act(product)
        passed: list[Doubles] = []
        for layer in depth:
            passed.append(hidden)
            hidden = act(parts[f"encoders.{layer}"].astype(np.float64) @ hidden)
        for layer in depth:
            hidden = act(parts[f"decoders.{layer}"].astype(np.float64) @ hidden) + passed.pop()
        scale = parts.config.number("scaling", 1.0)
        return FormulaArrays(((parts["B"], hidden.astype(np.float32)),), scale)

    return RowFormula(
        "rounded", rank, lambda: FormulaArrays(left=parts["A"].T, of_product=change), uses_numpy=True
    )


METHOD = Method(
    name="peanut",
    title="PEANuT",
    key_patterns={
        r"peanut_A\.weight": "A",
        r"peanut_B\.weight": "B",
        r"peanut_encoders\.(?P<rest>\d+)\.weight": "encoders",
        r"peanut_decoders\.(?P<rest>\d+)\.weight": "decoders",
    },
    module_size=_module_size,
    products=(("A", "B"),),
    weight=_weight,
    formula=_formula,
    lora_form="given_base",
    lora_rank=lambda module, config: module.rank,
    unmergeable_reason=_unmergeable_reason,
    needs_base=True,
    tolerance="within rounding, and at least as exact as PEFT",
)
