"""The weights files of an adapter, or of any other set of files, inspected one after another."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from adaptry.adapters.content import Content
from adaptry.adapters.header import SafetensorsHeader, read_header
from adaptry.adapters.inspection.inspector import TIMEOUT, Inspector
from adaptry.adapters.inspection.result import TensorStatistics, WeightsInspection
from adaptry.core.errors import CorruptData
from adaptry.core.lazy_dataclass import dataclass

_MEASURED_HERE = 16 << 10
"""Largest size in bytes of the tensors of a file that is inspected in this process. They take at most 1 ms,
usually a tenth of that, and a request to another process takes longer."""
_MAX_IN_PROCESS = 256
"""The same for the number of tensors."""


def inspect_content(
    inspector: Inspector, content: Content, tenant: str = ""
) -> Mapping[str, WeightsInspection]:
    """Inspects every weights file of `content`; returns the results by path. Raises the errors of
    `inspect_file`.
    """
    return {
        path: inspect_file(inspector, content, path, tenant)
        for path in content.sizes
        if path.endswith(".safetensors")
    }


def inspect_file(
    inspector: Inspector,
    content: Content,
    path: str,
    tenant: str = "",
    header: SafetensorsHeader | None = None,
) -> WeightsInspection:
    """Inspects one file, whose `header` may already have been read. Raises `InvalidWeights`, and the errors
    of `Inspector.inspect`.
    """
    header = header or read_header(content.reader(path), content.sizes[path], path)
    if (found := inspect_tiny(WeightsFile(content, path, header))) is not None:
        return found
    with content.descriptor(path) as descriptor:
        if descriptor is not None:
            return inspector.inspect(header.tensors, descriptor, tenant)
        return inspector.inspect(header.tensors, lambda start: _after_header(content, path, start), tenant)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """The weights file at `path` in `content`, with its header."""

    content: Content
    path: str
    header: SafetensorsHeader


def inspect_together(
    inspector: Inspector, files: Sequence[WeightsFile], tenant: str = "", timeout: float = TIMEOUT
) -> list[WeightsInspection]:
    """Inspects several small files in one request to the inspection process, which takes a fraction of the
    time of one request per file. Raises the errors of `Inspector.inspect` if any of the files causes one.
    """
    tensors = {
        f"{number} {name}": info
        for number, file in enumerate(files)
        for name, info in file.header.tensors.items()
    }

    def chunks(start: int) -> Iterator[bytes]:
        for file in files:
            first = next((info.start for info in file.header.tensors.values()), 0)
            yield from _after_header(file.content, file.path, first)

    found = iter(inspector.inspect(tensors, chunks, tenant, timeout).tensors.values())
    return [WeightsInspection(dict(zip(file.header.tensors, found, strict=False))) for file in files]


def inspect_tiny(file: WeightsFile) -> WeightsInspection | None:
    """Inspects a file in this process, if its tensors are so few and small that this takes less time than a
    request to another process; otherwise returns None. Raises `CorruptData` if the file has fewer bytes than
    its header declares.
    """
    tensors, start = file.header.tensors, file.header.data_start
    size = (
        sum(info.size for info in tensors.values()) if len(tensors) <= _MAX_IN_PROCESS else _MEASURED_HERE + 1
    )
    if size > _MEASURED_HERE:
        return None
    from adaptry.adapters.inspection import plain_norms, tensor_measurement  # only for tiny files

    source = io.BytesIO(file.content.read(file.path, start, size))
    measure = partial(tensor_measurement.measure_tensor, source, measure=plain_norms.measure)
    try:
        return WeightsInspection(
            {name: TensorStatistics(*measure(info.dtype, info.size)) for name, info in tensors.items()}
        )
    except tensor_measurement.ShortFile:
        raise CorruptData(f"{file.path} is shorter than its header says; push its files again") from None


def _after_header(content: Content, path: str, start: int) -> Iterator[bytes]:
    """The file from `start` on. The file is read from its beginning, since the cache of a remote store keeps
    whole files.
    """
    for chunk in content.chunks(path):
        skipped = min(start, len(chunk))
        start -= skipped
        if skipped < len(chunk):
            yield chunk[skipped:]
