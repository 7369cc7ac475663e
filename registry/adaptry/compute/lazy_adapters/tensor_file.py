"""Writes a safetensors file whose tensors are computed one after another, and whose shapes are not known in
advance.

Space for the header is reserved at the beginning and filled at the end; the rest is padded with blanks, as
the format allows. The same tensors give the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.core.errors import Invalid

if TYPE_CHECKING:
    from torch import Tensor

_ENTRY = 16 + 3 + 8 * 12 + 2 * 16 + 48  # dtype, brackets, eight dimensions, two offsets, and the keys
_PLAIN: Mapping[str, str] = {"format": "pt"}
_WRITE = 1 << 20  # larger writes were up to ten times slower on some kernels


class TensorFile:
    """A file that is open for writing; `shapes` are those of the written tensors."""

    def __init__(self, path: Path, names: Sequence[str], metadata: Mapping[str, str] = _PLAIN) -> None:
        """`names` are all tensors that may be added; `metadata` are texts by name for the header."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._names = frozenset(names)
        self._entries: dict[str, object] = {"__metadata__": dict(metadata)}
        words = len(json.dumps(dict(metadata))) - len(json.dumps(dict(_PLAIN)))
        room = 64 + words + sum(len(json.dumps(name)) + _ENTRY for name in names)
        self._room = room + -room % 8
        self._position = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
        os.lseek(self._file, 8 + self._room, os.SEEK_SET)

    def add(self, name: str, tensor: Tensor) -> None:
        """Appends a tensor of any shape and safetensors dtype. Raises `Invalid` for an
        unannounced or repeated name, which is an error in the computing code.
        """
        from adaptry.compute.tensors.dtypes import safetensors_dtype

        if name not in self._names or name in self.shapes:
            raise Invalid(f"{name} was not announced, or was added twice")
        self.shapes[name] = tuple(tensor.shape)
        data = memoryview(_bytes(tensor)).cast("B")
        self._entries[name] = {
            "dtype": safetensors_dtype(tensor.dtype),
            "shape": list(tensor.shape),
            "data_offsets": [self._position, self._position + len(data)],
        }
        self._position += len(data)
        self._write(data)

    def finish(self) -> None:
        """Writes the header, which makes the file valid."""
        text = json.dumps(self._entries, separators=(",", ":")).encode()
        os.lseek(self._file, 0, os.SEEK_SET)
        self._write(memoryview(self._room.to_bytes(8, "little") + text.ljust(self._room)))

    def close(self) -> None:
        os.close(self._file)

    def _write(self, data: memoryview) -> None:
        for start in range(0, len(data), _WRITE):
            piece = data[start : start + _WRITE]
            while piece:
                piece = piece[os.write(self._file, piece) :]


def write_tensors(
    path: Path,
    names: Sequence[str],
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str] = _PLAIN,
) -> dict[str, tuple[int, ...]]:
    """Writes the file and returns the shapes. If the iterator raises, the file that is left is not valid."""
    file = TensorFile(path, names, metadata)
    try:
        for name, tensor in tensors:
            file.add(name, tensor)
        file.finish()
    finally:
        file.close()
    return file.shapes


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().view(-1)
    if not flat.numel():
        return memoryview(b"")
    return flat.view(torch.uint8).numpy().data
