"""Describes every adapter in a folder tree: from headers and configs, and a few kilobytes of the weights.

Adapters with the same weights are recognised: those whose sampled bytes are equal are hashed completely. An
adapter that cannot be read does not stop the others; it is listed with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptry.adapters.adapter import Adapter, open_content, open_dir, open_known
from adaptry.adapters.content import Content, FolderContent
from adaptry.adapters.folder_listing import list_folder, require_own_file
from adaptry.adapters.folder_tree import AdapterLocation, UnsearchedFolder, search_tree
from adaptry.adapters.header import read_header
from adaptry.checks.zero_updates import has_zero_updates
from adaptry.core.digest import Digest
from adaptry.core.display import format_count, html_table, short_repr, table_text
from adaptry.core.errors import AdaptryError, Invalid, MissingDependency, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.operations.training_runs import RunPosition, locate_in_run

if TYPE_CHECKING:
    from adaptry.adapters.spec import Spec

GGUF = "gguf"
"""The format of llama.cpp's LoRAs."""
_NAME_PARTS = ("lora", "adapter", "hada_", "lokr_", "oft_", "ia3_", "dora_scale", "lycoris_")
"""Parts of the names of tensors in adapters of all tools."""
_SAMPLES = 16
_SAMPLE = 4096


@dataclass(frozen=True, slots=True)
class ScannedAdapter:
    """One adapter of a tree. `error` is the reason why it cannot be read; then nothing else is known.

    `path` is its folder, or its file if the user chose the file's name, and `modified` is the time of its
    last change (seconds since 1970). `is_main`: in a Hugging Face cache, it is the commit of `main`. `format`
    is `peft`, `kohya`, `diffusers`, `mlx`, `adapterhub`, `torchtune` or `gguf`. `parameters` is the number of
    elements, in `size` bytes; `replaced` is how many weights of the base it replaces (`modules_to_save`,
    biases). `updates_are_zero`: whether no module has an update, as before the first step of training.
    `same_weights_as` is the first adapter of the tree with the same weights, if there is another;
    `has_same_config` is whether its config is the same too.
    """

    path: Path
    place: RunPosition
    modified: float
    is_main: bool = False
    format: str = ""
    method: str = ""
    ranks: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()
    modules: int = 0
    parameters: int = 0
    size: int = 0
    replaced: int = 0
    base_name: str | None = None
    updates_are_zero: bool = False
    same_weights_as: Path | None = None
    has_same_config: bool = False
    error: AdaptryError | None = None

    @property
    def step(self) -> int | None:
        """The step of a checkpoint, from its name; None for the end of a run."""
        return self.place.step

    @property
    def run(self) -> str:
        """The path of its training run below the searched folder: `tone` for `tone/checkpoint-500`; `.` if
        that folder is the run.
        """
        return "/".join(self.place.run) or "."

    def __repr__(self) -> str:
        rank = f"rank {max(self.ranks)}" if self.ranks else None
        return short_repr(self, str(self.path), self.method or "cannot be read", rank)


@dataclass(frozen=True, slots=True)
class FolderScan:
    """The adapters of a tree in natural order (`checkpoint-2` before `checkpoint-10`), and the folders that
    were not searched.
    """

    root: Path
    adapters: tuple[ScannedAdapter, ...]
    unsearched: tuple[UnsearchedFolder, ...] = ()

    def __repr__(self) -> str:
        rows = [("adapter", "method", "rank", "base"), *map(_row, self.adapters)]
        count = format_count(len(self.adapters), "adapter")
        return (
            f"{count} in {self.root}\n{table_text(rows)}" if self.adapters else f"no adapters in {self.root}"
        )

    def _repr_html_(self) -> str:
        title = f"{format_count(len(self.adapters), 'adapter')} in {self.root}"
        return html_table(title, ("adapter", "method", "rank", "base"), list(map(_row, self.adapters)))


@dataclass(frozen=True, slots=True)
class _SampledAdapter:
    """An adapter with its sampled bytes, and what is needed to compare it completely."""

    row: ScannedAdapter
    sketch: bytes = b""
    weights: Path | None = None
    config: object = None


def scan_folder(root: Path) -> FolderScan:
    """Describes the adapters in `root` and below it.

    Raises `NotFound` if there is no such folder.
    """
    if not root.is_dir():
        where = (
            f"{root} is a file; pass the folder that it is in" if root.exists() else f"no folder at {root}"
        )
        raise NotFound(where)
    tree = search_tree(root)
    found = [opened for place in tree.places if (opened := _open(root, place)) is not None]
    return FolderScan(root, tuple(_mark_duplicates(found)), tree.unsearched)


def open_scanned(scanned: ScannedAdapter) -> Adapter:
    """Opens the adapter of a row. Raises the errors of `open_dir`."""
    return _open_place(_place_of(scanned.path))


def _place_of(path: Path) -> AdapterLocation:
    return AdapterLocation(path) if path.is_dir() else AdapterLocation(path.parent, path.name)


def _open_place(place: AdapterLocation) -> Adapter:
    return open_dir(place.folder) if place.file is None else open_content(_content(place))


def _content(place: AdapterLocation) -> FolderContent:
    """The files of the adapter. Raises the errors of `list_folder`."""
    if place.file is None:
        return FolderContent(place.folder, list(list_folder(place.folder).kept))
    require_own_file(place.path)
    return FolderContent(place.folder, [place.file])


