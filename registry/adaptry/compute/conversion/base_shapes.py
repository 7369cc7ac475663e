"""The base of a conversion: always the shapes of its weights, and their values if there is a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.content import open_regular
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed, InvalidWeights
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

_PART = 64 << 20
_SAME_BASE = ("exact", "same_weights", "cast")


@dataclass(frozen=True, slots=True)
class ConversionBase:
    """A base: its record, and its files if they are on this machine."""

    record: BaseRecord
    checkpoint: HfCheckpoint | None = None

    def read_tensor(self, tensor: str) -> Tensor:
        """A weight in its stored shape and dtype; needs a checkpoint. Raises `InvalidWeights` if its file is
        truncated.
        """
        from adaptry.compute.tensors.adapter_tensors import as_tensor

        assert self.checkpoint is not None
        info = self.checkpoint.tensors[tensor]
        data = bytearray(info.size)
        view = memoryview(data)
        with open_regular(self.checkpoint.path_of(tensor)) as file:
            file.seek(info.start)
            while view:
                count = file.readinto(view[:_PART])
                if not count:
                    raise InvalidWeights(f"{self.checkpoint.path_of(tensor)} ends inside {tensor}")
                view = view[count:]
        return as_tensor(data, info)


def check_conversion_base(parent: ParentAdapter, base: ConversionBase, other_base: bool) -> list[str]:
    """Notes if `base` is not the base that the adapter is known to be for.

    Raises `CheckFailed` unless the two are copies of the same weights, or `other_base` allows it.
    """
    if parent.base is None or parent.base.id == base.record.id:
        return []
    found = match_bases(parent.base, base.record)
    between = f"{parent.label} is for the base {parent.base.id.brief}, but this is {base.record.id.brief}"
    if found.level in _SAME_BASE:
        return [f"{between}: {found.evidence}"]
    if not other_base:
        raise CheckFailed(
            f"{parent.label} is for the base {parent.base_label}, but this is {base.record.id.brief}:"
            f" {found.evidence}. The result would be a different adapter; pass its own"
            " base, or --other-base if you want this"
        )
    return [f"{between}: {found.evidence}; another base was allowed"]
