"""A checkpoint as the model sees it: each quantised weight is one tensor with the model's name and shape.

Scales, zeros and tables count as part of their weight. So a quantised copy has the names and shapes of the
original model, and an adapter fits both or neither.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from adaptry.adapters.header import ReadAt, TensorInfo
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.quantised.four_bit import MAX_BLOCK
from adaptry.bases.quantised.layouts import LAYOUTS, CheckpointTensors, has_all_codes
from adaptry.bases.quantised.packed_weight import CODES, PackedWeight
from adaptry.core.errors import InvalidWeights
from adaptry.core.lazy_dataclass import dataclass

_MARKS = (".SCB", ".qweight", ".weight_packed", ".weight", ".W_q", "_blocks", "_proj", "_qdata")
"""Endings of names that a rule may recognise. (Fused experts end in `_proj`.)"""


@dataclass(frozen=True, slots=True)
class LogicalView:
    """`checkpoint` lists a packed weight under its name in the model, with its shape there, the position of
    its codes, and their dtype (U8 for four bits), without scales and other parts. The keys of `packed` are
    these names.
    """

    checkpoint: HfCheckpoint
    packed: Mapping[str, PackedWeight]

    @property
    def method(self) -> str | None:
        """A description of its quantisation; None if it is not quantised."""
        return " and ".join(sorted({packed.title for packed in self.packed.values()})) or None


def open_logical_view(checkpoint: HfCheckpoint) -> LogicalView:
    """Opens the view. Reads headers, and the states and shapes that are stored as small tensors.

    Raises `InvalidWeights` if a file became shorter.
    """
    packed: dict[str, PackedWeight] = {}
    with _reading(checkpoint) as read:
        files = CheckpointTensors(
            checkpoint.tensors, checkpoint.shard_of, checkpoint.config, read, _metadata(checkpoint)
        )
        for name in checkpoint.tensors:
            if name.endswith(_MARKS) or ".quant_state." in name:
                found = next(filter(None, (rule(name, files) for rule in LAYOUTS)), None)
                if found and has_all_codes(found):
                    packed[found.name] = found
    if not packed:
        return LogicalView(checkpoint, packed)
    inside = {part.name for weight in packed.values() for part in weight.parts.values()}
    tensors = {name: info for name, info in checkpoint.tensors.items() if name not in inside}
    for name, weight in packed.items():
        codes = weight.parts[CODES].info
        dtype = "U8" if weight.four_bit else codes.dtype  # bitsandbytes may store bytes as any dtype
        tensors[name] = TensorInfo(dtype, weight.shape, codes.start, codes.end)
    shard_of = {**checkpoint.shard_of, **{name: weight.codes.shard for name, weight in packed.items()}}
    return LogicalView(replace(checkpoint, tensors=tensors, shard_of=shard_of), packed)


def _metadata(checkpoint: HfCheckpoint) -> Callable[[str, str], str | None]:
    return lambda shard, name: checkpoint.shards[shard].metadata.get(name)


@contextlib.contextmanager
def _reading(checkpoint: HfCheckpoint) -> Iterator[Callable[[str], bytes]]:
    """Reads of small tensors; a file is opened when it is first needed."""
    with contextlib.ExitStack() as stack:
        opened: dict[str, ReadAt] = {}

        def read(name: str) -> bytes:
            shard, info = checkpoint.shard_of[name], checkpoint.tensors[name]
            if shard not in opened:
                opened[shard] = stack.enter_context(checkpoint.open_shard(shard))
            data = opened[shard](info.start, min(info.size, MAX_BLOCK))
            if len(data) != min(info.size, MAX_BLOCK):
                raise InvalidWeights(f"{shard} ended inside {name}; is the download complete?")
            return data

        yield read
