"""The weights that an adapter changes, each with its site in a LoRA and the layout of its update as a matrix.

With a base they are found by the rules of `module_map`. Without one, the adapter's tensors must determine the
sides, or the adapter is refused; each weight is then assumed to be that of a Linear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from adaptry.adapters.spec import ModuleSpec
from adaptry.adapters.tensor_names import is_input_embedding
from adaptry.bases.module_map import ModuleMap, TargetTensor
from adaptry.checks import check
from adaptry.checks.binding import bind
from adaptry.checks.finding_text import format_count, verb_form
from adaptry.compute.conversion.base_shapes import ConversionBase
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.compute.merging.bound_input import bind_inputs
from adaptry.compute.merging.requirements import require_orientation
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

_TRANSPOSED = ("conv1d", "embedding")
_GIVE_BASE = "pass the base with --base (a folder, or the name of a registered base)"


@dataclass(frozen=True, slots=True)
class ChangedWeight:
    """One weight: the module that changes it, its `site`, its stored `shape` and `dtype` (as in safetensors).

    `tensor` and `bias` are the names on disk of the weight and its bias; None if they are unknown, or there
    is no bias.
    """

    module: ModuleSpec
    site: WeightSite
    orientation: str
    shape: tuple[int, ...]
    dtype: str = "F32"
    tensor: str | None = None
    bias: str | None = None

    @property
    def sides(self) -> tuple[int, int]:
        """(outputs, inputs) in the method's terms."""
        first, rest = self.shape[0], math.prod(self.shape[1:])
        return (rest, first) if self.orientation in _TRANSPOSED else (first, rest)

    @property
    def is_table(self) -> bool:
        """Whether the method treats embeddings as matrices [rows, dim]; a LoRA's update is [dim, rows]."""
        return self.site.kind == "embedding" and self.orientation != "embedding"

    def matrix(self, stored: Tensor) -> Tensor:
        """`stored`, in the weight's shape, as a matrix [site.fan_out, site.width]."""
        flat = stored.flatten(1)
        return flat.T if self.orientation in _TRANSPOSED or self.is_table else flat


def changed_weights(parent: ParentAdapter, base: ConversionBase | None) -> tuple[ChangedWeight, ...]:
    """The changed weights, in the order of their paths. Raises `CheckFailed` and `Unsupported` for modules
    that do not fit the base, or that a LoRA cannot represent.
    """
    if base is None:
        modules = parent.adapter.spec.modules
        return tuple(_alone(parent, module) for module in modules if _has_elements(parent, module))
    shapes = base.record.tensors
    found = []
    for target in _placement(parent, base).placed:
        if not _has_elements(parent, target.module):
            continue
        _refuse_unplain(parent.label, target)
        require_orientation(parent.label, target)
        found.append(
            ChangedWeight(
                target.module,
                _site(target, shapes[target.tensor].shape),
                target.orientation,
                shapes[target.tensor].shape,
                shapes[target.tensor].dtype,
                target.tensor,
                target.bias if target.bias in shapes else None,
            )
        )
    return tuple(sorted(found, key=lambda changed: changed.site.key))


def _has_elements(parent: ParentAdapter, module: ModuleSpec) -> bool:
    """False for a module from which AdaLoRA removed every rank: it changes nothing."""
    return any(parent.adapter.tensors[name].numel for name in module.tensors.values())


def sides_of(changes: Sequence[ChangedWeight]) -> Mapping[str, tuple[int, int]]:
    """(outputs, inputs) of every matrix, by its module's path."""
    return {changed.module.path: changed.sides for changed in changes}


def _placement(parent: ParentAdapter, base: ConversionBase) -> ModuleMap:
    """The places of the modules. If there is only a record, headers are compared, as in a check."""
    adapter, label = parent.adapter, parent.label
    if base.checkpoint is not None:
        entry = WeightedAdapter(adapter, 1.0, label)  # the base was already checked
        bound_inputs = bind_inputs([entry], base.checkpoint, base.record, resize_vocab=True)
        return bound_inputs.inputs[0].module_map
    bound = bind(adapter, base.record)
    module_map = bound.module_map
    if module_map.missing:
        first = module_map.missing[0].path
        raise CheckFailed(
            f"{label}: {len(module_map.missing)} of its {format_count(len(adapter.spec.modules), 'module')}"
            f" {verb_form(len(module_map.missing), 'is', 'are')} not in the"
            f" base (first: {first}: {module_map.reasons[first].text}); is this the base it was trained on?"
        )
    report = check(adapter, base.record, adapter.config.base_name, bound=bound)
    if report.is_blocked:
        raise CheckFailed(f"{label}: {report.sentence()}")
    return module_map


def _refuse_unplain(label: str, target: TargetTensor) -> None:
    if target.orientation not in ("linear", "conv1d", "conv", "embedding") or len(target.weight.parts) > 1:
        raise Unsupported(
            f"{label} changes {target.module.path}, which is stored as {target.orientation} in the base,"
            " which cannot be converted to a LoRA: merge the adapter instead"
        )


def _site(target: TargetTensor, shape: tuple[int, ...]) -> WeightSite:
    path = target.module.path
    if target.orientation == "embedding" or is_input_embedding(path):
        return WeightSite(path, "embedding", shape[1], shape[0])
    if target.orientation == "conv":
        return WeightSite(path, "conv", shape[0], shape[1], shape[2:])
    fan_out, fan_in = shape[::-1] if target.orientation == "conv1d" else shape
    return WeightSite(path, "linear", fan_out, fan_in)


def _alone(parent: ParentAdapter, module: ModuleSpec) -> ChangedWeight:
    is_told = module.fan_in and module.fan_out and module.kind in ("linear", "flat", "embedding")
    if not is_told:
        raise CheckFailed(
            f"{parent.label}: its tensors do not determine the shape of {module.path}'s weight, which a LoRA"
            f" needs: {_GIVE_BASE}"
        )
    if module.kind == "embedding":
        site = WeightSite(module.path, "embedding", module.fan_out, module.fan_in)
        return ChangedWeight(module, site, "embedding", (module.fan_in, module.fan_out))
    shape = (module.fan_out, module.fan_in)
    if is_input_embedding(module.path):
        return ChangedWeight(module, WeightSite(module.path, "embedding", *shape[::-1]), "linear", shape)
    return ChangedWeight(module, WeightSite(module.path, "linear", *shape), "linear", shape)
