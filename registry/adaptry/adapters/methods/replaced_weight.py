"""A module's weight after its change, if the file also replaces the base's weight.

PEFT first adds the adapter to the base, and then loads the file's tensors. Some methods compute a part of
their change in the first step, from a weight that the second step replaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.methods.method import BaseAtLoad

if TYPE_CHECKING:
    from torch import Tensor


def after_replacement(base_at_load: BaseAtLoad, own: Tensor, stored: Tensor, changed: Tensor) -> Tensor:
    """The new weight, in the dtype of `stored`. `own` is the file's weight, `stored` the base's, `changed`
    the base's after the method's change. All have the same shape.
    """
    if base_at_load == "weight":
        return changed
    return (own.float() + (changed.float() - stored.float())).to(stored.dtype)
