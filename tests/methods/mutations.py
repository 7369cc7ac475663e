"""Random mutations of adapters that PEFT saved, in their names, tensors or config.

A mutation is a function of a seeded generator and the two files; it returns a description of its change, or
None if it does not apply. Half of them imitate real tools and users (a wrapper's prefix left in, an edited
list of targets, a missing shard), the others an attacker or a bug.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

PREFIX = "base_model.model."
_OTHER_NAMES = (
    ("q_proj", "o_proj"),
    ("down_proj", "up_proj"),
    ("c_attn", "c_fc"),
    ("query", "key"),
    ("wo", "wi"),
    ("q_proj", "Q_proj"),
    (".layers.", ".blocks."),
    (".0.", ".7."),
)
_LIES: tuple[tuple[str, Any], ...] = (
    ("task_type", "FOO"),
    ("task_type", None),
    ("task_type", "SEQ_CLS"),
    ("bias", "all"),
    ("init_lora_weights", "foo"),
    ("init_lora_weights", "pissa"),
    ("feedforward_modules", ["down_proj"]),
    ("feedforward_modules", None),
    ("foo", 1),
    ("peft_type", "LOHA"),
    ("peft_type", "lora"),
    ("peft_type", "IA3"),
)
_WRAPPERS = ("foo", "model", "language_model", "_orig_mod", "module", "policy.llm", "base_model.model")


@dataclass
class Files:
    """The two files of an adapter, and the parameters of the base for which it was made. (`Any`: JSON.)"""

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    base: dict[str, torch.Tensor]


Mutation = Callable[[random.Random, Files], str | None]


def _some(source: random.Random, names: list[str]) -> list[str]:
    """All names, or some of them."""
    return names if source.random() < 0.5 else [name for name in names if source.random() < 0.5]


def _renamed(files: Files, names: list[str], new: Callable[[str], str]) -> None:
    chosen = set(names)
    files.tensors = {new(name) if name in chosen else name: value for name, value in files.tensors.items()}


def insert_a_wrapper(source: random.Random, files: Files) -> str | None:
    word = source.choice(_WRAPPERS)
    names = _some(source, [name for name in files.tensors if name.startswith(PREFIX)])
    _renamed(files, names, lambda name: f"{PREFIX}{word}.{name.removeprefix(PREFIX)}")
    return f"{word} in front of {len(names)} names" if names else None


def remove_the_first_part(source: random.Random, files: Files) -> str | None:
    names = _some(source, [name for name in files.tensors if name.startswith(PREFIX)])
    _renamed(files, names, lambda name: PREFIX + name.removeprefix(PREFIX).partition(".")[2])
    return f"{len(names)} names without their first part" if names else None


def remove_the_prefix(source: random.Random, files: Files) -> str | None:
    names = _some(source, list(files.tensors))
    _renamed(files, names, lambda name: name.removeprefix(PREFIX))
    return f"{len(names)} names without the prefix" if names else None


def name_the_adapter_inside(source: random.Random, files: Files) -> str | None:
    word = source.choice(["default", "foo", "weight"])
    names = _some(source, [name for name in files.tensors if re.search(r"\.(?:lora|ia3|hada|oft)_", name)])
    _renamed(
        files, names, lambda name: re.sub(r"(\.(?:lora|ia3|hada|oft)_[^.]+)", rf"\1.{word}", name, count=1)
    )
    return f"{word} inside {len(names)} names" if names else None


def leave_tensors_out(source: random.Random, files: Files) -> str | None:
    names = source.sample(list(files.tensors), min(len(files.tensors), source.choice([1, 1, 2, 5])))
    for name in names:
        del files.tensors[name]
    return f"without {', '.join(names)}"


def leave_a_layer_out(source: random.Random, files: Files) -> str | None:
    names = [name for name in files.tensors if re.search(r"\.0\.", name)]
    for name in names:
        del files.tensors[name]
    return "without layer 0" if names and files.tensors else None


def call_it_another_module(source: random.Random, files: Files) -> str | None:
    old, new = source.choice(_OTHER_NAMES)
    names = _some(source, [name for name in files.tensors if old in name])
    _renamed(files, names, lambda name: name.replace(old, new, 1))
    return f"{old} called {new} in {len(names)} names" if names else None


def copy_to_another_layer(source: random.Random, files: Files) -> str | None:
    found = {name: value for name, value in files.tensors.items() if ".0." in name}
    files.tensors |= {name.replace(".0.", ".9.", 1): value for name, value in found.items()}
    return "a layer 9 beside layer 0" if found else None


def add_a_weight_of_the_base(source: random.Random, files: Files) -> str | None:
    name = source.choice(sorted(files.base))
    path, _, parameter = name.rpartition(".")
    key = source.choice(
        [name, f"{path}.base_layer.{parameter}", f"foo.{name}", f"{path}.modules_to_save.{parameter}"]
    )
    value = torch.randn(files.base[name].shape)
    if source.random() < 0.2:
        value = torch.randn([size + 1 for size in value.shape])
    files.tensors[PREFIX + key if source.random() < 0.9 else key] = value
    return f"{key} beside it"


def add_a_stranger(source: random.Random, files: Files) -> str | None:
    key = source.choice(
        ["foo", "foo.weight", "model.foo.lora_A.weight", "lora_A.weight", "rotary_emb.inv_freq"]
    )
    files.tensors[PREFIX + key] = torch.randn(4, 4)
    return f"{key} beside it"


def change_a_shape(source: random.Random, files: Files) -> str | None:
    if not files.tensors:
        return None
    name = source.choice(list(files.tensors))
    value = files.tensors[name]
    if not value.dim():
        return None
    dim = source.randrange(value.dim())
    files.tensors[name] = torch.cat([value, value.narrow(dim, 0, 1)], dim).contiguous()
    return f"{name} longer in dimension {dim}"


def swap_two_sides(source: random.Random, files: Files) -> str | None:
    if not files.tensors:
        return None
    name = source.choice(list(files.tensors))
    value = files.tensors[name]
    if value.dim() != 2 or value.shape[0] == value.shape[1]:
        return None
    files.tensors[name] = value.T.contiguous()
    return f"{name} transposed"


def cast(source: random.Random, files: Files) -> str | None:
    dtypes = [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
    dtype = source.choice(dtypes)
    names = _some(source, [name for name, value in files.tensors.items() if value.is_floating_point()])
    for name in names:
        files.tensors[name] = files.tensors[name].to(dtype)
    return f"{len(names)} tensors as {dtype}" if names else None


def target_others(source: random.Random, files: Files) -> str | None:
    listed = files.config.get("target_modules")
    if not isinstance(listed, list) or not listed:
        return None
    paths = sorted(
        {name.removeprefix(PREFIX).rpartition(".")[0].rpartition(".")[0] for name in files.tensors}
    )
    choices: list[Any] = [
        [],
        None,
        ["foo"],
        listed[1:],
        [*listed, "foo"],
        [*listed, "norm"],
        [*listed, "self_attn"],
        "all-linear",
        "|".join(rf".*\.{re.escape(name)}" for name in listed),
        rf".*\.{re.escape(listed[0])}",
        re.escape(listed[0]),
        paths,
        paths[1:],
        [name.upper() for name in listed],
        listed[0],
    ]
    files.config["target_modules"] = source.choice(choices)
    return f"target_modules {str(files.config['target_modules'])[:60]}"


def exclude(source: random.Random, files: Files) -> str | None:
    listed = files.config.get("target_modules")
    names = listed if isinstance(listed, list) and listed else ["q_proj"]
    files.config["exclude_modules"] = source.choice(
        [[names[0]], ["foo"], r".*\.0\..*", rf".*\.{re.escape(names[-1])}", [], "foo"]
    )
    return f"exclude_modules {files.config['exclude_modules']}"


def choose_layers(source: random.Random, files: Files) -> str | None:
    if "layers_to_transform" not in files.config:
        return None
    files.config["layers_to_transform"] = source.choice([[0], 0, [0, 1], [], [7], 1])
    files.config["layers_pattern"] = source.choice(
        [None, None, "layers", "h", ["layers", "h", "layer"], "", [], "(?:lay.*|h)", "layers|h"]
    )
    return f"layers {files.config['layers_to_transform']} of {files.config['layers_pattern']}"


def save_modules(source: random.Random, files: Files) -> str | None:
    files.config["modules_to_save"] = source.choice(
        [["lm_head"], ["foo"], ["score"], ["norm"], ["head"], ["q_proj"], ["embed_tokens", "lm_head"], []]
    )
    if source.random() < 0.3:
        for name, value in files.base.items():
            if name.rpartition(".")[0].endswith(tuple(files.config["modules_to_save"])):
                files.tensors[PREFIX + name] = torch.randn(value.shape)
        return f"modules_to_save {files.config['modules_to_save']}, with their weights"
    return f"modules_to_save {files.config['modules_to_save']}"


def train_tokens(source: random.Random, files: Files) -> str | None:
    key = (
        "token_indices" if files.config.get("peft_type") == "TRAINABLE_TOKENS" else "trainable_token_indices"
    )
    if key not in files.config:
        return None
    rows = source.choice(
        [
            *([1], [1, 2], [1, 5, 3], [1, 1, 2], [1, -2, 3], [1, 5, 9999], [3, 5, 1], [1.0, 5, 3], [], None),
            *({end: [1, 5, 3]} for end in ("embed_tokens", "lm_head", "foo")),
        ]
    )
    files.config[key] = rows
    return f"{key} {rows}"


def change_a_number(source: random.Random, files: Files) -> str | None:
    numbers = sorted(
        key
        for key, value in files.config.items()
        if type(value) in (int, float) and "dropout" not in key and key not in ("layers_to_transform",)
    )
    if not numbers:
        return None
    key = source.choice(numbers)
    value = files.config[key]
    files.config[key] = source.choice([value + 1, value * 2, 0, -1, None, str(value), 1.5])
    return f"{key} {value} → {files.config[key]}"


def switch(source: random.Random, files: Files) -> str | None:
    flags = sorted(
        key for key, value in files.config.items() if type(value) is bool and key != "inference_mode"
    )
    if not flags:
        return None
    key = source.choice(flags)
    files.config[key] = not files.config[key]
    return f"{key} {files.config[key]}"


def lose_a_field(source: random.Random, files: Files) -> str | None:
    key = source.choice(sorted(files.config))
    was = files.config.pop(key)
    return f"without {key} ({str(was)[:30]})"


def set_patterns(source: random.Random, files: Files) -> str | None:
    if "rank_pattern" not in files.config:
        return None
    listed = files.config.get("target_modules")
    name = listed[0] if isinstance(listed, list) and listed else "q_proj"
    key = source.choice(["rank_pattern", "alpha_pattern"])
    if key not in files.config:
        return None
    files.config[key] = source.choice(
        [{name: 4}, {name: 7}, {f".*\\.0\\..*{name}": 5}, {"foo": 3}, {name: 5, f"0.*.{name}": 3}]
    )
    return f"{key} {files.config[key]}"


def lie(source: random.Random, files: Files) -> str | None:
    key, value = source.choice(_LIES)
    if key == "init_lora_weights" and key not in files.config:
        return None
    files.config[key] = value
    return f"{key} {value}"


MUTATIONS: tuple[Mutation, ...] = (
    insert_a_wrapper, remove_the_first_part, remove_the_prefix, name_the_adapter_inside, leave_tensors_out,
    leave_a_layer_out, call_it_another_module, copy_to_another_layer, add_a_weight_of_the_base,
    add_a_stranger, change_a_shape, swap_two_sides, cast, target_others, target_others, exclude,
    choose_layers, save_modules, train_tokens, change_a_number, switch, lose_a_field, set_patterns, lie,
)  # fmt: skip
