"""Builds one LoRA from several: exactly the sum of their weighted updates, with concatenated factors.

It is computed in vLLM's own process, which has torch, when such a name is first requested, and kept in the
cache by the digests and weights of its parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adaptry import __version__
from adaptry.adapters.adapter import open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.cache.cache import CachedAdapter


@dataclass(frozen=True, slots=True)
class Stack:
    """Versions with their weights. A version that occurs twice counts once, with the sum of its weights."""

    parts: tuple[CachedAdapter, ...]
    weights: Mapping[Digest, float]

    @classmethod
    def of(cls, parts: Sequence[CachedAdapter], weights: Sequence[float]) -> Stack:
        """The stack of these parts. Raises `CheckFailed` if the weights of a version cancel out."""
        sums: dict[Digest, float] = {}
        for part, weight in zip(parts, weights, strict=True):
            sums[part.digest] = sums.get(part.digest, 0.0) + weight
        for part in parts:
            if sums[part.digest] == 0:
                raise CheckFailed(f"the weights of {part.version.label} add up to 0; leave it out")
        unique = {part.digest: part for part in parts}
        return cls(tuple(unique[digest] for digest in sorted(unique, key=lambda one: one.hex)), sums)

    @property
    def digests(self) -> tuple[Digest, ...]:
        return tuple(part.digest for part in self.parts)

    @property
    def key(self) -> str:
        """Identifies the parts and weights, in any order."""
        parts = [[part.digest.hex, self.weights[part.digest]] for part in self.parts]
        return hashlib.sha256(strictjson.canonical([__version__, parts])).hexdigest()[:32]

    def write(self, folder: Path, reserve: Callable[[int], None], base: BaseRecord) -> None:
        """Writes the stack into an empty folder, after calling `reserve` with the maximum number of bytes
        that it needs. Raises `CheckFailed`, with the part and the reason, if it would not be exactly the sum;
        `MissingDependency`; and the errors of `reserve`."""
        from adaptry.compute.combining.combine import build_combined_adapter
        from adaptry.compute.combining.plan import plan_combination
        from adaptry.compute.lazy_adapters.folder_writer import write_adapter_into
        from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
        from adaptry.compute.recipes.combine import CombineRecipe
        from adaptry.compute.recipes.merge import RecipeInput

        inputs = tuple(
            RecipeInput(source=part.version.label, weight=self.weights[part.digest]) for part in self.parts
        )
        parents = [
            ParentAdapter(open_dir(part.path), part.version.label, part.digest, base) for part in self.parts
        ]
        plan = plan_combination(CombineRecipe(inputs=inputs, uniform=True), parents)
        if plan.whole.names:
            raise CheckFailed(
                f"one of {', '.join(part.version.label for part in self.parts)} has whole weights"
                f" ({plan.whole.names[0]}), which have no weighted sum; request it alone"
            )
        reserve(plan.size)
        write_adapter_into(build_combined_adapter(plan), folder)
