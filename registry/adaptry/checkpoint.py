"""A base model on disk: a Hugging Face checkpoint folder, known by its headers.

Opening one reads `config.json` and the safetensors headers, never a weight. It says which tensors
there are and in which file each lies; fingerprints, checks and merges all start from here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptry import strictjson
from adaptry.adapter.content import open_regular, read_at
from adaptry.adapter.header import BASE_LIMITS, Header, TensorInfo, read_header
from adaptry.errors import Invalid, InvalidConfig, InvalidWeights, NotFound, Unsupported

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SIDE_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".md", ".tiktoken"}

_CONFIG_LIMITS = strictjson.Limits(size=4 << 20, depth=24, nodes=200_000)
_INDEX_LIMITS = strictjson.Limits(size=128 << 20, depth=4, nodes=2_000_000)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder of weights: its config, its shards in name order, and each tensor's place."""

    folder: Path
    config: Mapping[str, Any]  # config.json as written: its fields are the model's own
    shards: Mapping[str, Header]
    tensors: Mapping[str, TensorInfo]
    shard_of: Mapping[str, str]

    def path_of(self, tensor: str) -> Path:
        return self.folder / self.shard_of[tensor]

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(info.size for info in self.tensors.values())


def open_checkpoint(folder: Path | str, stem: str = "model") -> Checkpoint:
    """The checkpoint in `folder`, whose files of weights begin with `stem`.

    Raises `NotFound` (no folder, no weights), `Unsupported` (only pickles or GGUF, a pipeline), `InvalidConfig`,
    `InvalidWeights` (a shard that is missing, cut short, or names a tensor twice).
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise NotFound(f"no base model folder at {folder}")
    config = (
        _read_json(folder / CONFIG, _CONFIG_LIMITS, InvalidConfig) if (folder / CONFIG).exists() else None
    )
    if config is None and (folder / "model_index.json").exists():
        raise Unsupported(
            f"{folder} is a pipeline of diffusers: its adapters are fused by diffusers itself (pipeline.fuse_lora())"
        )
    if config is None:
        raise NotFound(f"{folder} has no config.json, so it is not a Hugging Face model folder")
    shards: dict[str, Header] = {}
    tensors: dict[str, TensorInfo] = {}
    shard_of: dict[str, str] = {}
    for name in _shard_names(folder, stem):
        shards[name] = _read_shard(folder / name)
        for tensor, info in shards[name].tensors.items():
            if tensor in tensors:
                raise InvalidWeights(f"{folder}: the tensor {tensor} is in {shard_of[tensor]} and in {name}")
            tensors[tensor], shard_of[tensor] = info, name
    return Checkpoint(folder, config, shards, tensors, shard_of)


def side_files(folder: Path) -> Iterator[Path]:
    """The files beside the weights that make a model whole: config, tokenizer, templates, licence."""
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.name == INDEX or path.name.startswith("adapter_"):
            continue
        if path.suffix in _SIDE_SUFFIXES or path.name.startswith(("LICENSE", "NOTICE")):
            yield path


def _shard_names(folder: Path, stem: str) -> list[str]:
    single = f"{stem}.safetensors"
    index = folder / f"{single}.index.json"
    if index.exists():
        document = _read_json(index, _INDEX_LIMITS, InvalidWeights)
        places = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise InvalidWeights(f"{index} has no weight_map of tensor to file")
        names = sorted(set(places.values()))
        for name in names:
            if "/" in name or "\\" in name or not (folder / name).is_file():
                raise InvalidWeights(
                    f"{index} names {name[:80]!a}, which is not there; is the download complete?"
                )
        return names
    if (folder / single).exists():
        return [single]
    names = sorted(path.name for path in folder.glob(f"{stem}*.safetensors"))
    if names:
        return names
    if any(folder.glob("*.bin")) or any(folder.glob("*.gguf")):
        raise Unsupported(
            f"{folder} has no safetensors weights; convert once with transformers: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)"
        )
    raise NotFound(f"{folder} has no {single}")


def _read_shard(path: Path) -> Header:
    with open_regular(path) as file:
        return read_header(read_at(file), os.fstat(file.fileno()).st_size, path.name, BASE_LIMITS)


def _read_json(path: Path, limits: strictjson.Limits, kind: type[Invalid]) -> Any:
    """(`Any`: JSON.)"""
    try:
        document = strictjson.loads(path.read_bytes(), limits, str(path))
    except Invalid as error:
        raise kind(error.message) from None
    if not isinstance(document, dict):
        raise kind(f"{path} is not a JSON object")
    return document
