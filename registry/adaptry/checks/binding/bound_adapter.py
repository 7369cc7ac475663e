"""The result of `bind`: an adapter on a base, as PEFT loads it."""

from __future__ import annotations

from typing import Literal

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.methods.lora_config import LoraVariant
from adaptry.bases.module_map import ExtraTarget, ModuleMap
from adaptry.core.lazy_dataclass import dataclass

DropCause = Literal["name", "not_targeted", "no_place", "incomplete"]
"""Why PEFT does not load tensors as they were trained: no module of the model has their name; the config does
not make PEFT adapt the module; the model with the adapter has no such parameter; or the module needs further
tensors, which PEFT initialises.
"""


@dataclass(frozen=True, slots=True)
class DroppedPart:
    """Tensors of one module, or one whole weight, that PEFT drops. `reason` ends a sentence that begins with
    the module. `intended` is the name of the module that was probably meant, if the model has one.
    """

    path: str
    tensors: tuple[str, ...]
    cause: DropCause
    reason: str
    intended: str | None = None


@dataclass(frozen=True, slots=True)
class BoundAdapter:
    """An adapter on a base.

    `module_map`: every module and whole weight that PEFT applies, with the base's tensor, and those for which
    the base has no tensor (`missing`). `intended`: the same and those that PEFT drops, each with the tensor
    for which it was intended. `dropped`: the parts that PEFT silently drops. `refusals`: sentences, each a
    reason why PEFT would not load the adapter at all. `unlisted`: whole weights that replace one of the
    base's although no field of the config names them. `uncovered`: modules that the config makes PEFT adapt,
    but for which the file has no tensors. `fills_in`: whether PEFT changes them by its initial values.
    `unknown_parameters`: items of `target_parameters` that are no parameters of the model. `precision_loss`:
    a sentence about a tensor that the file has with less precision than PEFT computes it. `as_parameters`:
    paths of single experts and routers that PEFT adapts as parameters, so that it looks up no rank by these
    paths. `variant`: that of a LoRA. `chosen_class`: a sentence, if only the names show that the model has no
    head although the base was saved with one, or the reverse.

    With `layer_replication`, `base` is the deeper model that PEFT makes of the base, and `layers` are the
    base's layers at each of its positions. `unbound` is set if that model is unknown; the adapter is then not
    bound to anything. It is the reason, as the end of a sentence that begins with the adapter.
    """

    adapter: Adapter
    base: BaseRecord
    module_map: ModuleMap
    intended: ModuleMap
    dropped: tuple[DroppedPart, ...] = ()
    refusals: tuple[str, ...] = ()
    unlisted: tuple[ExtraTarget, ...] = ()
    uncovered: tuple[str, ...] = ()
    fills_in: bool = False
    unknown_parameters: tuple[str, ...] = ()
    precision_loss: str | None = None
    as_parameters: frozenset[str] = frozenset()
    variant: LoraVariant | None = None
    chosen_class: str | None = None
    layers: tuple[int, ...] = ()
    unbound: str | None = None

    @property
    def ties_saved(self) -> bool:
        """Whether PEFT saves both sides of a tied embedding as one."""
        return self.adapter.config.ties_saved

    @property
    def ties_updates(self) -> bool:
        """Whether PEFT trains an update of both sides of a tied embedding as one."""
        return self.adapter.config.ties_updates
