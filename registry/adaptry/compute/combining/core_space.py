"""Core Space: writes updates in common bases, as small cores, and combines the cores.

The bases span all columns and all rows of all updates, so the transformation is lossless: the sum of the
cores is the sum of the updates. The combined matrices are R×R, whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adaptry.compute.combining.iso import flatten_spectrum
from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter
from adaptry.compute.combining.subspace import combine_in_subspace, inner_parameters
from adaptry.compute.tensors.tolerances import NEGLIGIBLE

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors


def core_space(inputs: CombineInputs) -> Factors:
    """U · merge(UᵀΔ_1V, …, UᵀΔ_TV) · Vᵀ, where U [..., out, R] and V [..., in, R] are the axes of all
    balanced, stacked factors, with R the sum of the ranks."""
    import torch

    from adaptry.compute.tensors.lowrank import Factors, decompose

    ups, downs = [], []
    for update in inputs.updates:
        found = decompose(update)
        root = found.values.sqrt()
        ups.append(found.left * root.unsqueeze(-2))
        downs.append(found.right.mT * root.unsqueeze(-2))
    left, ups_inside = _in_common_axes(ups)
    right, downs_inside = _in_common_axes(downs)
    cores = [Factors(up, down.mT) for up, down in zip(ups_inside, downs_inside, strict=True)]
    core = combine_in_subspace(inputs, cores)
    if inputs.flag("isotropic"):
        unit = torch.eye(core.shape[-1], dtype=core.dtype).expand(*core.shape[:-2], -1, -1)
        core = flatten_spectrum(decompose(Factors(core, unit)), NEGLIGIBLE).dense()
    return Factors(left @ core, right.mT.contiguous())


def _in_common_axes(stacks: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The left singular vectors U [..., m, k] of the concatenated matrices, and each Uᵀ X_i; in float32."""
    import torch

    from adaptry.compute.tensors.lowrank import numerical_rank
    from adaptry.compute.tensors.orthonormal_basis import basis_of

    basis = basis_of(torch.cat(list(stacks), dim=-1))
    turn, values, _ = torch.linalg.svd(basis.upper, full_matrices=False)
    turn = turn[..., : numerical_rank(values)]
    parts = torch.split(turn.mT @ basis.upper, [stack.shape[-1] for stack in stacks], dim=-1)
    return basis.times(turn).float(), [part.float() for part in parts]


METHODS = (
    CombineMethod(
        "core_space",
        "writes the updates in common bases, and combines them there as small cores",
        core_space,
        source="Panariello et al., NeurIPS 2025, arXiv 2509.17786",
        parameters={
            **inner_parameters("ties"),
            "isotropic": MethodParameter(False, "make the singular values of the result equal, like iso_c"),
        },
        differences=(
            "The authors stack lora_A and lora_B unchanged, so the result depends on how an update is split"
            " between them; here each update is first split evenly by its singular value decomposition."
            " Ranks may"
            " differ. TSV-Merge and Iso-C give the same result in the core as outside it: use `tsv` and"
            " `iso_c`."
            " If singular values are equal, the axes are not unique."
        ),
    ),
)
