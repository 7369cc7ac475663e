"""Converts llama.cpp's GGUF LoRA back to PEFT's layout, with the base's names and order of query and key
rows.

This is the inverse of `adaptry.compute.exporting.gguf_file`, with the same table of names. The file's alpha
becomes `lora_alpha` if ranks are equal, and patterns otherwise. Files from llama.cpp's converter are read in
the same way. The file has neither the model's names nor its number of heads, so a base is always needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter, open_content
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.tensor_names import is_input_embedding
from adaptry.bases.model_names import model_names
from adaptry.checks import check
from adaptry.compute.exporting.gguf_names import GgufArchitecture, architecture_of, gguf_targets, import_gguf
from adaptry.compute.foreign_layouts.gguf_reader import GgufLora, GgufPair, read_gguf
from adaptry.compute.foreign_layouts.peft_adapter import PeftAdapter, PeftModule, config_of
from adaptry.compute.foreign_layouts.peft_view import ViewContent, ViewedTensor, checked
from adaptry.compute.foreign_layouts.to_peft import copied
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

_EMBEDDING = "token_embd.weight"
_HEADS = frozenset([_EMBEDDING, "output.weight"])

Permute = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True, slots=True)
class _TargetModule:
    """A module of the model: its path, and its number if it is an expert of a stack."""

    path: str
    expert: int | None


def convert_gguf_to_peft(file: Path, label: str, base: BaseRecord | None) -> LazyAdapter:
    """The adapter in `file` in PEFT's layout. Raises `CheckFailed` (no base, or it does not fit),
    `Unsupported` (unknown architecture; not a LoRA), `InvalidWeights`,
    `MissingDependency` (no gguf package).
    """
    known = _require_base(base, label)
    lora = read_gguf(file, label)
    adapter = _seen(lora, known, label)
    if (report := check(adapter, known)).is_blocked:
        raise CheckFailed(f"{label} in PEFT's layout: {report.sentence()}")
    recipe = {"operation": "layout", "from": "gguf", "inputs": [{"weights": str(lora.digest())}]}
    return copied(ParentAdapter(adapter, label, base=known), adapter, recipe)


def open_gguf_as_peft(file: Path, label: str, base: BaseRecord | None) -> Adapter:
    """A view of `file` in PEFT's layout. Raises the errors of `convert_gguf_to_peft`, but does not check that
    PEFT can load it onto the base.
    """
    known = _require_base(base, label)
    return _seen(read_gguf(file, label), known, label)


def _require_base(base: BaseRecord | None, label: str) -> BaseRecord:
    if base is None:
        raise CheckFailed(
            f"{label} has llama.cpp's names, and the model's names are only in the base: pass --base NAME (a"
            " registered base) or --base ./DIR, from which headers and config are read"
        )
    return base


def _seen(lora: GgufLora, base: BaseRecord, label: str) -> Adapter:
    architecture = architecture_of(base.facts, label)
    gguf = import_gguf()
    name = gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[architecture.name]]
    if lora.architecture != name:
        raise CheckFailed(f"{label} is for llama.cpp's {lora.architecture}, but the base is its {name}")
    places = _places(architecture, base)
    tensors: dict[str, ViewedTensor] = {}
    modules: list[PeftModule] = []
    for target, pair in lora.pairs.items():
        _refuse(target, pair, places, base, label)
        for place in places[target]:
            modules.append(PeftModule(place.path, pair.rank, lora.scale(pair), ()))
            tensors |= dict(_tensors(pair, target, place, _row_order(place, architecture, base)))
    made = PeftAdapter(tuple(modules), {"task_type": "CAUSAL_LM"})
    config = {"base_model_name_or_path": lora.base_name, **config_of(made)}
    return checked(open_content(ViewContent(config, tensors, lora.content)), made, label)


def _places(architecture: GgufArchitecture, base: BaseRecord) -> Mapping[str, list[_TargetModule]]:
    """The modules for each of llama.cpp's tensors, with names in memory; separate experts have their names on
    disk.
    """
    names = model_names(
        base.tensors, base.facts, task="CAUSAL_LM", model_class=None, used=(), takes_disk_names=False
    )
    place = gguf_targets(architecture, int(base.facts.get("layers") or 1))
    on_disk = {name.rpartition(".")[0] for name in base.tensors}
    found: dict[str, dict[int | None, _TargetModule]] = {}
    for path in (*sorted(names.holders), *sorted(on_disk)):
        if (target := place(path)) is not None:
            found.setdefault(target.tensor, {}).setdefault(target.expert, _TargetModule(path, target.expert))
    return {tensor: list(own.values()) for tensor, own in found.items()}


def _row_order(place: _TargetModule, architecture: GgufArchitecture, base: BaseRecord) -> Permute | None:
    heads = architecture.interleaved.get(place.path.rpartition(".")[2])
    if heads is None:
        return None
    count = int(base.facts[heads])
    return lambda up: up.reshape(count, up.shape[0] // count // 2, 2, -1).swapaxes(1, 2).reshape(up.shape)


def _tensors(
    pair: GgufPair, target: str, place: _TargetModule, order: Permute | None
) -> Iterator[tuple[str, ViewedTensor]]:
    """A module's two factors under PEFT's names."""
    is_table = target == _EMBEDDING and is_input_embedding(place.path)
    ends = ("lora_embedding_A", "lora_embedding_B") if is_table else ("lora_A.weight", "lora_B.weight")
    # llama.cpp looks an embedding's rows up in lora_a.
    turn: Permute | None = (lambda down: down.T) if is_table else None
    yield f"{PREFIX}{place.path}.{ends[0]}", pair.down.viewed(place.expert, turn, is_table)
    yield f"{PREFIX}{place.path}.{ends[1]}", pair.up.viewed(place.expert, order)


def _refuse(
    target: str, pair: GgufPair, places: Mapping[str, list[_TargetModule]], base: BaseRecord, label: str
) -> None:
    if target not in places:
        raise CheckFailed(f"{label} changes {target}, which does not correspond to a module of this base")
    if target in _HEADS and base.facts.get("tie_word_embeddings"):
        raise Unsupported(
            f"{label} changes {target}, but the base has one weight for input and output: llama.cpp changes"
            " both uses of it, and PEFT only one"
        )
    experts = {place.expert for place in places[target]}
    wanted = {None} if len(pair.up.shape) == 2 else set(range(pair.up.shape[0]))
    if experts != wanted or len(pair.down.shape) != len(pair.up.shape):
        raise CheckFailed(
            f"{label} changes {target} by factors of {list(pair.up.shape)} and {list(pair.down.shape)}, which"
            " do not fit this base"
        )
