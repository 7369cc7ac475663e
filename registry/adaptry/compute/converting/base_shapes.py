"""The base under a conversion: the shapes of its weights always, values where a checkpoint is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.content import open_regular
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed, InvalidWeights

if TYPE_CHECKING:
    from torch import Tensor

_PART = 64 << 20
_SAME = ("exact", "same_weights", "cast")


@dataclass(frozen=True, slots=True)
class ConversionBase:
    """A base: its record, and its files if they are here."""

    record: BaseRecord
    checkpoint: HfCheckpoint | None = None

    def read_tensor(self, tensor: str) -> Tensor:
        """A weight as it is stored; only with a checkpoint. Raises `InvalidWeights` if its file is cut."""
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
    """What is to be told where `base` is not the base that the adapter is known to be for.

    Raises `CheckFailed` unless the two are copies of the same weights, or `other_base` asks for it.
    """
    if parent.base is None or parent.base.id == base.record.id:
        return []
    found = match_bases(parent.base, base.record)
    between = f"{parent.label} is for the base {parent.base.id.brief}, and this is {base.record.id.brief}"
    if found.level in _SAME:
        return [f"{between}: {found.evidence}"]
    if not other_base:
        raise CheckFailed(
            f"{between}: {found.evidence}. Converted on it the adapter would be another one; give its own"
            " base, or say --other-base if that is what you want"
        )
    return [f"{between}: {found.evidence}, as --other-base allows"]
