"""A diffusers pipeline as a base: the checkpoints of all its parts, with the part's name in front of each
tensor's name.

LoRA files of diffusers use these names (`unet.down_blocks.0.…`, `text_encoder.…`). A pipeline can be
fingerprinted and checked against. Nothing is merged into it, so `open_checkpoint` does not open it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adaptry.adapters.header import SafetensorsHeader, TensorInfo
from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint
from adaptry.core import strictjson
from adaptry.core.errors import Invalid, InvalidConfig, NotFound

INDEX = "model_index.json"
_STEMS = {"diffusers": "diffusion_pytorch_model"}
_LIMITS = strictjson.JsonLimits(size=1 << 20, depth=8, nodes=10_000)


def open_base_folder(folder: Path | str) -> HfCheckpoint:
    """Opens the base in a folder: a model or a pipeline. Raises the errors of `open_checkpoint` and
    `open_pipeline`.
    """
    folder = Path(folder).expanduser()
    return open_pipeline(folder) if (folder / INDEX).is_file() else open_checkpoint(folder)


def open_pipeline(folder: Path) -> HfCheckpoint:
    """Opens the pipeline that diffusers' `save_pretrained` wrote into `folder`.

    Its config has the pipeline's class, as `architectures`, and the parts' configs by name. Raises
    `InvalidConfig`, `NotFound` if no part has weights, and the errors of opening a part.
    """
    try:
        index = strictjson.loads((folder / INDEX).read_bytes(), _LIMITS, str(folder / INDEX))
    except Invalid as error:
        raise InvalidConfig(error.message) from None
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise InvalidConfig(f"{folder / INDEX} does not name the pipeline's class (_class_name)")
    parts = {path.name: part for path, part in _parts(folder, index)}
    if not parts:
        raise NotFound(f"{folder} is a pipeline without weights; is the download complete?")
    shards: dict[str, SafetensorsHeader] = {}
    tensors: dict[str, TensorInfo] = {}
    shard_of: dict[str, str] = {}
    states: dict[str, tuple[int, int, int]] = {}
    for name, part in parts.items():
        states |= {f"{name}/{shard}": state for shard, state in part.states.items()}
        shards |= {f"{name}/{shard}": header for shard, header in part.shards.items()}
        tensors |= {f"{name}.{tensor}": info for tensor, info in part.tensors.items()}
        shard_of |= {f"{name}.{tensor}": f"{name}/{shard}" for tensor, shard in part.shard_of.items()}
    config = {
        "model_type": index["_class_name"],
        "architectures": [index["_class_name"]],
        "tie_word_embeddings": False,  # each part handles this itself
        **{name: part.config for name, part in parts.items()},
    }
    return HfCheckpoint(folder, config, shards, tensors, shard_of, states)


def _parts(folder: Path, index: dict[str, object]) -> Iterator[tuple[Path, HfCheckpoint]]:
    """The parts that have weights: schedulers and tokenizers have none."""
    for name, kind in sorted(index.items()):
        if not isinstance(kind, list) or not kind or "/" in name or name.startswith((".", "_")):
            continue
        place = folder / name
        has_weights = any(path.suffix in (".safetensors", ".bin") for path in place.glob("*"))
        if has_weights and (place / "config.json").is_file():
            yield place, open_checkpoint(place, _STEMS.get(str(kind[0]), "model"))
