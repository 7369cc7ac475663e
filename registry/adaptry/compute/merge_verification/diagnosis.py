"""Diagnoses a tensor that differs from the merge: other roundings, another scale, or something else.

`found − base` is fitted by the adapters' updates (least squares, float64). If the residual is only rounding,
the factors show what happened: 0 means that nothing was applied, 2 that it was applied twice, −1 the wrong
sign, 1/√r rsLoRA treated as plain LoRA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.header import PLAIN_FLOATS
from adaptry.compute.merge_verification.verdict import TensorVerdict

if TYPE_CHECKING:
    from adaptry.bases.shards import Shards
    from adaptry.compute.merge_verification.tensor_pairs import TensorPair


def diagnose(
    pair: TensorPair,
    counted: TensorVerdict,
    tolerance: int,
    base: Shards,
    found: Shards,
    labels: dict[int, str],
) -> TensorVerdict:
    """Completes the verdict `counted` with the error and the kind of difference. `labels` are the user's
    names by adapter `id`.
    """
    if not {pair.expected.dtype, pair.expected.source.dtype} <= PLAIN_FLOATS:
        return counted.model_copy(update={"state": "differs", "hint": _UNTOUCHED})
    try:
        import torch
    except ImportError:
        hint = "a diagnosis needs torch: pip install 'adaptry[torch]'"
        return counted.model_copy(update={"state": "differs", "hint": hint})
    from adaptry.compute.merge_verification.second_pass import SecondPass
    from adaptry.compute.merge_verification.values import blocks, delta_origins

    look = SecondPass(pair.expected.dtype, len(delta_origins(pair.expected)))
    with torch.inference_mode():
        for block in blocks(pair, base, found):
            look.add(block)
    update: dict[str, object] = {"error": look.error, "wrong": look.wrong, "change": look.change}
    if counted.state != "differs":
        return counted.model_copy(update=update)
    other = look.other_rounding(tolerance)
    if other is not None:
        return counted.model_copy(update={**update, "state": "rounding", "hint": other})
    names = [
        (labels.get(id(origin.adapter), "the adapter"), origin) for origin in delta_origins(pair.expected)
    ]
    return counted.model_copy(update={**update, "state": "differs", "hint": look.hint(names)})


_UNTOUCHED = "no adapter changes it, but it differs from the base"
