"""A quantised weight: the tensors on disk that contain it, and its shape in the model."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapters.header import TensorInfo
from adaptry.core.lazy_dataclass import dataclass

CODES = "codes"
"""The role of the tensor with the packed values. Other roles are the endings of their names on disk."""


@dataclass(frozen=True, slots=True)
class PackedPart:
    """A tensor on disk: its name, its file, and its position there."""

    name: str
    shard: str
    info: TensorInfo


@dataclass(frozen=True, slots=True)
class FourBitState:
    """The state that bitsandbytes writes with 4-bit codes: values per scale, the dtype after dequantisation
    (as safetensors writes it) and, if scales are quantised too, how many of them share a scale, and their
    offset.
    """

    blocksize: int
    dtype: str
    nested_blocksize: int = 0
    nested_offset: float = 0.0

    @property
    def is_nested(self) -> bool:
        return self.nested_blocksize > 0


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight with `shape` and `name` in the model, packed by `method` with `bits` per value.

    `is_transposed`: the codes are those of the transposed weight, as bitsandbytes packs a Conv1D. Only
    bitsandbytes' 4-bit methods have `four_bit`.
    """

    name: str
    method: str
    bits: int
    shape: tuple[int, ...]
    parts: Mapping[str, PackedPart]
    four_bit: FourBitState | None = None
    is_transposed: bool = False

    @property
    def codes(self) -> PackedPart:
        return self.parts[CODES]

    @property
    def title(self) -> str:
        return f"{self.method}, {self.bits}-bit"

    @property
    def is_bitsandbytes(self) -> bool:
        """Whether its values can be computed here, exactly as bitsandbytes does."""
        return self.method.startswith("bitsandbytes")
