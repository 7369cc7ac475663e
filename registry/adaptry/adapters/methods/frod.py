"""FRoD: the weight expressed in a basis that all layers of a kind share, with a sparse core (AAAI 2026, FRoD,
doi 10.1609/aaai.v40i31.39813; PEFT `tuners/frod`).

The basis is read from the file. PEFT takes the part U from a basis that it computes again at load. If that
differs from training (another LAPACK or number of threads flips its vectors), PEFT's own merge is wrong and
this one is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, WeightSides
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.spec import ModuleSpec
from adaptry.core.errors import InvalidWeights

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (fan_in,), (_,) = shapes["lambda_l"], shapes["lambda_s_values"]
    bases = [shape for role, shape in shapes.items() if role.startswith("V.")]
    if _saves_projection(config) and (fan_in, fan_in) not in bases:
        raise ValueError("no basis has its width")
    for role, shape in shapes.items():
        is_wrong = role.startswith("s_size.") and shape != (2,)
        if is_wrong or (role.startswith("s_indices.") and (len(shape) != 2 or shape[0] != 2)):
            raise ValueError(f"{role} has the shape {list(shape)}, but should have 2 rows of numbers")
    return ModuleSize(0, fan_in, 0)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """Why PEFT cannot load the sparse core: the number of its values must follow from `sparse_rate`."""
    (count,), elements = shapes["lambda_s_values"], weight.fan_in**2
    rate = config.number("sparse_rate", 0.01)
    expected = max(min(int(elements * rate), elements - weight.fan_in), 1 if rate > 0 else 0)
    return None if count == expected else f"has {count:,} values, but sparse_rate {rate:g} gives {expected:,}"


def _saves_projection(config: AdapterConfig) -> bool:
    return config.fields.get("save_projection", True) is True


def _unmergeable_reason(config: AdapterConfig) -> str | None:
    if _saves_projection(config):
        return None
    return (
        "it was saved without its projections, which PEFT computes from all layers of the base: load it with"
        " PEFT on its base, set save_projection to true and save it again"
    )


def _kind(path: str) -> str:
    """PEFT's name for a kind of module, without the layer: `self_attn_q_proj`."""
    *before, parent, name = ("", *path.split("."))
    if not parent or parent.isdigit():
        return name
    if (parent, name) == ("output", "dense") and before[-1:] == ["attention"]:
        return "attention_output"
    return f"{parent}_{name}"


def _basis(weight: Tensor, shared: Tensor) -> Tensor:
    """The columns of W in the shared basis V, each with norm 1 (or 0), solved in float64."""
    import torch

    wide, basis = weight.double(), shared.double()
    try:
        solved = torch.linalg.solve(basis, wide.T).T
    except RuntimeError:  # singular
        solved = wide @ torch.linalg.pinv(basis, rtol=1e-6).T
    norms = torch.linalg.norm(solved, dim=0)
    columns = torch.zeros_like(solved)
    columns[:, norms > 1e-12] = solved[:, norms > 1e-12] / norms[norms > 1e-12]
    return columns.float().to(weight.dtype)


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    """U(S + diag λ)Vᵀ [out, in] in the weight's dtype. PEFT adds it as a difference, which is rounded
    again.
    """
    import torch

    kind, dtype = _kind(parts.module.path), weight.dtype
    if f"V.{kind}" not in parts or f"s_indices.{kind}" not in parts:
        raise InvalidWeights(
            f"the file lacks the projections frod_V.{kind} and frod_s_indices.{kind} of {parts.module.path}:"
            " save it again with save_projection=True"
        )
    shared = parts[f"V.{kind}"].to(dtype)
    rows, columns = parts[f"s_indices.{kind}"]
    core = torch.zeros_like(shared)
    core[rows, columns] = parts["lambda_s_values"].to(dtype)
    written = _basis(weight, shared) @ (core + torch.diag_embed(parts["lambda_l"].to(dtype))) @ shared.T
    return weight + (written - weight)


METHOD = Method(
    name="frod",
    title="FRoD",
    key_patterns={"frod_lambda_l": "lambda_l", "frod_lambda_s_values": "lambda_s_values"},
    shared={rf"frod_{role}\.(?P<rest>[^.]+)": role for role in ("V", "s_indices", "s_size")},
    integer_roles=frozenset({"s_indices", "s_size"}),
    module_size=_module_size,
    products=(("lambda_s_values",),),
    base_numbers="lambda_l",
    mismatch=_mismatch,
    recomputed_roles=r"V\..+",
    untrained_roles=r"V\..+|s_(?:indices|size)\..+",
    weight=_weight,
    unmergeable_reason=_unmergeable_reason,
    needs_base=True,
    base_at_load="weight",
    tolerance="bit-equal with the same LAPACK in torch and number of threads; otherwise within rounding",
)
