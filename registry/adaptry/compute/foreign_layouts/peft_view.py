"""A view of another tool's file as PEFT's: a virtual `adapter_config.json` and `adapter_model.safetensors`.

Header and config are created immediately, from headers. A tensor is read, and transposed, when its bytes are
requested. So a merge reads another tool's adapter like any other, without a copy on disk.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate

from adaptry.adapters.adapter import Adapter, open_content
from adaptry.adapters.content import Content
from adaptry.adapters.formats import CONFIG, WEIGHTS
from adaptry.adapters.methods.extras import PREFIX
from adaptry.compute.foreign_layouts.peft_adapter import PeftAdapter, RenamedTensor, config_of
from adaptry.compute.lazy_adapters.lazy_adapter import Json
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ViewedTensor:
    """A tensor of the virtual file: dtype as in safetensors, shape, and its bytes on demand."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    read: Callable[[], bytes]


class ViewContent(Content):
    """The two virtual files, plus the files of `source` if it is a folder. The last tensor is cached, since
    readers request a tensor in pieces.
    """

    def __init__(
        self, config: Json, tensors: Mapping[str, ViewedTensor], source: Content | None = None
    ) -> None:
        self._source = source
        self._config = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
        self._tensors = [tensor for tensor in tensors.values() if tensor.size]
        ends = list(accumulate((tensor.size for tensor in tensors.values()), initial=0))
        entries = {
            name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
            for (name, tensor), start, end in zip(tensors.items(), ends, ends[1:], strict=False)
        }
        text = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
        text = text.ljust(len(text) + -len(text) % 8)
        self._header = len(text).to_bytes(8, "little") + text
        starts = accumulate((tensor.size for tensor in self._tensors), initial=len(self._header))
        self._starts = list(starts)[:-1]
        self._sizes = {CONFIG: len(self._config), WEIGHTS: len(self._header) + ends[-1]}
        self._held = (-1, b"")

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def read(self, path: str, offset: int, length: int) -> bytes:
        if path == CONFIG:
            return self._config[offset : offset + length]
        found = bytearray(self._header[offset : offset + length])
        number = max(0, bisect_right(self._starts, offset) - 1)
        while len(found) < length and number < len(self._tensors):
            begin = offset + len(found) - self._starts[number]
            found += self._bytes(number)[begin : begin + length - len(found)]
            number += 1
        return bytes(found)

    def check_unchanged(self) -> None:
        if self._source is not None:
            self._source.check_unchanged()

    def _bytes(self, number: int) -> bytes:
        held, data = self._held
        if held != number:
            data = self._tensors[number].read()
            self._held = number, data
        return data


def view(adapter: Adapter, lora: PeftAdapter, label: str) -> Adapter:
    """A view of `adapter` as PEFT would have written it. Raises `Unsupported` if PEFT would read other
    scales, ranks or modules, and `CheckFailed` if there are no modules.
    """
    if not lora.modules:
        raise CheckFailed(f"{label} updates no module, so there is nothing to convert to PEFT's layout")
    tensors = {
        f"{PREFIX}{module.path}.{renamed.role}": _viewed(adapter, renamed)
        for module in lora.modules
        for renamed in module.tensors
    }
    config = {"base_model_name_or_path": adapter.config.base_name, **config_of(lora)}
    return checked(open_content(ViewContent(config, tensors, adapter.content)), lora, label)


def checked(made: Adapter, lora: PeftAdapter, label: str) -> Adapter:
    """Returns `made` if PEFT reads it like `lora`. It may not, since a pattern for one module may match
    another module's name.
    """
    meant = {module.path: module for module in lora.modules}
    found = {module.path: module for module in made.spec.modules}
    odd = [
        path
        for path in meant.keys() | found.keys()
        if path not in meant
        or path not in found
        or (
            lora.method != "lokr" and meant[path].rank != found[path].rank
        )  # a LoKr's rank is that of its update
        or not math.isclose(meant[path].scale, found[path].scale, rel_tol=1e-12)
    ]
    if odd or made.spec.unclaimed:
        first = min((*odd, *made.spec.unclaimed))
        raise Unsupported(
            f"{label} cannot be represented in PEFT's layout: PEFT would read {first} as a different update"
        )
    return made


def _viewed(adapter: Adapter, renamed: RenamedTensor) -> ViewedTensor:
    info, rows = adapter.tensors[renamed.source], renamed.rows

    def rearranged() -> bytes:
        from adaptry.compute.tensors.adapter_tensors import as_tensor, stored_bytes

        tensor = as_tensor(adapter.tensor_bytes(renamed.source), info)
        tensor = tensor if rows is None else tensor[list(rows)]
        return stored_bytes(tensor.T if renamed.is_transposed else tensor)

    if rows is not None:
        shape = (len(rows), *info.shape[1:])
        size = info.size // info.shape[0] * len(rows)
        return ViewedTensor(info.dtype, shape[::-1] if renamed.is_transposed else shape, size, rearranged)
    if renamed.is_transposed:
        return ViewedTensor(info.dtype, info.shape[::-1], info.size, rearranged)
    return ViewedTensor(info.dtype, info.shape, info.size, lambda: adapter.tensor_bytes(renamed.source))
