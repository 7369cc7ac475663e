"""An adapter that is to be made: where it comes from, its possible tensors, and how each module is made.

A lazy adapter is a value and cheap. Its weights are computed module by module, when a sink asks, so that
memory holds one module however large the adapter is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.content import Content
from adaptry.core.digest import Digest
from adaptry.core.manifest import BaseClaim

if TYPE_CHECKING:
    from torch import Tensor

Json: TypeAlias = dict[str, Any]
"""A JSON object whose shape belongs to who wrote it."""


@dataclass(frozen=True, slots=True)
class ParentAdapter:
    """An adapter that another is made from: what the user called it, its revision if a registry has it, and
    the base it is known to be for, if any.
    """

    adapter: Adapter
    label: str
    revision: Digest | None = None
    base: BaseRecord | None = None

    def recipe_entry(self) -> Json:
        """How a recipe names it, wherever it is: its revision, else the digests of its weights and config."""
        if self.revision is not None:
            return {"revision": str(self.revision)}
        config = self.adapter.format.config
        named = {"weights": str(self.adapter.weights_digest())}
        if config:
            named["config"] = str(Digest.of_chunks(self.adapter.content.chunks(config)))
        return named


@dataclass(frozen=True, slots=True)
class ComputedModule:
    """One module of a lazy adapter, computed: its tensors by their names in the file, and its figures.

    Figures have fixed names: `energy` is ‖Δ‖² (Frobenius) of what the module should be, `lost` is ‖Δ − Δ'‖²
    of what was made instead, `rank` its rank. A module without figures is exact.
    """

    module: str
    tensors: Mapping[str, Tensor]
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LazyAdapter:
    """`names`: every tensor it may have. `compute` gives its modules, each time anew and each time the same.
    `config`: its `adapter_config.json`, from the shapes that were written. `recipe` is canonical: it names
    parents as `ParentAdapter.recipe_entry` does. `extra_files`: files that come along (a tokenizer).
    `notes`: sentences for the reader. `is_measured`: whether a module without figures is exact; not where
    another program's arithmetic is reproduced.
    """

    parents: tuple[ParentAdapter, ...]
    recipe: Json
    names: tuple[str, ...]
    compute: Callable[[], Iterator[ComputedModule]]
    config: Callable[[Mapping[str, tuple[int, ...]]], Json]
    base: BaseClaim | None = None
    extra_files: Mapping[str, Content] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_measured: bool = True
