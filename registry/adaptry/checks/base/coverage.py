"""Whether an adapter has tensors for all that its config targets in a base.

A checkpoint saved half-way, or under an adapter name that swallowed a layer, loads with a warning and leaves
modules as they were. The config says what was meant, the base
what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.plain_patterns import dotted_suffixes
from adaptry.adapters.tensor_names import layer_of
from adaptry.adapters.transformers_loading import tensors_in_memory
from adaptry.bases.module_map import ModuleMap
from adaptry.checks.codes import build_finding
from adaptry.checks.formatting import (
    fold_layer_numbers,
    format_count,
    format_ranges,
    shorten_names,
    verb_form,
)
from adaptry.core.errors import InvalidConfig
from adaptry.core.report import Finding


def check_coverage(adapter: Adapter, base: BaseRecord, placement: ModuleMap) -> Iterator[Finding]:
    """Modules of `base` that the config targets and the file says nothing about; nothing if none fits."""
    if not placement.placed:
        return
    is_meant = _targeting(adapter.config)
    if is_meant is None:
        return
    weights = [placed.weight for placed in placement.placed] + [placed.weight for placed in placement.extras]
    taken = {part for weight in weights for part in weight.parts}
    in_memory = _renaming(placement)
    idle = [
        in_memory(tensor.name.removesuffix(".weight"))
        for tensor in tensors_in_memory(base.tensors, str(base.facts.get("model_type") or ""))
        if tensor.name.endswith(".weight") and len(tensor.shape) > 1 and taken.isdisjoint(tensor.parts)
    ]
    adapter.config.patterns.prepare(idle)
    try:
        idle = [name for name in idle if is_meant(name)]
    except InvalidConfig:
        return  # reported once, as `pattern_refused`
    if idle:
        layers = {layer for name in idle if (layer := layer_of(name)) is not None}
        where = f", in layers {format_ranges(layers)}" if layers else ""
        yield build_finding(
            "layers_uncovered",
            f"{format_count(len(idle), 'targeted module')} {verb_form(len(idle), 'has', 'have')} no tensors:"
            f" {shorten_names(fold_layer_numbers(idle))}{where}",
            idle,
        )


def _targeting(config: AdapterConfig) -> Callable[[str], bool] | None:
    """Whether the config targets a module, by PEFT's rules; None if its words are resolved otherwise."""
    fields = config.fields
    if fields.get("layers_to_transform") is not None or config.names("exclude_modules"):
        return None
    saved = config.names("modules_to_save")
    targets = fields.get("target_modules")
    if isinstance(targets, list):
        ends = frozenset(target for target in targets if isinstance(target, str))
        return lambda name: not ends.isdisjoint(dotted_suffixes(name)) and not name.endswith(saved)
    if not isinstance(targets, str) or targets.lower() == "all-linear":
        return None
    return lambda name: config.patterns.matches(targets, name) and not name.endswith(saved)


def _renaming(placement: ModuleMap) -> Callable[[str], str]:
    """From the base's names to the adapter's: by the prefix in which the placed modules' names differ."""
    for placed in placement.placed:
        disk, memory = (
            placed.weight.name.removesuffix(".weight"),
            placed.module.path.replace(".base_layer", ""),
        )
        if placed.tied or disk == memory:
            continue
        if memory.endswith(f".{disk}"):
            prefix = memory.removesuffix(disk)
            return lambda name: prefix + name
        if disk.endswith(f".{memory}"):
            prefix = disk.removesuffix(memory)
            return lambda name: name.removeprefix(prefix)
    return lambda name: name
