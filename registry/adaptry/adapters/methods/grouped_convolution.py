"""LoRAs of grouped convolutions, whose weight has the inputs of one group only: [out, in/groups, *kernel].

PEFT's A is [rank, in, *kernel], and its B, a grouped convolution too, [out, rank/groups, 1…].
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapters.header import TensorInfo
from adaptry.adapters.spec import ModuleSpec


def count_groups(module: ModuleSpec, tensors: Mapping[str, TensorInfo]) -> int:
    """The number of groups, derived from the shapes of a LoRA's factors in `tensors`; 1 for any other module,
    and for shapes that no number of groups explains.
    """
    if module.kind != "conv" or not {"A", "B"} <= module.tensors.keys():
        return 1
    width = tensors[module.tensors["B"]].shape[1]
    groups, rest = divmod(module.rank, width) if width else (1, 0)
    is_divided = not rest and not module.fan_in % groups and not module.fan_out % groups if groups else False
    return groups if is_divided else 1
