"""PSOFT: a rotation inside the weight's leading singular directions (ICLR 2026, PSOFT; PEFT `tuners/psoft`).

The file does not have the directions: they are computed again from the base's weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.methods.randomized_svd import leading_directions
from adaptry.adapters.methods.rotations import cayley, cayley_neumann, side_of, skew
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor


def _is_on(config: AdapterConfig, key: str) -> bool:
    return config.fields.get(key, True) is True


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    if _is_on(config, "psoft_orth"):
        (angles,) = shapes["R"]
        rank = side_of(angles)
    else:
        (_, rank) = shapes["R"]
    for role in ("vector_a", "vector_b"):
        if _is_on(config, f"psoft_mag_{role[-1]}") and shapes[role] != (rank,):
            raise ValueError("the length of the vectors differs from the width of the rotation")
        if not _is_on(config, f"psoft_mag_{role[-1]}") and role in shapes:
            raise ValueError("the config declares no such vector")
    return ModuleSize(rank, 0, 0)


def _scale(config: AdapterConfig, module: ModuleSpec) -> float:
    return config.number("psoft_alpha", 32) / module.rank


def _rotation(parts: ModuleTensors) -> Tensor:
    import torch

    config, trained = parts.config, parts["R"]
    if _is_on(config, "psoft_orth"):
        rotated = skew(trained)
        if config.flag("use_cayley_neumann"):
            limit = config.number("cayley_neumann_eps", 0)
            norm = torch.linalg.norm(rotated, ord="fro")
            if limit and torch.isfinite(norm) and norm > limit:
                rotated = rotated * (limit / (norm + 1e-12))
            trained = cayley_neumann(rotated, config.rank("num_cayley_neumann_terms", 5))
        else:
            trained = cayley(rotated, sign=1)
    if "vector_b" in parts:
        trained = parts["vector_b"][:, None] * trained
    return trained * parts["vector_a"][None, :] if "vector_a" in parts else trained


def _leading(weight: Tensor, rank: int, config: AdapterConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The `rank` leading directions U [out, r], S [r] and Vᵀ [r, in]: exact, or by a random projection."""
    import torch

    if config.fields.get("psoft_svd", "full") == "full":
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        return left[:, :rank], values[:rank], right[:rank]
    steps = int(config.number("psoft_svd_lowrank_niter", 10))
    return leading_directions(weight, rank, steps=steps, seed=int(config.number("random_seed", 0)))


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    """Δ = s·B(R − I)A, rounded to the weight's dtype before it is added, as in PEFT."""
    import torch

    rank, scale = parts.module.rank, parts.module.scale
    left, values, right = _leading(weight.float(), rank, parts.config)
    values = values / scale
    if parts.config.fields.get("ab_svd_init", "psoft_init") == "pissa_init":
        root = torch.sqrt(values)
        down, up = torch.diag(root) @ right, left @ torch.diag(root)
    else:
        down, up = right, left @ torch.diag(values)
    update = up.contiguous() @ (_rotation(parts) - torch.eye(rank)) @ down.contiguous()
    return weight + (update * scale).to(weight.dtype)


METHOD = Method(
    name="psoft",
    title="PSOFT",
    key_patterns={
        r"psoft_R\.weight": "R",
        r"psoft_R\.vector_a": "vector_a",
        r"psoft_R\.vector_b": "vector_b",
    },
    module_size=_module_size,
    products=(("R",),),
    ones="vector_[ab]",
    scale=_scale,
    weight=_weight,
    lora_form="given_base",
    lora_rank=lambda module, config: module.rank,
    needs_base=True,
    base_at_load="update",
    tolerance="bit-equal with the same LAPACK in torch and number of threads; otherwise within rounding",
)
