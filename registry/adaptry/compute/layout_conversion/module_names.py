"""What a module of an adapter is called in each layout, from the tensors of its base.

transformers 4 called a module as its weight is called on disk; transformers 5 by the tables in
`transformers_loading`. An adapter may have a task model's prefix more or less than the base's files, and
keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adaptry.adapters.base_record import TensorShape
from adaptry.adapters.key_layout import SPELLINGS
from adaptry.adapters.transformers_loading import LoadedTensor, tensors_in_memory

LayoutVersion = Literal["transformers4", "transformers5"]
LAYOUTS: tuple[LayoutVersion, ...] = ("transformers4", "transformers5")


@dataclass(frozen=True, slots=True)
class LoadedNames:
    """A base's weights by name on disk: what each is, or is part of, in memory under transformers 5."""

    by_part: Mapping[str, LoadedTensor]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, TensorShape], model_type: str) -> LoadedNames:
        found = {part: tensor for tensor in tensors_in_memory(tensors, model_type) for part in tensor.parts}
        return cls(found)

    def rename(self, parameter: str, disk: str, to: LayoutVersion) -> str:
        """`parameter`, which is the tensor `disk` of the base, as the layout calls it.

        Where it is a part of a fused parameter, transformers 5 has no module of its own for it: that is the
        caller's.
        """
        memory = self.by_part[disk].name if disk in self.by_part else disk
        old, new = _old_spelling(disk), _new_spelling(memory)
        target = new if to == "transformers5" else old
        for known in (new, old, memory, disk):
            if (renamed := _with_prefix_of(parameter, known, target)) is not None:
                return renamed
        return parameter  # placed by a rule of its own (a tied head): no layout changed its name


def _with_prefix_of(name: str, known: str, target: str) -> str | None:
    """`target`, with the prefix that `name` has beyond `known`, or lacks; None if they are not one name."""
    if name == known:
        return target
    if name.endswith(f".{known}"):
        return name.removesuffix(known) + target
    if known.endswith(f".{name}"):
        return target.removeprefix(known.removesuffix(name))
    return None


def _new_spelling(name: str) -> str:
    for new, old in SPELLINGS:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _old_spelling(name: str) -> str:
    for new, old in SPELLINGS:
        if new != "lm_head." and name.startswith(new):
            return old + name.removeprefix(new)
    return name
