"""A base model on disk: a Hugging Face checkpoint folder, described by its headers.

Opening one reads `config.json` and the safetensors headers, and never weights. The result lists the tensors
and the file of each. Fingerprints, checks and merges all start from here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from adaptry.adapters.content import open_regular, read_at
from adaptry.adapters.header import BASE_LIMITS, ReadAt, SafetensorsHeader, TensorInfo, read_header
from adaptry.core import strictjson
from adaptry.core.errors import Invalid, InvalidConfig, InvalidWeights, NotFound, Unsupported
from adaptry.core.lazy_dataclass import dataclass

CONFIG = "config.json"
INDEX_END = ".safetensors.index.json"
INDEX = f"model{INDEX_END}"
_SIDE_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".md", ".tiktoken"}

_CONFIG_LIMITS = strictjson.JsonLimits(size=4 << 20, depth=24, nodes=200_000)
_INDEX_LIMITS = strictjson.JsonLimits(size=128 << 20, depth=4, nodes=2_000_000)


@dataclass(frozen=True, slots=True)
class HfCheckpoint:
    """A folder of weights: its config, its shards in name order, and the position of each tensor."""

    folder: Path
    config: Mapping[str, Any]  # config.json as written; its fields depend on the model
    shards: Mapping[str, SafetensorsHeader]
    tensors: Mapping[str, TensorInfo]
    shard_of: Mapping[str, str]
    states: Mapping[str, tuple[int, int, int]]
    """What `file_state` returned for each shard before its header was read; empty if files cannot change."""

    def path_of(self, tensor: str) -> Path:
        return self.folder / self.shard_of[tensor]

    @property
    def stem(self) -> str:
        """The beginning of the names of its weights files."""
        return weights_stem(self.config)

    @property
    def size(self) -> int:
        """The size of all tensors in bytes."""
        return sum(info.size for info in self.tensors.values())

    def check_unchanged(self) -> None:
        """Raises `Invalid` if a shard was written to or replaced after it was opened: the data read may mix
        two models.
        """
        for name, before in self.states.items():
            if file_state(self.folder / name) != before:
                raise Invalid(
                    f"{self.folder / name} changed while it was read; is something still writing it? Try"
                    " again when it is complete"
                )

    @contextmanager
    def open_shard(self, shard: str) -> Iterator[ReadAt]:
        """Positional reads of a shard."""
        with open_regular(self.folder / shard) as file:
            yield read_at(file)


def weights_stem(config: Mapping[str, Any]) -> str:
    """The beginning of the names of weights files. It differs for a part of a diffusers pipeline, whose
    config names a class. (`Any`: JSON.)
    """
    return "diffusion_pytorch_model" if isinstance(config.get("_class_name"), str) else "model"


def open_checkpoint(folder: Path | str, stem: str | None = None) -> HfCheckpoint:
    """Opens the checkpoint in `folder`. Its weights files begin with `stem`, by default according to its
    config.

    Raises `NotFound` (no folder, no weights), `Unsupported` (only pickles or GGUF, a pipeline),
    `InvalidConfig`, `InvalidWeights` (a shard that is missing, cut short, or names a tensor twice).
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        raise NotFound(f"{folder} is a file; pass the folder of a Hugging Face model, with its config.json")
    if not folder.is_dir():
        raise NotFound(f"no model folder at {folder}")
    config = read_config(folder) if (folder / CONFIG).exists() else None
    if config is None and (folder / "model_index.json").exists():
        raise Unsupported(
            f"{folder} is a diffusers pipeline with several models: pass the folder of one of them"
            f" (such as {folder / 'unet'})"
        )
    if config is None:
        raise NotFound(f"{folder} has no config.json, so it is not a Hugging Face model folder")
    present = {path.name for path in folder.iterdir() if path.is_file()}
    names = list_shard_names(present, folder, str(folder), stem or weights_stem(config))
    states = {name: state for name in names if (state := file_state(folder / name))}
    made = build_checkpoint(folder, config, {name: _read_shard(folder / name) for name in names})
    return replace(made, states=states)


def file_state(path: Path) -> tuple[int, int, int] | None:
    """Inode, size in bytes and time of the last change in ns; None if there is no such file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def build_checkpoint(
    folder: Path, config: Mapping[str, Any], shards: Mapping[str, SafetensorsHeader]
) -> HfCheckpoint:
    """The checkpoint with these shards. Raises `InvalidWeights` if two have the same tensor. (`Any`:
    JSON.)
    """
    tensors: dict[str, TensorInfo] = {}
    shard_of: dict[str, str] = {}
    for name, header in shards.items():
        for tensor, info in header.tensors.items():
            if tensor in tensors:
                raise InvalidWeights(f"{folder}: the tensor {tensor} is in {shard_of[tensor]} and in {name}")
            tensors[tensor], shard_of[tensor] = info, name
    return HfCheckpoint(folder, config, shards, tensors, shard_of, {})


def read_config(folder: Path) -> Mapping[str, Any]:
    """The model's `config.json`. Raises `InvalidConfig`. (`Any`: its fields depend on the model.)"""
    config: Mapping[str, Any] = _read_json(folder / CONFIG, _CONFIG_LIMITS, InvalidConfig)
    return config


def side_files(folder: Path) -> Iterator[Path]:
    """The files other than weights that a model needs: config, tokenizer, templates, licence."""
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.name.endswith(INDEX_END) or path.name.startswith("adapter_"):
            continue
        if path.suffix in _SIDE_SUFFIXES or path.name.startswith(("LICENSE", "NOTICE")):
            yield path


def list_shard_names(present: Set[str], folder: Path, label: str, stem: str = "model") -> list[str]:
    """The names of a checkpoint's weights files among the files `present`; an index is read from `folder`.

    Raises the errors of `open_checkpoint`, naming the checkpoint `label`.
    """
    single = f"{stem}.safetensors"
    index = f"{single}.index.json"
    if index in present:
        document = _read_json(folder / index, _INDEX_LIMITS, InvalidWeights)
        places = document.get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise InvalidWeights(f"{folder / index} has no weight_map of tensor to file")
        names = sorted(set(places.values()))
        for name in names:
            if "/" in name or "\\" in name or name not in present:
                raise InvalidWeights(
                    f"{folder / index} names {name[:80]!a}, which is missing; is the download complete?"
                )
        return names
    if single in present:
        return [single]
    names = sorted(name for name in present if fnmatchcase(name, f"{stem}*.safetensors"))
    if names:
        return names
    if any(name.endswith((".bin", ".gguf")) for name in present):
        raise Unsupported(
            f"{label} has no safetensors weights; convert once with transformers: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)"
        )
    raise NotFound(f"{label} has no {single}")


def _read_shard(path: Path) -> SafetensorsHeader:
    with open_regular(path) as file:
        return read_header(read_at(file), os.fstat(file.fileno()).st_size, path.name, BASE_LIMITS)


def _read_json(path: Path, limits: strictjson.JsonLimits, kind: type[Invalid]) -> Any:
    """(`Any`: JSON.)"""
    try:
        document = strictjson.loads(path.read_bytes(), limits, str(path))
    except Invalid as error:
        raise kind(error.message) from None
    if not isinstance(document, dict):
        raise kind(f"{path} is not a JSON object")
    return document
