"""When a merge is PEFT's: to the bit, except for methods whose bits come from torch's libraries."""

from __future__ import annotations

from typing import Any

import torch

ROUNDED = (
    "boft", "boft of blocks", "c3a", "fourierft", "oft solved", "randlora", "hra", "road_1", "road_2",
    "road_4", "deft", "deft by qr", "deft taking out", "peanut", "peanut deep",
)  # fmt: skip
"""The methods that are merged without torch although sums, solutions and transforms in torch have an order of
their own (see `tests/merging/test_formulas_within_rounding.py` and `test_products_with_weights.py`).
"""


def is_pefts_merge(name: str, ours: Any, theirs: Any, before: Any) -> bool:
    """Whether a case's merged weight is PEFT's. Where bits may differ, both round the exact number, which
    leaves one unit in the last place; PEFT also rounds some updates to the dtype twice before it adds them,
    and sums a row in float32: each of its additions is wrong by at most 2⁻²⁴ of the largest number.
    """
    if name not in ROUNDED or ours.dim() > 2:
        return torch.equal(ours, theirs)
    size = ours.abs()
    unit = torch.nextafter(size, torch.full_like(size, torch.inf)).double() - size.double()
    update = (ours.double() - before.double()).abs()
    sums = ours.shape[-1] * 2.0**-24 * theirs.double().abs().max()
    bound = unit + torch.finfo(ours.dtype).eps * update + sums
    return bool(((ours.double() - theirs.double()).abs() <= bound).all())
