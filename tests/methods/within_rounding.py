"""Compares merges with PEFT's: bit by bit, or within rounding if PEFT's bits come from torch's libraries."""

from __future__ import annotations

import math
from typing import Any

import torch

ROUNDED = (
    "boft", "boft of blocks", "c3a", "fourierft", "oft solved", "randlora", "hra", "road_1", "road_2",
    "road_4", "deft", "deft taking out", "peanut", "peanut deep",
)  # fmt: skip
"""Cases of methods that are merged without torch, although only torch's sums, solvers and transforms give
PEFT's bits (see `tests/merging/test_formulas_within_rounding.py` and `test_products_with_weights.py`).
"""


def is_pefts_merge(name: str, ours: Any, theirs: Any, before: Any) -> bool:
    """Whether a case's merged weight equals PEFT's. Where bits may differ, both results are rounded, so they
    may differ by one unit in the last place. PEFT also rounds some updates to the dtype twice before it adds
    them, and sums each row in float32, with an error of at most 2⁻²⁴ of the largest number per addition.
    """
    if name not in ROUNDED or ours.dim() > 2:
        return torch.equal(ours, theirs)
    size = ours.abs()
    unit = torch.nextafter(size, torch.full_like(size, torch.inf)).double() - size.double()
    update = (ours.double() - before.double()).abs()
    # PEFT's transforms add in as many steps as the logarithm of their size, RandLoRA's products over the
    # shorter side, its other products over a row.
    if name.startswith(("c3a", "fourierft")):
        steps = math.log2(ours.numel())
    else:
        steps = min(ours.shape) if name == "randlora" else ours.shape[-1]
    sums = steps * 2.0**-24 * theirs.double().abs().max()
    bound = unit + torch.finfo(ours.dtype).eps * update + sums
    return bool(((ours.double() - theirs.double()).abs() <= bound).all())
