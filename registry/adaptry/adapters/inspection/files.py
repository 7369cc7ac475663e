"""The weights files of an adapter, or of any other set of files, inspected one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptry.adapters.content import Content
from adaptry.adapters.header import read_header
from adaptry.adapters.inspection.inspector import Inspector
from adaptry.adapters.inspection.result import WeightsInspection


def inspect_content(
    inspector: Inspector, content: Content, tenant: str = ""
) -> Mapping[str, WeightsInspection]:
    """Every weights file of `content`, by path. Raises as `inspect_file`."""
    return {
        path: inspect_file(inspector, content, path, tenant)
        for path in content.sizes
        if path.endswith(".safetensors")
    }


def inspect_file(inspector: Inspector, content: Content, path: str, tenant: str = "") -> WeightsInspection:
    """One file. Raises `InvalidWeights`, and as `Inspector.inspect`."""
    header = read_header(content.reader(path), content.sizes[path], path)
    with content.descriptor(path) as descriptor:
        if descriptor is not None:
            return inspector.inspect(header.tensors, descriptor, tenant)
        return inspector.inspect(header.tensors, lambda start: _after_header(content, path, start), tenant)


def _after_header(content: Content, path: str, start: int) -> Iterator[bytes]:
    """The file from `start` on. Read from its beginning: a distant store's cache keeps whole files."""
    for chunk in content.chunks(path):
        skipped = min(start, len(chunk))
        start -= skipped
        if skipped < len(chunk):
            yield chunk[skipped:]
