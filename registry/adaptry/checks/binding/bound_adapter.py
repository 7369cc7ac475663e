"""What an adapter is on a base, as PEFT loads it: the values that `bind` gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adaptry.adapters.adapter import Adapter
from adaptry.bases.module_map import ExtraTarget, ModuleMap

DropCause = Literal["name", "not_targeted", "no_place", "incomplete"]
"""Why PEFT does not load tensors as they were trained: no module of the model has their name; the config does
not make PEFT adapt the module; the model has no such parameter once the adapter is in it; they are not all
that the module needs, and PEFT fills in the others.
"""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Tensors of one module (or one whole weight) that PEFT leaves out. `reason` ends a sentence that begins
    with the module. `intended`: the module's name where another of that meaning is in the model.
    """

    path: str
    tensors: tuple[str, ...]
    cause: DropCause
    reason: str
    intended: str | None = None


@dataclass(frozen=True, slots=True)
class BoundAdapter:
    """An adapter on a base.

    `module_map` has every module and whole weight that PEFT applies, with the base's tensor, and those for
    which the base has no place at all (`missing`). `dropped` is what PEFT leaves out without a word,
    `refusals` why it would not load the adapter at all, each a sentence. `unlisted` are whole weights that
    replace one of the base's although no field of the config names them. `uncovered` are modules that the
    config makes PEFT adapt and for which the file has nothing: `fills_in` says whether PEFT's values for them
    change the model.
    """

    adapter: Adapter
    module_map: ModuleMap
    dropped: tuple[Dropped, ...] = ()
    refusals: tuple[str, ...] = ()
    unlisted: tuple[ExtraTarget, ...] = ()
    uncovered: tuple[str, ...] = ()
    fills_in: bool = False
