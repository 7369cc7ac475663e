"""One quantised weight: the tensors on disk that it is packed in, and the shape that it has in the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adaptry.adapters.header import TensorInfo

CODES = "codes"
"""The role of the tensor that holds the packed values; the others are named as they end on disk."""


@dataclass(frozen=True, slots=True)
class PackedPart:
    """A tensor on disk: its name, its file, its place there."""

    name: str
    shard: str
    info: TensorInfo


@dataclass(frozen=True, slots=True)
class FourBitState:
    """What bitsandbytes writes beside 4-bit codes: values per scale, the dtype it dequantises to
    (safetensors' word), and, where scales are quantised themselves, how many of those share one and what is
    added to each.
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
    """A weight of `shape`, called `name` in the model, packed by `method` in so many `bits` a value.

    `is_turned`: the codes are those of the transposed weight, as bitsandbytes packs a Conv1D. `four_bit` is
    there for bitsandbytes' 4-bit methods alone.
    """

    name: str
    method: str
    bits: int
    shape: tuple[int, ...]
    parts: Mapping[str, PackedPart]
    four_bit: FourBitState | None = None
    is_turned: bool = False

    @property
    def codes(self) -> PackedPart:
        return self.parts[CODES]

    @property
    def title(self) -> str:
        return f"{self.method}, {self.bits}-bit"

    @property
    def is_bitsandbytes(self) -> bool:
        """Whether its values can be computed here, exactly as its library does."""
        return self.method.startswith("bitsandbytes")
