"""Several adapters in one name: `acme/tone@prod+acme/facts@prod=0.5`, each with the weight of its update.

The updates are added up, so the order of the parts does not matter. A plain ref is a stack of one part.
"""

from __future__ import annotations

import re
from typing import Self

from adaptry.core.errors import InvalidRef
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Ref

MAX_PARTS = 8
_WEIGHT = re.compile(r"-?[0-9]{1,3}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class StackPart:
    """An adapter, and the factor of its update."""

    ref: Ref
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """`REF` or `REF=WEIGHT`. Raises `InvalidRef`."""
        ref, is_weighted, weight = text.partition("=")
        if is_weighted and (not _WEIGHT.fullmatch(weight) or float(weight) == 0):
            raise InvalidRef(f"not a weight: {weight[:40]!r} (a number other than 0, as in acme/tone=0.5)")
        return cls(Ref.parse(ref), float(weight) if is_weighted else 1.0)

    def __str__(self) -> str:
        return f"{self.ref}{weight_suffix(self.weight)}"


@dataclass(frozen=True, slots=True)
class StackRef:
    """The meaning of one name: one adapter or several."""

    parts: tuple[StackPart, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a name of one adapter or of several, such as `acme/tone@prod+acme/facts=0.5`. Raises
        `InvalidRef`.
        """
        parts = text.split("+", MAX_PARTS)
        if len(parts) > MAX_PARTS:
            raise InvalidRef(f"at most {MAX_PARTS} adapters are stacked in one name: {text[:200]!r}")
        found = tuple(map(StackPart.parse, parts))
        if len({part.ref for part in found}) < len(found):
            raise InvalidRef(f"an adapter is in the name twice: {text[:200]!r}; give it one weight")
        return cls(found)

    @property
    def single(self) -> Ref | None:
        """The ref, if this is a single adapter with weight 1."""
        only = self.parts[0]
        return only.ref if len(self.parts) == 1 and only.weight == 1 else None

    @property
    def refs(self) -> tuple[Ref, ...]:
        return tuple(part.ref for part in self.parts)

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(part.weight for part in self.parts)

    def __str__(self) -> str:
        return "+".join(map(str, self.parts))


def weight_suffix(weight: float) -> str:
    """A weight as written after a ref."""
    return "" if weight == 1 else f"={weight:.6f}".rstrip("0").rstrip(".")
