"""Compares the rows of embeddings that an adapter replaces with those in the base's files.

A base's record has too few elements of an embedding to show its rows, so this needs the base's folder. Only
the rows are read, and comparing ends at the first that differs.
"""

from __future__ import annotations

import base64

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.header import DTYPE_BITS, PLAIN_FLOATS
from adaptry.bases.fingerprinting.dtype_cast import find_cast
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ExtraTarget
from adaptry.bases.shards import Shards
from adaptry.checks.binding import bind


def rows_of_base(adapter: Adapter, base: BaseRecord, checkpoint: HfCheckpoint) -> frozenset[str]:
    """The targets whose replaced rows equal the base's own. `checkpoint` has the weights of `base`."""
    extras = [extra for extra in bind(adapter, base).module_map.extras if extra.extra.kind == "token_rows"]
    with Shards(checkpoint) as shards:
        return frozenset(
            extra.extra.target for extra in extras if _has_own_rows(adapter, extra, checkpoint, shards)
        )


def _has_own_rows(adapter: Adapter, extra: ExtraTarget, checkpoint: HfCheckpoint, shards: Shards) -> bool:
    """Whether PEFT, which casts each row to the base's dtype, loads the same values that the base has in
    these rows.
    """
    info, stored = adapter.tensors[extra.extra.tensor], checkpoint.tensors.get(extra.tensor)
    if stored is None or not {info.dtype, stored.dtype} <= PLAIN_FLOATS:
        return False
    if not extra.rows or len(stored.shape) != 2 or info.shape != (len(extra.rows), stored.shape[1]):
        return False
    is_wider = DTYPE_BITS[info.dtype] > DTYPE_BITS[stored.dtype]
    exact = ("equal", "a change of dtype")
    shard, read = checkpoint.shard_of[extra.tensor], adapter.content.reader(adapter.format.weights)
    own_size, size = info.size // len(extra.rows), stored.size // stored.shape[0]
    for place, row in enumerate(extra.rows):
        if row >= stored.shape[0]:
            return False
        own = read(info.start + place * own_size, own_size)
        wanted = bytearray(size)
        shards.read(shard, memoryview(wanted), stored.start + row * size)
        cast = find_cast(info.dtype, _text(own), stored.dtype, _text(wanted))
        if cast is None or (cast not in exact and not is_wider):
            return False
    return True


def _text(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode("ascii")
