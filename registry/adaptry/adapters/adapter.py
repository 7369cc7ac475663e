"""The adapter view: config, spec and tensors' places, read from headers; weights only when asked.

A view is immutable and cheap: opening one reads two headers. Functions take views and return views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from adaptry.adapters.config import LIMITS, AdapterConfig
from adaptry.adapters.content import Content, FolderContent
from adaptry.adapters.folder_listing import list_folder
from adaptry.adapters.formats import CONFIG, PEFT, WEIGHTS, AdapterFormat, detect_format
from adaptry.adapters.header import SafetensorsHeader, TensorInfo, read_header
from adaptry.adapters.layouts import LAYOUTS
from adaptry.adapters.spec import Spec
from adaptry.adapters.weights import weights_digest
from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound


@dataclass(frozen=True)
class Adapter:
    """An adapter wherever it is. `left_out` names files of its folder not part of it, with reasons."""

    content: Content
    config: AdapterConfig
    header: SafetensorsHeader
    left_out: Mapping[str, str] = field(default_factory=dict)
    format: AdapterFormat = PEFT

    @cached_property
    def spec(self) -> Spec:
        return LAYOUTS[self.format.name].describe(self.config, self.header)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self.header.tensors

    def tensor_bytes(self, name: str) -> bytes:
        """One tensor's bytes as stored: little-endian, row-major, of `tensors[name]`'s dtype and shape."""
        info = self.tensors[name]
        return self.content.read(self.format.weights, info.start, info.size)

    def weights_digest(self) -> Digest:
        """The digest of all weights, independent of the file's layout; reads everything once."""
        return weights_digest(self.tensors, self.content.reader(self.format.weights))


def open_content(content: Content, left_out: Mapping[str, str] | None = None) -> Adapter:
    """The adapter in `content`. Raises `NotFound`, `InvalidConfig`, `InvalidWeights`."""
    format = detect_format(content.sizes)
    if format is None:
        raise NotFound(f"no adapter without {WEIGHTS if CONFIG in content.sizes else CONFIG}")
    headers = {
        name: read_header(content.reader(name), size, name)  # a head beside the adapter must be sound too
        for name, size in content.sizes.items()
        if name.endswith(".safetensors")
    }
    data = content.read_all(format.config, LIMITS.size) if format.config else b""
    config = LAYOUTS[format.name].config(data, headers[format.weights], content.reader(format.weights))
    return Adapter(content, config, headers[format.weights], left_out or {}, format)


def open_dir(folder: Path | str) -> Adapter:
    """The adapter in a folder that PEFT's `save_pretrained` wrote, or another tool we read.

    Raises `NotFound` (no adapter there), `Unsupported` (a pickle; the message has the remedy),
    `InvalidConfig`, `InvalidWeights`.
    """
    folder = Path(folder).expanduser()
    listing = list_folder(folder)
    return open_content(FolderContent(folder, list(listing.kept)), listing.left_out)
