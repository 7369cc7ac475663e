"""PEFT-compatible methods: the types of `PeftModel.add_weighted_adapter`, for migration and comparison.

The result equals that of PEFT 0.21 in float32 on a CPU, bit for bit, including its quirks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter
from adaptry.core.errors import CheckFailed

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors

PREFIX = "peft:"
_SOURCE = "PEFT 0.21, LoraModel.add_weighted_adapter"


def _cat(inputs: CombineInputs) -> Factors:
    from adaptry.compute.combining import peft_arithmetic

    return peft_arithmetic.cat(inputs)


def _on_factors(prune: str, is_electing: bool) -> Callable[[CombineInputs], Factors]:
    def combine(inputs: CombineInputs) -> Factors:
        from adaptry.compute.combining import peft_arithmetic

        return peft_arithmetic.combine_factors(inputs, prune, is_electing)

    return combine


def _on_updates(prune: str, is_electing: bool) -> Callable[[CombineInputs], Factors]:
    def combine(inputs: CombineInputs) -> Factors:
        from adaptry.compute.combining import peft_arithmetic

        return peft_arithmetic.combine_dense(inputs, prune, is_electing)

    return combine


def _one_rank(ranks: Sequence[int]) -> int:
    if len(set(ranks)) > 1:
        raise CheckFailed(
            "PEFT sums the factors themselves, so all ranks must be equal, but they are"
            f" {', '.join(map(str, ranks))}: use peft:cat or one of the types with svd, or resize the"
            " adapters to one rank"
        )
    return ranks[0]


_DENSITY = MethodParameter(0.5, "share of the elements that are kept (PEFT has no default)", 0.0, 1.0)
_PROBABILITY = MethodParameter(
    0.5, "probability with which an element is kept (PEFT has no default; its 0 gives NaN)", 1e-3, 1.0
)
_MAJORITY = MethodParameter(
    "total",
    "elect the sign by the sum of the unweighted elements, or of their signs",
    choices=("total", "frequency"),
)
_ORDER = MethodParameter(
    "qkv",
    "order of the projections in the model's attention: q, k, v, or k, v, q",
    choices=("qkv", "kvq"),
)
_SVD: Mapping[str, MethodParameter] = {
    "svd_clamp": MethodParameter(
        0.0, "quantile to which the factors' elements are clamped; 0: no clamping", 0.0, 1.0
    ),
    "svd_full_matrices": MethodParameter(
        True, "decompose into square matrices, which is slower; if false, the bits differ"
    ),
}

_CROSS = (
    "Not the weighted sum of the updates: A and B are summed separately, which gives cross terms B_i A_j."
)
_SEPARATE_FACTORS = (
    "A and B are processed separately, with weights √|w_i s_i|; this differs from the method on updates."
)
_RANDOM_MASKS = (
    "The masks are those after torch.manual_seed(seed), with the recipe's seed, directly before the call."
    " PEFT draws numbers for the layers that it adds, then for each module in the order in which the model"
    " registers them. No file contains that order: layers are taken by number, and in each layer the usual"
    " order, with `order` for the attention."
)
_MAJORITY_OF = (
    "The sign is elected by unweighted elements, and the sum is divided by the number of agreeing updates."
)
_ELECTION = {"majority_sign_method": _MAJORITY}


def _factors(name: str, title: str, prune: str, is_electing: bool, differs: str) -> CombineMethod:
    pruned = {} if not prune else {"density": _PROBABILITY if prune == "random" else _DENSITY}
    return CombineMethod(
        PREFIX + name,
        title,
        _on_factors(prune, is_electing),
        source=_SOURCE,
        parameters=pruned
        | (_ELECTION if is_electing else {})
        | ({"order": _ORDER} if prune == "random" else {}),
        rank=_one_rank,
        replay_mode="in order" if prune == "random" else "by site",
        differences=differs,
    )


def _updates(name: str, title: str, prune: str, is_electing: bool, differs: str) -> CombineMethod:
    by_factors = _factors(name, title, prune, is_electing, differs)
    return CombineMethod(
        PREFIX + name,
        title,
        _on_updates(prune, is_electing),
        source=_SOURCE,
        parameters={**by_factors.parameters, **_SVD},
        delta_form="dense",
        rank=max,
        replay_mode=by_factors.replay_mode,
        differences=differs,
    )


METHODS = (
    _factors("linear", "sums lora_A and lora_B separately", "", False, _CROSS),
    CombineMethod(
        "peft:cat",
        "concatenates the factors",
        _cat,
        source=_SOURCE,
        replay_mode="by site",
        differences=(
            "The weighted sum, like `linear`, but weights and scales are in lora_A, and zeros pad it to the"
            " sum"
            " of the configs' ranks."
        ),
    ),
    _updates(
        "svd",
        "decomposes the weighted sum of the dense updates",
        "",
        False,
        "The same update as `svd`, which needs no dense matrix; here lora_B has all singular values.",
    ),
    _factors(
        "ties",
        "TIES on lora_A and lora_B separately",
        "magnitude",
        True,
        f"{_SEPARATE_FACTORS} {_MAJORITY_OF}",
    ),
    _updates("ties_svd", "TIES on the dense updates, then a decomposition", "magnitude", True, _MAJORITY_OF),
    _factors(
        "dare_linear",
        "DARE on lora_A and lora_B separately, then sums",
        "random",
        False,
        f"{_SEPARATE_FACTORS} {_RANDOM_MASKS}",
    ),
    _updates(
        "dare_linear_svd",
        "DARE on the dense updates, then a sum and a decomposition",
        "random",
        False,
        _RANDOM_MASKS,
    ),
    _factors(
        "dare_ties",
        "DARE and an election on lora_A and lora_B separately",
        "random",
        True,
        f"{_SEPARATE_FACTORS} {_MAJORITY_OF} {_RANDOM_MASKS}",
    ),
    _updates(
        "dare_ties_svd",
        "DARE and an election on the dense updates, then a decomposition",
        "random",
        True,
        f"{_MAJORITY_OF} {_RANDOM_MASKS}",
    ),
    _factors(
        "magnitude_prune",
        "sums the largest elements of lora_A and lora_B separately",
        "magnitude",
        False,
        _SEPARATE_FACTORS,
    ),
    _updates(
        "magnitude_prune_svd",
        "sums the largest elements of the dense updates, then decomposes",
        "magnitude",
        False,
        "Like `magnitude_prune`, but ties are broken by the order of a sort.",
    ),
)
