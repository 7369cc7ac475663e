"""Whether a merge of an adapter would leave its base unchanged, determined without writing anything.

For methods whose tensors begin as parts of the base's weight, only this shows whether they were trained. The
smallest weights are merged first, and the first one that changes ends the search, so little is computed for a
trained adapter.
"""

from __future__ import annotations

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.shards import Shards
from adaptry.compute.merging.execute import merge_tensor
from adaptry.compute.merging.kernels import choose_kernels
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.merging.plan import plan_merge
from adaptry.compute.merging.value_tally import ValueTally
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.core.errors import AdaptryError

_ROUNDING = 2.0**-18
"""The largest change of a float32 weight, relative to the weights beside it, that counts as rounding. Sums
of 8,192 products differ by less."""


def leaves_base_unchanged(adapter: Adapter, base: BaseRecord, checkpoint: HfCheckpoint) -> bool:
    """Whether no weight of `checkpoint`, whose record is `base`, would change, within rounding in float32 and
    exactly in other dtypes. False if the adapter cannot be merged into it.
    """
    try:
        plan = plan_merge(checkpoint, [WeightedAdapter(adapter, 1.0, "the adapter", base)])
        kernels = choose_kernels()
        tensors = sorted(plan.changed_tensors, key=lambda tensor: tensor.size)
        kernels.check(tensors)
        if not all(_keeps_its_form(tensor) for tensor in tensors):
            return False
        with Shards(plan.checkpoint) as shards, kernels.limit_threads(tensors):
            own = kernels.for_thread(tensors)
            for tensor in tensors:
                merge_tensor(tensor, _Comparison(shards, tensor), own, kernels.block)
    except (_WeightChanged, AdaptryError):
        return False
    return bool(tensors)


def _keeps_its_form(tensor: OutputTensor) -> bool:
    source = tensor.source
    return tensor.packed is None and (tensor.dtype, tensor.size) == (source.dtype, source.size)


class _WeightChanged(Exception):
    """Raised when a weight changes."""


class _Comparison:
    """Takes the bytes of a merged tensor. Raises `_WeightChanged` at the first block that differs from
    the base.
    """

    def __init__(self, shards: Shards, tensor: OutputTensor) -> None:
        self._shards = shards
        self._tensor = tensor

    def read(self, shard: str, into: memoryview, at: int) -> None:
        self._shards.read(shard, into, at)

    def write(self, data: memoryview | bytes, at: int) -> None:
        tensor = self._tensor
        base = memoryview(bytearray(len(data)))
        self._shards.read(tensor.shard, base, tensor.source.start + at - tensor.offset)
        if tensor.dtype == "F32":
            is_changed = not _is_close(data, base)
        else:
            tally = ValueTally(tensor)
            tally.add(data, lambda: base, tensor.dtype)
            is_changed = tally.is_changed
        if is_changed:
            raise _WeightChanged


def _is_close(data: memoryview | bytes, base: memoryview) -> bool:
    import numpy as np

    found, wanted = np.frombuffer(data, np.float32), np.frombuffer(base, np.float32)
    if not np.isfinite(found).all() or not wanted.size:
        return not wanted.size
    difference = np.abs(found - wanted).max()
    return bool(difference <= _ROUNDING * np.abs(wanted).max())
