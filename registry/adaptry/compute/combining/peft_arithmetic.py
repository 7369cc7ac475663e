"""PEFT's arithmetic of `add_weighted_adapter`, operation by operation, so that results are bit-equal.

Source: PEFT 0.21, `peft/utils/merge_utils.py` and `peft/tuners/lora/model.py`. Nothing may be reordered for
speed, since the order of operations determines the bits. The update of a layer that stores its weight
transposed is processed transposed, since the layout decides which of two equal magnitudes is pruned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from adaptry.compute.combining.method import CombineInputs, PeftReplay
from adaptry.compute.tensors.lowrank import Factors
from adaptry.core.errors import CheckFailed

_QUANTILE_MAX = 1 << 24  # limit of elements in torch.quantile


def cat(inputs: CombineInputs) -> Factors:
    """The concatenated factors [out, R] and [R, in] in float32, padded with zeros to R, the sum of the ranks
    in the configs."""
    pairs = list(zip(inputs.updates, inputs.weights, strict=True))
    down = torch.cat([update.down * weight * update.scale for update, weight in pairs], dim=0)
    up = torch.cat([update.up for update, _ in pairs], dim=1)
    missing = (inputs.rank or 0) - len(down)
    return Factors(
        torch.nn.functional.pad(up, (0, missing)), torch.nn.functional.pad(down, (0, 0, 0, missing))
    )


def combine_factors(inputs: CombineInputs, prune: str = "", is_electing: bool = False) -> Factors:
    """Types without `_svd`: merges lora_A [r, in] and lora_B [out, r] separately, in float32, with weights
    √|c_i| where c_i = w_i s_i.
    """
    strengths = [weight * update.scale for update, weight in zip(inputs.updates, inputs.weights, strict=True)]
    roots = [math.sqrt(abs(strength)) for strength in strengths]
    signed = [root if strength >= 0 else -root for root, strength in zip(roots, strengths, strict=True)]
    down = _merged(inputs, [update.down for update in inputs.updates], signed, prune, is_electing)
    up = _merged(inputs, [update.up for update in inputs.updates], roots, prune, is_electing)
    return Factors(up, down)


def combine_dense(inputs: CombineInputs, prune: str = "", is_electing: bool = False) -> Factors:
    """The types with `svd`: merges the dense updates in float32, then decomposes the result: A [rank, in] =
    Vᵀ, B [out, rank] = U·S.

    Raises `CheckFailed` if `svd_clamp` needs a quantile of more elements than torch allows.
    """
    replay = _replay(inputs)
    dense = [_dense(update, replay) for update in inputs.updates]
    merged = _merged(inputs, dense, inputs.weights, prune, is_electing)
    matrix = merged.flatten(start_dim=1) if replay.kernel else merged
    left, values, right = torch.linalg.svd(
        matrix.T if replay.is_transposed else matrix, full_matrices=inputs.flag("svd_full_matrices")
    )
    up = left[:, : inputs.rank] @ torch.diag(values[: inputs.rank])
    return _clamped(inputs, up, right[: inputs.rank, :])


def _clamped(inputs: CombineInputs, up: Tensor, down: Tensor) -> Factors:
    share = inputs.number("svd_clamp")
    if share == 0:
        return Factors(up, down)
    both = torch.cat([up.flatten(), down.flatten()])
    if len(both) > _QUANTILE_MAX:
        raise CheckFailed(
            f"svd_clamp needs a quantile of {len(both):,} elements at {inputs.site_name}, but torch.quantile,"
            f" which PEFT uses, allows at most {_QUANTILE_MAX:,}: choose a lower rank, or omit svd_clamp"
        )
    high = torch.quantile(both, share)
    return Factors(up.clamp(-high, high), down.clamp(-high, high))


def _dense(update: Factors, replay: PeftReplay) -> Tensor:
    """The dense update [out, in, ...] as in `get_delta_weight` of PEFT's linear, embedding and convolution
    layers.
    """
    if math.prod(replay.kernel) > 1:
        down = update.down.reshape(update.rank, -1, *replay.kernel)
        up = update.up.reshape(*update.up.shape, 1, 1)
        return torch.nn.functional.conv2d(down.transpose(0, 1), up).transpose(0, 1) * update.scale
    product = update.up @ update.down
    return (product.T if replay.is_transposed else product) * update.scale


def _merged(
    inputs: CombineInputs, tensors: Sequence[Tensor], weights: Sequence[float], prune: str, is_electing: bool
) -> Tensor:
    kept = [_pruned(inputs, tensor, prune) for tensor in tensors] if prune else tensors
    stacked = torch.stack(list(kept), dim=0)
    weighted = stacked * torch.tensor(weights).view(-1, *[1] * (stacked.dim() - 1))
    if not is_electing:
        return weighted.sum(dim=0)
    sign = stacked.sign()
    votes = stacked if inputs.word("majority_sign_method") == "total" else sign
    agrees = sign == torch.where(votes.sum(dim=0) >= 0, 1, -1)
    return (weighted * agrees).sum(dim=0) / torch.clamp(agrees.sum(dim=0), min=1.0)


def _pruned(inputs: CombineInputs, tensor: Tensor, prune: str) -> Tensor:
    density = inputs.number("density")
    if density >= 1:
        return tensor
    if prune == "random":
        mask = torch.bernoulli(torch.full_like(tensor, density), generator=_replay(inputs).generator)
        return tensor * mask / density
    mask = torch.zeros_like(tensor).reshape(-1)
    mask[torch.topk(tensor.abs().reshape(-1), k=int(density * tensor.numel()), largest=True)[1]] = 1
    return tensor * mask.reshape(tensor.shape)


def _replay(inputs: CombineInputs) -> PeftReplay:
    assert inputs.replay is not None, "the plan says that this is a replay"
    return inputs.replay
