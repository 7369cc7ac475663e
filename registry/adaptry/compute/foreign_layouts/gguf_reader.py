"""Reads a GGUF adapter: pairs of factors by llama.cpp's tensors, and the alpha.

llama.cpp multiplies each pair by alpha / rank, or by 1 if alpha is 0 (`llama-adapter.h ·
get_scale`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptry.adapters.content import Content, FolderContent
from adaptry.adapters.header import ReadAt
from adaptry.compute.exporting.gguf_names import import_gguf
from adaptry.compute.foreign_layouts.peft_view import ViewedTensor
from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidWeights, Unsupported
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = {"F32": "F32", "F16": "F16", "BF16": "BF16"}
_WORDS = frozenset(
    [
        "general.type",
        "general.architecture",
        "general.base_model.0.name",
        "general.base_model.0.repo_url",
        "adapter.type",
        "adapter.lora.alpha",
    ]
)
_REPOSITORY = lazy_pattern(r"https://huggingface\.co/([^/]+/[^/]+)/?")


@dataclass(frozen=True, slots=True)
class GgufEntry:
    """A tensor: dtype as in safetensors, shape as in torch, and a function that reads `size` bytes of it."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    read: ReadAt

    def viewed(
        self, expert: int | None, change: Callable[[Tensor], Tensor] | None, is_transposed: bool = False
    ) -> ViewedTensor:
        """The tensor, or one expert's part [...] of a stack [experts, ...], after `change`, which keeps the
        dtype and transposes the shape if `is_transposed`. Bytes are read from the file when needed, and not
        from a map of it, since reading a map of a file that became shorter ends the process.
        """
        shape = self.shape if expert is None else self.shape[1:]
        size = self.size // (1 if expert is None else self.shape[0])
        start = 0 if expert is None else expert * size

        def read() -> bytes:
            from adaptry.adapters.header import TensorInfo
            from adaptry.compute.tensors.adapter_tensors import as_tensor, stored_bytes

            data = self.read(start, size)
            if len(data) != size:
                raise InvalidWeights("the GGUF file became shorter while it was read; is it being written?")
            if change is None:
                return data
            return stored_bytes(change(as_tensor(data, TensorInfo(self.dtype, shape, 0, size))))

        return ViewedTensor(self.dtype, shape[::-1] if is_transposed else shape, size, read)


@dataclass(frozen=True, slots=True)
class GgufPair:
    """The two factors that change one of llama.cpp's tensors."""

    down: GgufEntry
    up: GgufEntry

    @property
    def rank(self) -> int:
        return self.up.shape[-1]


@dataclass(frozen=True, slots=True)
class GgufLora:
    """The adapter in the file `name` of `content`; `architecture` is llama.cpp's name."""

    content: Content
    name: str
    architecture: str
    alpha: float
    pairs: Mapping[str, GgufPair]
    base_name: str | None

    def digest(self) -> Digest:
        """The digest of the whole file, which this reads."""
        return Digest.of_chunks(self.content.chunks(self.name))

    def scale(self, pair: GgufPair) -> float:
        return self.alpha / pair.rank if self.alpha else 1.0


def find_gguf(path: Path) -> Path | None:
    """The GGUF file at `path`, or the only one in a folder without another adapter, or None."""
    if path.suffix == ".gguf" and path.is_file():
        return path
    files = sorted(path.glob("*.gguf")) if path.is_dir() else []
    others = (each for kind in ("adapter_config.json", "*.safetensors") for each in path.glob(kind))
    return files[0] if len(files) == 1 and not any(others) else None


def read_gguf(file: Path, label: str) -> GgufLora:
    """Reads the file. Raises `InvalidWeights` (not GGUF, or single factors), `Unsupported` (not a LoRA, or
    quantised).
    """
    gguf = import_gguf()
    content = FolderContent(file.parent, [file.name])  # opened first, so that changes from now on are noticed
    try:
        reader = gguf.GGUFReader(file)
        words = {key: field.contents() for key, field in reader.fields.items() if key in _WORDS}
    except Exception as error:  # the package passes on all of numpy's exceptions
        raise InvalidWeights(f"{label} is not a readable GGUF file: {error}") from error
    if words.get("general.type") != "adapter" or words.get("adapter.type") != "lora":
        raise Unsupported(f"{label} is not a LoRA of llama.cpp (general.type is {words.get('general.type')})")
    return GgufLora(
        content,
        file.name,
        str(words.get("general.architecture")),
        float(words.get("adapter.lora.alpha") or 0.0),
        _pairs(reader, content.reader(file.name), label),
        _base_name(words.get("general.base_model.0.name"), words.get("general.base_model.0.repo_url")),
    )


def _base_name(name: str | None, url: str | None) -> str | None:
    """The name under which the base can be loaded: its repository, or a path. llama.cpp's converter
    writes a title instead (`Model` for `org/model`), next to the repository's address, if there is one.
    """
    if url and (found := _REPOSITORY.fullmatch(url)):
        return found[1]
    return name if name and "/" in name else None


def _pairs(reader: Any, read: ReadAt, label: str) -> Mapping[str, GgufPair]:
    """(`Any`: an untyped package.)"""
    halves: dict[str, dict[str, GgufEntry]] = {}
    for tensor in reader.tensors:
        name, _, role = tensor.name.rpartition(".")
        if role not in ("lora_a", "lora_b"):
            raise Unsupported(f"{label} has {tensor.name}, which is not a factor: merge it in llama.cpp")
        dtype = _DTYPES.get(tensor.tensor_type.name)
        if dtype is None:
            raise Unsupported(
                f"{label}: {tensor.name} is quantised ({tensor.tensor_type.name}), so its values are not"
                " those of"
                " the adapter: convert the original, unquantised file"
            )
        shape = tuple(int(side) for side in reversed(tensor.shape))
        own = partial(_read_from, read, int(tensor.data_offset))
        halves.setdefault(name, {})[role] = GgufEntry(dtype, shape, int(tensor.n_bytes), own)
    odd = [name for name, own in halves.items() if len(own) < 2]
    if odd or not halves:
        raise InvalidWeights(f"{label} has {f'only one factor of {odd[0]}' if odd else 'no factors'}")
    return {name: GgufPair(own["lora_a"], own["lora_b"]) for name, own in halves.items()}


def _read_from(read: ReadAt, start: int, offset: int, length: int) -> bytes:
    return read(start + offset, length)
