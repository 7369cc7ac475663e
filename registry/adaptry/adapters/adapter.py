"""The adapter view: config, spec and the tensors' positions, read from headers; weights are read on demand.

A view is immutable and cheap: opening one reads two headers. Functions take views and return views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from adaptry.adapters.config import LIMITS, AdapterConfig
from adaptry.adapters.content import Content, FolderContent, MemoryContent
from adaptry.adapters.folder_listing import list_folder
from adaptry.adapters.formats import CONFIG, PEFT, WEIGHTS, AdapterFormat, detect_format
from adaptry.adapters.header import SafetensorsHeader, TensorInfo, read_header
from adaptry.adapters.layouts import LAYOUTS, format_by_keys
from adaptry.adapters.spec import ModuleSpec, Spec
from adaptry.adapters.weights import weights_digest
from adaptry.core.digest import Digest
from adaptry.core.display import format_size, html_facts, short_repr
from adaptry.core.errors import InvalidWeights, NotFound
from adaptry.core.lazy_dataclass import dataclass

Result = TypeVar("Result")

_CACHE_SIZE = 16  # pairs of a config and a header
_MAX_CACHED_BYTES = 16 << 10
"""Largest size in bytes of a config and header for which derived values are kept; those take about ten times
as much.
"""


@dataclass(frozen=True)
class Adapter:
    """An adapter in a folder, a registry or a store. `left_out` maps each file of the folder that is not part
    of the adapter to the reason.
    """

    content: Content
    config: AdapterConfig
    header: SafetensorsHeader
    left_out: Mapping[str, str] = field(default_factory=dict)
    format: AdapterFormat = PEFT

    @cached_property
    def spec(self) -> Spec:
        """The adapter's method, modules and ranks, from its config and header."""
        return LAYOUTS[self.format.name].describe(self.config, self.header)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The dtype, shape and place of each tensor, in the file's order."""
        return self.header.tensors

    @cached_property
    def _derived(self) -> dict[object, Any]:
        return {}  # (`Any`: results of several functions)

    def derived(self, function: Callable[[Adapter], Result]) -> Result:
        """The result of `function(self)`, which may use config, header and format, but not the content. It is
        cached, even for the adapters that `with_content` makes from this one.
        """
        if function not in self._derived:
            self._derived[function] = function(self)
        result: Result = self._derived[function]
        return result

    def with_content(self, content: Content) -> Adapter:
        """The same adapter with other content that has the same config and header."""
        other = copy(self)
        vars(other).update(content=content, spec=self.spec, _derived=self._derived)
        return other

    def tensor_bytes(self, name: str) -> bytes:
        """The bytes of one tensor as stored: little-endian, row-major, in the dtype and shape of
        `tensors[name]`. Raises `InvalidWeights` if the file became shorter.
        """
        info = self.tensors[name]
        data = self.content.read(self.format.weights, info.start, info.size)
        if len(data) < info.size:
            raise InvalidWeights(
                f"the adapter's {name} became shorter while it was read; is something still writing it?"
            )
        return data

    def __repr__(self) -> str:
        spec = self.spec
        rank = None if spec.rank is None else f"rank {spec.rank}"
        base = spec.base_name and f"base {spec.base_name}"
        return short_repr(self, self._place(), spec.method, rank, base, format_size(spec.size))

    def _repr_html_(self) -> str:
        spec = self.spec
        facts = (
            ("format", "" if self.format is PEFT else self.format.name),
            ("method", " ".join((spec.method, *spec.traits))),
            ("rank", ", ".join(map(str, spec.ranks))),
            ("modules", f"{', '.join(spec.targets)} ({len(spec.modules)})" if spec.modules else ""),
            ("also changes", ", ".join(extra.target for extra in spec.extras)),
            ("base", spec.base_name or ""),
            ("parameters", f"{spec.parameters:,} in {', '.join(spec.dtypes)}, {format_size(spec.size)}"),
            ("written by", f"PEFT {spec.peft_version}" if spec.peft_version else ""),
        )
        left_out = (f"left out {path}: {reason}" for path, reason in self.left_out.items())
        return html_facts(self._place() or "an adapter", facts, left_out)

    def _place(self) -> str:
        return str(self.content.folder) if isinstance(self.content, FolderContent) else ""

    def weights_digest(self) -> Digest:
        """The digest of all weights, independent of the file's layout; reads everything once."""
        return weights_digest(self.tensors, self.content.reader(self.format.weights))


def with_modules(adapter: Adapter, modules: Iterable[ModuleSpec]) -> Adapter:
    """The same adapter with other modules in its spec."""
    other = copy(adapter)
    vars(other).update(spec=adapter.spec.model_copy(update={"modules": tuple(modules)}), _derived={})
    return other


def open_content(content: Content, left_out: Mapping[str, str] | None = None) -> Adapter:
    """Opens the adapter in `content`. Raises `NotFound`, `InvalidConfig`, `InvalidWeights`."""
    format = detect_format(content.sizes)
    if format is None:
        raise NotFound(f"not an adapter: it has no {WEIGHTS if CONFIG in content.sizes else CONFIG}")
    headers = {
        name: read_header(content.reader(name), size, name)  # a head next to the adapter must be valid too
        for name, size in content.sizes.items()
        if name.endswith(".safetensors")
    }
    format = format_by_keys(format, headers[format.weights])
    data = content.read_all(format.config, LIMITS.size) if format.config else b""
    config = LAYOUTS[format.name].config(data, headers[format.weights], content.reader(format.weights))
    return Adapter(content, config, headers[format.weights], left_out or {}, format)


def open_known(content: Content) -> Adapter:
    """Like `open_content`, for programs that open many adapters. Versions of an adapter usually differ
    only in the values of their weights. So data derived from a small config and header is cached and shared
    by adapters with the same ones.
    """
    if detect_format(content.sizes) is PEFT and not any(
        name.endswith(".safetensors") and name != WEIGHTS for name in content.sizes
    ):
        start = content.read(WEIGHTS, 0, 8)
        length = 8 + int.from_bytes(start, "little")
        if length + content.sizes[CONFIG] <= _MAX_CACHED_BYTES:
            head, config = content.read(WEIGHTS, 0, length), content.read_all(CONFIG, LIMITS.size)
            if known := _of_shape(config, head, content.sizes[WEIGHTS]):
                return known.with_content(content)
    return open_content(content)


@lru_cache(maxsize=_CACHE_SIZE)
def _of_shape(config: bytes, head: bytes, size: int) -> Adapter | None:
    """The adapter with this config and this beginning of a weights file of `size` bytes, without its content;
    None if the derived data may not be cached. Raises the errors of `open_content` and those of deriving the
    spec.
    """
    header = read_header(lambda offset, length: head[offset : offset + length], size, WEIGHTS)
    if format_by_keys(PEFT, header) is not PEFT:
        return None
    parsed = LAYOUTS[PEFT.name].config(config, header, lambda offset, length: b"")
    adapter = Adapter(MemoryContent({}), parsed, header)
    return None if parsed.has_patterns else adapter.with_content(adapter.content)


def open_dir(folder: Path | str) -> Adapter:
    """Opens the adapter in a folder: its config and the headers of its weights. No weights are read.

    Args:
        folder: A folder written by PEFT's `save_pretrained` or by another supported tool.

    Raises:
        NotFound: there is no adapter in the folder.
        Unsupported: a pickle; the message has the remedy.
        InvalidConfig, InvalidWeights: a malformed file.
    """
    folder = Path(folder).expanduser()
    listing = list_folder(folder)
    return open_content(FolderContent(folder, list(listing.kept)), listing.left_out)
