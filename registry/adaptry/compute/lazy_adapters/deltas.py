"""An adapter's updates as factors, site by site, for combining, resizing and comparing.

Only adapters that are exactly sums of factors can be read; others are refused, with a remedy.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.content import FolderContent
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.plain_lora import plain_reason
from adaptry.adapters.spec import ModuleSpec
from adaptry.adapters.tensor_names import is_buffer
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.parent_on_base import parent_as_peft_reads
from adaptry.compute.lazy_adapters.sites import WeightSite, lora_factors, site_of
from adaptry.core.display import format_count
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import folder_argument

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors


@dataclass(frozen=True, slots=True)
class AdapterDeltas:
    """The updates of one adapter: its modules by site, ordered by path. Weights are read on demand."""

    parent: ParentAdapter
    modules: Mapping[WeightSite, ModuleSpec]

    def factors(self, site: WeightSite) -> Factors:
        """The update at `site`, as float32 factors with the scale. Raises `InvalidWeights` if it is not
        finite.
        """
        from adaptry.compute.lazy_adapters.rounding import check_values

        found = lora_factors(self.parent.adapter, self.modules[site])
        return check_values(found, f"{self.parent.label}: the update of {site.key}")

    def rank(self, site: WeightSite) -> int:
        """The rank at `site`; for a fused parameter, that of one expert."""
        return self.modules[site].rank // site.experts


def open_adapter_deltas(parent: ParentAdapter) -> AdapterDeltas:
    """Opens the updates of an adapter. Raises `Unsupported`, `CheckFailed`, with a remedy, unless the adapter
    is a sum of factors.
    """
    adapter, label = parent.adapter, parent.label
    if adapter.format is not PEFT:
        raise Unsupported(
            f"{label} is in the layout of {adapter.format.tool}, but this needs PEFT's; convert it first, and"
            f" use the result: {_convert_command(parent, 'peft')}"
        )
    parent = parent_as_peft_reads(parent)
    adapter = parent.adapter
    refuse_unclaimed(parent)
    if reason := plain_reason(adapter):
        raise Unsupported(f"{label} {reason}; {_remedy(parent)}")
    if not adapter.spec.modules:
        raise CheckFailed(f"{label} updates no module, so there is nothing to compute with")
    return AdapterDeltas(parent, {site_of(adapter, module): module for module in adapter.spec.modules})


def _remedy(parent: ParentAdapter) -> str:
    """The remedy for an adapter that is not a sum of factors; not every such adapter can be converted."""
    adapter = parent.adapter
    if "layer_replication" in adapter.spec.traits:
        return "merge it instead (`adaptry merge`)"
    if not {"alora", "arrow", "qalora"}.isdisjoint(adapter.spec.traits):
        return "serve it with PEFT"
    method = METHODS.get(adapter.spec.method)
    if method is None:
        return "use the library that trained it"
    if method.weight is None:
        return "leave it out: it cannot be converted to a LoRA, since it updates no weight"
    return f"convert it to a plain LoRA first, and use the result: {_convert_command(parent, 'lora')}"


def _convert_command(parent: ParentAdapter, ending: str) -> str:
    """The command that converts an adapter; the result is written next to it, with a suffix added to the
    name.
    """
    label = parent.label
    if parent.revision is not None:
        return f"`adaptry convert {label} -o {label.partition('@')[0]}-{ending}`"
    if not isinstance(parent.adapter.content, FolderContent):
        return "`adaptry convert REF -o NAME`"
    folder = shlex.quote(folder_argument(Path(label)))
    return f"`adaptry convert {folder} -o {folder}-{ending}`"


def refuse_unclaimed(parent: ParentAdapter) -> None:
    """Raises `CheckFailed` if the adapter has tensors that no method reads, except buffers."""
    tensors = parent.adapter.tensors
    unclaimed = [name for name in parent.adapter.spec.unclaimed if not is_buffer(name, tensors[name].shape)]
    if unclaimed:
        raise CheckFailed(
            f"{parent.label} has {format_count(len(unclaimed), 'tensor')} of unknown use (first:"
            f" {unclaimed[0]}), which would be lost: save the adapter again from the trained model"
        )
