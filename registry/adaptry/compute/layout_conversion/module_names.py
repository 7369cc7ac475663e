"""A module's name in each layout, from the tensors of its base.

transformers 4 used the names on disk; transformers 5 uses the tables in `transformers_conversion`. An adapter
may have or lack a task model's prefix compared with the base's files; the conversion does not change that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from adaptry.adapters.base_record import TensorShape
from adaptry.adapters.key_layout import SPELLINGS
from adaptry.adapters.transformers_conversion import LoadedTensor, tensors_in_memory
from adaptry.bases.model_classes import EXPERT_MATRICES, expert_family
from adaptry.core.lazy_dataclass import dataclass

LayoutVersion = Literal["transformers4", "transformers5"]
LAYOUTS: tuple[LayoutVersion, ...] = ("transformers4", "transformers5")


@dataclass(frozen=True, slots=True)
class LoadedNames:
    """A base's weights by name on disk, each with the parameter of transformers 5 in memory that it is, or is
    a part of.
    """

    by_part: Mapping[str, LoadedTensor]
    router: str = ""
    """The end of the name of a router's parameter (`gate.weight`), which PEFT adapts if the config names the
    module `gate` as transformers 4 had it. Empty for model types whose targets PEFT does not convert.
    """

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, TensorShape], model_type: str) -> LoadedNames:
        found = {part: tensor for tensor in tensors_in_memory(tensors, model_type) for part in tensor.parts}
        return cls(found, EXPERT_MATRICES.get(expert_family(model_type), {}).get("gate", ""))

    def is_router(self, parameter: str) -> bool:
        return bool(self.router) and parameter.rpartition(".mlp.")[2] == self.router

    def rename(self, parameter: str, disk: str, to: LayoutVersion) -> str:
        """The name of `parameter`, which is the tensor `disk` of the base, in the layout.

        A part of a fused parameter has no separate module in transformers 5; the caller handles that case.
        """
        memory = self.by_part[disk].name if disk in self.by_part else disk
        old, new = _old_spelling(disk), _new_spelling(memory)
        target = new if to == "transformers5" else old
        for known in (new, old, memory, disk):
            if (renamed := _with_prefix_of(parameter, known, target)) is not None:
                return renamed
        if to == "transformers5" and _new_spelling(parameter) == new:
            return new  # a name that neither this base's files nor transformers 5 has
        return parameter  # placed by a special rule (a tied head), so its name is the same in all layouts


def _with_prefix_of(name: str, known: str, target: str) -> str | None:
    """`target`, with the prefix added or removed that distinguishes `name` from `known`; None if these differ
    in anything else.
    """
    if name == known:
        return target
    if name.endswith(f".{known}"):
        return name.removesuffix(known) + target
    if known.endswith(f".{name}"):
        return target.removeprefix(known.removesuffix(name))
    return None


def _new_spelling(name: str) -> str:
    for new, old in sorted(SPELLINGS, key=lambda spelling: -len(spelling[1])):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _old_spelling(name: str) -> str:
    for new, old in SPELLINGS:
        if new != "lm_head." and name.startswith(new):
            return old + name.removeprefix(new)
    return name