def _open(root: Path, place: AdapterLocation) -> _SampledAdapter | None:
    """The adapter in that place; None for a file of weights that is not an adapter."""
    parts = place.folder.relative_to(root).parts
    run_place = locate_in_run(list(parts), place.file)
    row = ScannedAdapter(place.path, run_place, _modified(place.path), _is_main(place.folder))
    try:
        if place.file and place.file.endswith(f".{GGUF}"):
            return _SampledAdapter(_with_gguf(row))
        content = _content(place)
        if place.file and not _has_names_of_adapter(content, place.file):
            return None
        adapter = open_known(content)
        spec = adapter.spec
        return _SampledAdapter(
            _described(row, adapter.format.name, spec, has_zero_updates(adapter)),
            _sketch(content, adapter.format.weights),
            place.folder / adapter.format.weights,
            _comparable(adapter.config.fields),
        )
    except AdaptryError as error:
        return _SampledAdapter(replace(row, error=error))
    except OSError as error:
        return _SampledAdapter(replace(row, error=Invalid(f"cannot read {place.path}: {error.strerror}")))


def _has_names_of_adapter(content: Content, file: str) -> bool:
    """Whether a file of weights under any name has a tensor of an adapter. Raises `InvalidWeights`."""
    header = read_header(content.reader(file), content.sizes[file], file)
    return any(word in name.lower() for name in header.tensors for word in _NAME_PARTS)


def _described(row: ScannedAdapter, format: str, spec: Spec, is_zero: bool) -> ScannedAdapter:
    return replace(
        row,
        format=format,
        method=spec.method,
        ranks=spec.ranks,
        targets=spec.targets,
        modules=len(spec.modules),
        parameters=spec.parameters,
        size=spec.size,
        replaced=len(spec.extras),
        base_name=spec.base_name,
        updates_are_zero=is_zero,
    )


def _with_gguf(row: ScannedAdapter) -> ScannedAdapter:
    """A LoRA of llama.cpp: without the gguf package, only its size. Raises `InvalidWeights`,
    `Unsupported`.
    """
    from adaptry.compute.foreign_layouts.gguf_reader import read_gguf  # few trees have such files

    row = replace(row, format=GGUF, method="lora", size=row.path.stat().st_size)
    try:
        lora = read_gguf(row.path, str(row.path))
    except MissingDependency:
        return row
    factors = [factor for pair in lora.pairs.values() for factor in (pair.down, pair.up)]
    return replace(
        row,
        ranks=tuple(sorted({pair.rank for pair in lora.pairs.values()})),
        targets=tuple(sorted({name.split(".")[-2] for name in lora.pairs if "." in name})),
        modules=len(lora.pairs),
        parameters=sum(_product(factor.shape) for factor in factors),
        base_name=lora.base_name,
    )


def _product(shape: tuple[int, ...]) -> int:
    elements = 1
    for side in shape:
        elements *= side
    return elements


def _sketch(content: Content, weights: str) -> bytes:
    """A digest of the file's size and of some of its bytes, or of all bytes of a small file."""
    size = content.sizes[weights]
    hasher = hashlib.sha256(str(size).encode())
    if size <= _SAMPLES * _SAMPLE:
        hasher.update(content.read(weights, 0, size))
    else:
        for number in range(_SAMPLES):
            hasher.update(content.read(weights, (size - _SAMPLE) * number // (_SAMPLES - 1), _SAMPLE))
    return hasher.digest()


def _comparable(value: Any) -> object:
    """A config as a value whose lists of names are in order: PEFT writes sets in any order. (`Any`: JSON.)"""
    if isinstance(value, dict):
        return {key: _comparable(each) for key, each in sorted(value.items())}
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return sorted(value)
    return value


def _mark_duplicates(found: list[_SampledAdapter]) -> Iterator[ScannedAdapter]:
    """Adds to each row the first adapter that has the same weights. Only files with equal samples are
    read.
    """
    sketches: dict[bytes, int] = {}
    for opened in found:
        sketches[opened.sketch] = sketches.get(opened.sketch, 0) + 1
    first: dict[Digest, _SampledAdapter] = {}
    for opened in found:
        digest = _digest(opened.weights) if opened.weights and sketches[opened.sketch] > 1 else None
        if digest is None or (other := first.setdefault(digest, opened)) is opened:
            yield opened.row
        else:
            yield replace(
                opened.row,
                same_weights_as=other.row.path,
                has_same_config=(opened.row.format, opened.config) == (other.row.format, other.config),
            )


def _digest(file: Path) -> Digest | None:
    """The digest of the file; None if it disappeared or cannot be read."""
    try:
        with file.open("rb") as opened:
            return Digest.of_chunks(iter(_reader(opened.read), b""))
    except OSError:
        return None


def _reader(read: Callable[[int], bytes]) -> Callable[[], bytes]:
    return lambda: read(1 << 20)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_main(folder: Path) -> bool:
    """Whether the folder is the commit of `main` in a Hugging Face cache."""
    if folder.parent.name != "snapshots":
        return False
    try:
        return (folder.parent.parent / "refs" / "main").read_text(encoding="utf-8").strip() == folder.name
    except (OSError, UnicodeDecodeError):
        return False


def _row(adapter: ScannedAdapter) -> tuple[str, str, str, str]:
    ranks = ", ".join(map(str, adapter.ranks))
    problem = adapter.error.message if adapter.error else ""
    return str(adapter.path), adapter.method or problem, ranks, adapter.base_name or ""
