"""The files of a merged checkpoint other than weights: config, index, tokenizer, licence.

They are copied from the base, except for the fields that the merge changes: the dtype, the tie between
embeddings and output head, and the map of tensors to files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptry.bases.hf_folder import CONFIG, INDEX_END, side_files
from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.merging.tied_names import find_tied_names

_TIE = "tie_word_embeddings"
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_side_files(plan: MergePlan, folder: Path) -> None:
    """Writes everything but weights into `folder`, which must exist."""
    for path in copied_files(plan):
        shutil.copyfile(path, folder / path.name)
    for name, data in generated_files(plan).items():
        (folder / name).write_bytes(data)


def copied_files(plan: MergePlan) -> Iterator[Path]:
    """The base's files that are copied unchanged."""
    return (path for path in side_files(plan.checkpoint.folder) if path.name != CONFIG)


def generated_files(plan: MergePlan) -> Mapping[str, bytes]:
    """The files that the merge changes or creates, by name."""
    made = {CONFIG: _json(_config(plan))}
    stem = plan.checkpoint.stem
    if [file.name for file in plan.files] != [f"{stem}.safetensors"]:
        made[f"{stem}{INDEX_END}"] = _json(_index(plan))
    return made


def _config(plan: MergePlan) -> dict[str, Any]:
    """The config; nested text configs are changed too. (`Any`: the fields depend on the model.)"""
    config = dict(plan.checkpoint.config)
    parts = [config]
    for key in ("text_config", "llm_config"):
        if isinstance(config.get(key), dict):
            config[key] = dict(config[key])
            parts.append(config[key])
    for part in parts:
        if plan.is_untied and (part is config or _TIE in part):
            untied = find_tied_names(plan.checkpoint).config
            part.update({**untied, **{key: part[key] for key in part.keys() & untied.keys() - {_TIE}}})
        if plan.vocabulary and "vocab_size" in part:
            part["vocab_size"] = plan.vocabulary
        if plan.dtype:
            for key in ("dtype", "torch_dtype"):
                if key in part:
                    part[key] = _DTYPES[plan.dtype]
    return config


def _index(plan: MergePlan) -> dict[str, Any]:
    """The index in transformers' format. (`Any`: JSON.)"""
    tensors = [(tensor, file.name) for file in plan.files for tensor in file.tensors]
    return {
        "metadata": {
            "total_parameters": sum(tensor.numel for tensor, _ in tensors),
            "total_size": sum(tensor.size for tensor, _ in tensors),
        },
        "weight_map": {tensor.name: name for tensor, name in sorted(tensors, key=lambda pair: pair[0].name)},
    }


def _json(document: dict[str, Any]) -> bytes:
    """(`Any`: JSON.)"""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
