"""The repairs, in their order, and the remedies of a verdict that require each.

Remedies outside the table are for people: change the server's options, train again, serve it with PEFT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from adaptry.checks.runtimes import Runtime, repairs
from adaptry.compute.exporting import config_repairs, fill_layers, key_names, to_plain_lora
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.foreign_layouts.to_peft import convert_to_peft
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.core.lazy_dataclass import dataclass

RepairFunction = Callable[[ParentAdapter, Runtime, ExportOptions], LazyAdapter]


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair. `description` ends the sentence "this …"; `remedies` require it. `is_exact`: no number of
    the update changes.

    If it is exact and has what it `needs` of the base, it is also made for a finding that only needs
    attention, because it costs nothing. `covers`: repairs that this one includes.
    """

    name: str
    description: str
    remedies: tuple[str, ...]
    make: RepairFunction
    is_exact: bool = True
    needs: Literal["", "shapes", "weights"] = ""
    covers: tuple[str, ...] = ()


def _into_pefts_layout(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    return convert_to_peft(parent, options.record, options.part)


_ALL = (
    Repair("layout", "converts another tool's files to PEFT's layout", (repairs.TO_PEFT,),
           _into_pefts_layout),
    Repair("names", "gives every factor exactly one prefix", (repairs.SPELL,), key_names.normalise_keys),
    Repair("loaded_names", "uses the module names of the model that PEFT loads", (repairs.LOADED_NAMES,),
           key_names.rename_to_loaded, needs="shapes"),
    Repair("disk_names", "uses the module names in the base's files, with separate experts",
           (repairs.DISK_NAMES,), key_names.rename_to_disk),
    Repair("experts", "separates fused experts", (repairs.SPLIT_EXPERTS, repairs.SPLIT_FOR_GGUF),
           key_names.split_experts, needs="shapes"),
    Repair("experts_together", "fuses the experts of a layer", (repairs.JOIN_EXPERTS,),
           key_names.join_experts, needs="shapes"),
    Repair("lora", "writes it as a plain LoRA", (repairs.AS_LORA, repairs.WITHOUT_START),
           to_plain_lora.convert_to_lora, is_exact=False, covers=("fold",)),
    Repair("fold_evenly", "folds each scale into lora_B, with one rank for all modules",
           (repairs.FOLD_UNIFORM, repairs.ONE_RANK), to_plain_lora.fold_scales_uniformly, covers=("fold",)),
    Repair("fold", "folds each scale into lora_B", (repairs.FOLD, repairs.SAVE_AGAIN),
           to_plain_lora.fold_scales),
    Repair("fill", "adds zero updates to layers that lack a module", (repairs.FILL_LAYERS,),
           fill_layers.fill_missing_layers),
    Repair("parts", "adds zero updates for modules that are packed with another", (repairs.FILL_PARTS,),
           fill_layers.fill_packed_modules, needs="shapes"),
    Repair("rank", "changes it to a rank that the server supports", (repairs.RESIZE,),
           to_plain_lora.resize_to_limit, is_exact=False),
    Repair("targets", "lists the modules by name", (repairs.LIST_TARGETS,), config_repairs.list_targets),
    Repair("float32", "writes F64 factors as float32, as PEFT loads them", (repairs.AS_FLOAT32,),
           to_plain_lora.write_float32),
    Repair("bias", "sets bias to none if the file has no biases", (repairs.NO_BIAS_LISTED,),
           config_repairs.clear_bias),
    Repair("saved", "empties modules_to_save if the file has none of them", (repairs.NO_SAVED_LISTED,),
           config_repairs.clear_saved_modules),
    Repair("sides", "turns fan_in_fan_out off", (repairs.PLAIN_SIDES,), config_repairs.clear_fan_in_fan_out),
    Repair("copies", "leaves out copies of the base's embeddings", (repairs.DROP_COPIES,),
           to_plain_lora.drop_embedding_copies, needs="weights"),
)  # fmt: skip

REPAIRS: Mapping[str, Repair] = {repair.name: repair for repair in _ALL}
BY_REMEDY: Mapping[str, Repair] = {remedy: repair for repair in _ALL for remedy in repair.remedies}
MERGE_REMEDIES = frozenset([repairs.MERGE, repairs.LEAVE_OUT, repairs.LEAVE_OUT_BIAS])
"""Remedies for features that the engine's adapter files cannot represent: the adapter is merged into the
base.
"""
MANUAL_REMEDIES = frozenset([repairs.ONE_RUNTIME, repairs.START_LOST, repairs.OTHER_BASE, repairs.SET_LORA])
"""Remedies with a constant that only people can apply."""
