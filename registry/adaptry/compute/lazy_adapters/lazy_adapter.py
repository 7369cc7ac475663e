"""An adapter that has not been computed yet: its parents, its possible tensors, and a function for its
modules.

A lazy adapter is a cheap value. Its weights are computed module by module when a sink requests them, so only
one module is in memory, however large the adapter is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeAlias

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.content import Content
from adaptry.core.digest import Digest
from adaptry.core.display import short_repr
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import BaseClaim

if TYPE_CHECKING:
    from torch import Tensor

Json: TypeAlias = dict[str, Any]
"""A JSON object; its writer defines the fields."""


@dataclass(frozen=True, slots=True)
class ParentAdapter:
    """An adapter from which another is derived: the user's name for it, its revision if a registry has it,
    and its base with the registered name, if the base is known. `written` is the adapter as in its files, if
    `adapter` is the view of them that PEFT has.
    """

    adapter: Adapter
    label: str
    revision: Digest | None = None
    base: BaseRecord | None = None
    written: Adapter | None = None
    base_name: str | None = None

    def __repr__(self) -> str:
        return short_repr(self, self.label)

    @property
    def base_label(self) -> str:
        """The label of the adapter's base in messages: its name, or else the first digits of its id."""
        return self.base_name or (self.base.id.brief if self.base else "no base")

    def recipe_entry(self) -> Json:
        """The entry that identifies the parent in a recipe: its revision, or else the digests of its weights
        and config.
        """
        if self.revision is not None:
            return {"revision": str(self.revision)}
        adapter = self.written or self.adapter
        config = adapter.format.config
        named = {"weights": str(adapter.weights_digest())}
        if config:
            named["config"] = str(Digest.of_chunks(adapter.content.chunks(config)))
        return named


@dataclass(frozen=True, slots=True)
class ComputedModule:
    """A computed module of a lazy adapter: its tensors by their names in the file, and its figures.

    Figures have fixed names: `energy` is ‖Δ‖² (Frobenius) of the intended update, `lost` is ‖Δ − Δ'‖² of the
    result, `rank` is its rank. A module without figures is exact.
    """

    module: str
    tensors: Mapping[str, Tensor]
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LazyAdapter:
    """`names`: every tensor that it may have. `compute` yields its modules; repeated calls compute the same
    again. `config` returns its `adapter_config.json`, from the written shapes. `recipe` is canonical, with
    parents as in `ParentAdapter.recipe_entry`. `extra_files`: further files (a tokenizer). `notes`: sentences
    for the user. `is_measured`: whether a module without figures is exact, which is false if another
    program's arithmetic is reproduced.
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
