"""Activation functions in float64 without torch, by their names in `torch.nn.functional`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptry.adapters.methods.row_formula import Doubles


def activation(name: str) -> Callable[[Doubles], Doubles]:
    """The function of that name, with torch's default parameters. Raises `KeyError` if it is unknown."""
    import numpy as np

    def softplus(x: Doubles) -> Doubles:
        return np.logaddexp(0, x)

    def sigmoid(x: Doubles) -> Doubles:
        return np.exp(-softplus(-x))

    def gelu(x: Doubles) -> Doubles:
        erf = np.asarray(np.frompyfunc(math.erf, 1, 1)(x / math.sqrt(2)), np.float64)
        return 0.5 * x * (1 + erf)

    functions: dict[str, Callable[[Doubles], Doubles]] = {
        "relu": lambda x: np.maximum(x, 0),
        "relu6": lambda x: np.clip(x, 0, 6),
        "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
        "gelu": gelu,
        "silu": lambda x: x * sigmoid(x),
        "mish": lambda x: x * np.tanh(softplus(x)),
        "tanh": np.tanh,
        "sigmoid": sigmoid,
    }
    return functions[name]
