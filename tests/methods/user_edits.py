"""Further random mutations: users' edits of a config, and errors of conversion scripts."""

from __future__ import annotations

import random
import re

import torch

from .mutations import PREFIX, Files, Mutation

_PARTS = ("base_layer", "default", "lora_A", "lora_B", "lora_dropout", "modules_to_save")
_INSIDE = re.compile(
    r"\.((?:lora|hada|lokr|oft|boft|hra|road|ia3|ln_tuning|miss|shira|c3a|delora|osf|gralora|psoft|glora|hira"
    r"|fourierft|waveft|deft|beft|trainable_tokens)_?\w*)(?=\.|$)"
)


def add_a_dimension(source: random.Random, files: Files) -> str | None:
    name = source.choice(list(files.tensors))
    value = files.tensors[name]
    files.tensors[name] = source.choice([value.unsqueeze(-1), value.unsqueeze(0), value.squeeze()])
    new = files.tensors[name].shape
    return f"{name} {list(value.shape)} as {list(new)}" if new != value.shape else None


def save_a_part_of_a_layer(source: random.Random, files: Files) -> str | None:
    words = {part for name in files.tensors for part in name.removeprefix(PREFIX).split(".")}
    return _saved(source, files, source.choice(sorted({*_PARTS, *(w for w in words if not w.isdecimal())})))


def save_any_module(source: random.Random, files: Files) -> str | None:
    parts = source.choice(sorted(files.base)).split(".")[:-1]
    first = source.randrange(len(parts))
    last = source.randint(first + 1, len(parts))
    return _saved(source, files, ".".join(parts[first:last]))


def _saved(source: random.Random, files: Files, item: str) -> str:
    files.config["modules_to_save"] = [item]
    if source.random() < 0.4:
        return f"modules_to_save {item}"
    for name, value in files.base.items():
        if name.rpartition(".")[0].endswith(item) or f".{item}." in f".{name}":
            files.tensors[PREFIX + name] = torch.randn(value.shape)
    return f"modules_to_save {item}, with its weights"


def target_parameters(source: random.Random, files: Files) -> str | None:
    if "target_parameters" not in files.config:
        return None
    parts = source.choice(sorted(files.base)).split(".")
    name = ".".join(parts[source.randrange(len(parts)) :])
    item = source.choice([name, name.removesuffix(".weight"), "mlp.experts.down_proj", "foo.weight"])
    files.config["target_parameters"] = [item]
    return f"target_parameters {item}"


def change_the_method(source: random.Random, files: Files) -> str | None:
    files.config["peft_type"] = source.choice([None, "FOO", "", 3])
    return f"peft_type {files.config['peft_type']!r}"


def replicate_layers(source: random.Random, files: Files) -> str | None:
    if "layer_replication" not in files.config:
        return None
    files.config["layer_replication"] = source.choice([[[0, 2], [0, 2]], [[0, 1]], [[0, 3]], [[1, 2]]])
    return f"layer_replication {files.config['layer_replication']}"


def add_a_key(source: random.Random, files: Files) -> str | None:
    name = source.choice(sorted(files.base))
    path = name.rpartition(".")[0]
    end = source.choice(["foo", "extra.weight", "lora_A.weight", "base_layer.weight", "lora_C.weight"])
    files.tensors[f"{PREFIX}{path}.{end}"] = torch.randn(files.base[name].shape)
    return f"{path}.{end} beside it"


def name_as_in_a_state_dict(source: random.Random, files: Files) -> str | None:
    if not all(map(_INSIDE.search, files.tensors)):
        return None
    files.tensors = {
        _INSIDE.sub(r".\1.default", name, count=1): value for name, value in files.tensors.items()
    }
    return "the adapter's name inside all names"


def save_shards_as_empty(source: random.Random, files: Files) -> str | None:
    """Empties parameters, as ZeRO-3 leaves those that were not gathered."""
    names = list(files.tensors)
    if source.random() < 0.5:
        names = source.sample(names, source.randint(1, len(names)))
    is_flat = source.random() < 0.6
    for name in names:
        value = files.tensors[name]
        files.tensors[name] = value.new_empty([0] if is_flat or not value.dim() else [0, *value.shape[1:]])
    return f"{len(names)} tensors without elements ({'flat' if is_flat else 'no rows'})"


def flatten(source: random.Random, files: Files) -> str | None:
    """Flattens parameters, as FSDP keeps them during training."""
    names = [name for name, value in files.tensors.items() if value.dim() > 1]
    if names and source.random() < 0.5:
        names = source.sample(names, source.randint(1, len(names)))
    for name in names:
        files.tensors[name] = files.tensors[name].flatten()
    return f"{len(names)} tensors flat" if names else None


def save_twice(source: random.Random, files: Files) -> str | None:
    """Saves a tensor under a second name, with other values."""
    wrapper = source.choice(["module.", "_orig_mod.", "", "base_model.model.", "model."])
    names = list(files.tensors)
    if source.random() < 0.5:
        names = source.sample(names, source.randint(1, len(names)))
    added = {f"{PREFIX}{wrapper}{name.removeprefix(PREFIX)}" for name in names} - files.tensors.keys()
    added |= {wrapper + name for name in names if source.random() < 0.3} - files.tensors.keys()
    for name in sorted(added):
        source_name = next(each for each in names if name.endswith(each.removeprefix(PREFIX)))
        value = files.tensors[source_name]
        files.tensors[name] = (value.double() + 1).to(value.dtype)
    return f"{len(added)} of {len(names)} tensors twice, with {wrapper!r}" if added else None


USER_EDITS: tuple[Mutation, ...] = (
    add_a_dimension, save_a_part_of_a_layer, save_a_part_of_a_layer, save_any_module, save_any_module,
    target_parameters, change_the_method, replicate_layers, add_a_key, name_as_in_a_state_dict,
    save_shards_as_empty, flatten, save_twice,
)  # fmt: skip
