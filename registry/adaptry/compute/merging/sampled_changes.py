"""Estimates in advance how many elements a merge changes, by merging one block of rows of each weight."""

from __future__ import annotations

from functools import partial

from adaptry.bases.shards import Shards
from adaptry.compute.merging.execute import read_again
from adaptry.compute.merging.kernels import ThreadKernels, choose_kernels, row_layout
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.merging.rounding_loss import ChangedElements, is_lost
from adaptry.compute.merging.value_tally import ValueTally
from adaptry.compute.tensors.kernel import row_blocks
from adaptry.core.errors import AdaptryError

_MAX_ROWS = 128
"""Weights of a large model that are sampled, evenly."""


def sample_changes(plan: MergePlan) -> ChangedElements:
    """The counts of the merged blocks, and the names of the weights whose update would mostly be lost.
    Weights that are not merged in blocks are left out. The result is empty if nothing can be merged on this
    machine.
    """
    found = ChangedElements()
    try:
        kernels = choose_kernels()
        streamed = [each for each in plan.changed_tensors if each.is_adapted and kernels.is_streamed(each)]
        tensors = streamed[:: -(-len(streamed) // _MAX_ROWS) or 1]
        kernels.check(tensors)
        with Shards(plan.checkpoint) as shards, kernels.limit_threads(tensors):
            own = kernels.for_thread(tensors)
            for tensor in tensors:
                found += _sample(tensor, shards, own, kernels.block)
    except AdaptryError:
        return ChangedElements()  # the merge itself reports it
    return found


def _sample(tensor: OutputTensor, shards: Shards, kernels: ThreadKernels, block: int) -> ChangedElements:
    rows, row_bytes = row_layout(tensor)
    blocks = list(row_blocks(rows, row_bytes, block))
    first, count = blocks[len(blocks) // 2]
    begin, size = tensor.source.start + first * row_bytes, count * row_bytes
    kernel, tally = kernels.begin_kernel(tensor, shards), ValueTally(tensor)
    shards.read(tensor.shard, kernel.source[:size], begin)
    merged = kernel.merge_rows(first, count)
    again = partial(read_again, shards, tensor.shard, begin, size)
    tally.add(merged, again, tensor.source.dtype, kernel.tally())
    elements = count * (tensor.numel // rows)
    lost = is_lost(tensor, tally.changed * tensor.numel // elements)
    return ChangedElements(elements, tally.changed, (tensor.name,) if lost else ())
