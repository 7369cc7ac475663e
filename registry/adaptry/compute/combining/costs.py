"""Estimates the time of multiplications from a short measurement on this machine."""

from __future__ import annotations

import time

_SIDE = 256
_ROUNDS = 8


def estimate_seconds(operations: float) -> float:
    """A rough time in seconds for a plan's `operations`, from the speed of small products in float64. Needs
    torch.
    """
    import torch

    matrix = torch.ones(_SIDE, _SIDE, dtype=torch.float64)
    matrix @ matrix
    started = time.perf_counter()
    for _ in range(_ROUNDS):
        matrix @ matrix
    each = (time.perf_counter() - started) / (_ROUNDS * _SIDE**3)
    return operations * each
