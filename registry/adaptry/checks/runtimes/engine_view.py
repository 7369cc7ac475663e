"""An adapter as an engine reads it: its factors, with the engine's interpretation of their names.

PEFT looks tensors up by their complete names. Engines extract a module's path from a name by different rules,
so a tensor that PEFT drops may be right for an engine. Rules test the modules that the engine sees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods.extras import PREFIX
from adaptry.checks.runtimes.name_readers import NameReader
from adaptry.core.lazy_dataclass import dataclass

_FACTOR = re.compile(r"(?:.+\.)?lora_(?P<half>A|B|embedding_A|embedding_B)(?:\.(?!bias$)[^.]+)?(?:\.weight)?")


@dataclass(frozen=True, slots=True)
class EngineView:
    """`adapter` has each factor under PEFT's name. `renamed` maps these names to the file's names, if they
    differ. `unread` are tensors that the engine does not recognise as factors; they are not in `adapter`.
    """

    adapter: Adapter
    renamed: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


def engine_view(adapter: Adapter, read: NameReader | None, *, reads_method: bool = True) -> EngineView:
    """The file as an engine with this name reader sees it. `reads_method`: whether it reads `peft_type`."""
    if adapter.format is not PEFT or read is None:
        return EngineView(adapter)
    tensors = {name: info for name, info in adapter.tensors.items() if not _FACTOR.fullmatch(name)}
    renamed: dict[str, str] = {}
    unread: list[str] = []
    for name, info in adapter.tensors.items():
        if not (match := _FACTOR.fullmatch(name)):
            continue
        path, half = read(name), match["half"]
        tail = f"lora_{half}" if half.startswith("embedding") else f"lora_{half}.weight"
        new = f"{PREFIX}{path}.{tail}"
        if path is None or new in tensors:
            unread.append(name)
            continue
        tensors[new] = info
        if new != name:
            renamed[new] = name
    config = adapter.config
    if not reads_method and any(_FACTOR.fullmatch(name) for name in tensors):
        config = AdapterConfig({**config.fields, "peft_type": "LORA"})
    if not renamed and not unread and config.peft_type == adapter.config.peft_type:
        return EngineView(adapter)
    header = replace(adapter.header, tensors=tensors)
    return EngineView(replace(adapter, config=config, header=header), renamed, tuple(unread))


def with_valid_rank(adapter: Adapter) -> Adapter:
    """`adapter` with the rank of its first factor, if its config's `r` is not a positive
    integer: for engines that do not read it.
    """
    fields, shapes = adapter.config.fields, {name: info.shape for name, info in adapter.tensors.items()}
    rank = fields.get("r", 8)
    found = next((shape[0] for name, shape in shapes.items() if ".lora_A." in name and shape), None)
    if found is None or (type(rank) is int and rank > 0):
        return adapter
    return replace(adapter, config=AdapterConfig({**fields, "r": found}))
