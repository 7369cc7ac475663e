"""Further random mutations: errors that trainers, older versions of PEFT and mixed-up folders leave in
files.
"""

from __future__ import annotations

import random
import re

import torch

from .mutations import PREFIX, Files, Mutation

_FIELDS_OF_PEFT_0_5 = (
    *("auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode"),
    *("init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout"),
    *("modules_to_save", "peft_type", "r", "revision", "target_modules", "task_type"),
)
_LAYER = re.compile(r"\.(layers?|h|block|blocks)\.(\d+)\.")
_WRAPPERS_INSIDE = ("_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod", "module")
_OLD_SPELLINGS = (
    (".lora_magnitude_vector.weight", ".lora_magnitude_vector"),
    (".lora_A.weight", ".lora_down.weight"),
    (".lora_B.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_A"),
    (".lora_embedding_A", ".lora_A.weight"),
    (".lora_A.weight", ".lora_embedding_A"),
    (".weight", ".default.weight"),
)


def write_as_peft_0_5(source: random.Random, files: Files) -> str | None:
    if files.config.get("peft_type") != "LORA":
        return None
    files.config = {key: value for key, value in files.config.items() if key in _FIELDS_OF_PEFT_0_5}
    return "only the fields of PEFT 0.5"


def spell_as_of_old(source: random.Random, files: Files) -> str | None:
    old, new = source.choice(_OLD_SPELLINGS)
    names = [name for name in files.tensors if name.endswith(old)]
    if source.random() < 0.3:
        names = names[: len(names) // 2]
    chosen = set(names)
    files.tensors = {
        name.removesuffix(old) + new if name in chosen else name: value
        for name, value in files.tensors.items()
    }
    return f"{old} spelled {new} in {len(names)} names" if names else None


def leave_wrappers_inside(source: random.Random, files: Files) -> str | None:
    word = source.choice(_WRAPPERS_INSIDE)
    names = {name for name in files.tensors if _LAYER.search(name)}
    files.tensors = {
        _LAYER.sub(rf".\1.\2.{word}.", name, count=1) if name in names else name: value
        for name, value in files.tensors.items()
    }
    return f"{word} after the layer in {len(names)} names" if names else None


def leave_layers_out(source: random.Random, files: Files) -> str | None:
    lost = source.choice(["0", "1"])
    names = [name for name in files.tensors if (found := _LAYER.search(name)) and found[2] == lost]
    for name in names:
        del files.tensors[name]
    return f"without the layers {lost}" if names and files.tensors else None


def add_deeper_layers(source: random.Random, files: Files) -> str | None:
    """Adds layers, as from a model of the same width with twice as many layers."""
    found = {
        name: match for name in files.tensors if (match := _LAYER.search(name)) and match[2] in ("0", "1")
    }
    for name, match in found.items():
        deeper = f"{name[: match.start(2)]}{int(match[2]) + 2}{name[match.end(2) :]}"
        files.tensors[deeper] = files.tensors[name].clone()
    return "with layers 2 and 3 too" if found else None


def widen(source: random.Random, files: Files) -> str | None:
    """Widens tensors, as from a model of another width."""
    wide = {
        name: torch.cat([value, value], value.shape.index(max(value.shape)))
        for name, value in files.tensors.items()
        if value.dim() and max(value.shape) >= 16
    }
    files.tensors |= wide
    return f"{len(wide)} tensors of twice the width" if wide else None


def change_values(source: random.Random, files: Files) -> str | None:
    """Changes factors to values that no training produces, or only one that diverged."""
    value = source.choice([0.0, 0.0, float("nan"), float("inf"), 1e-40])
    end = source.choice(["lora_A.weight", "lora_B.weight", ""])
    names = [name for name in files.tensors if name.endswith(end)]
    if source.random() < 0.6:
        names = source.sample(names, min(len(names), source.choice([1, 2])))
    for name in names:
        if files.tensors[name].is_floating_point():
            files.tensors[name] = torch.full_like(files.tensors[name], value)
    return f"{len(names)} tensors ({end or 'any'}) all {value}" if names else None


def add_bias_factors(source: random.Random, files: Files) -> str | None:
    names = [name for name in files.tensors if name.endswith(".lora_B.weight")]
    for name in names:
        files.tensors[name.removesuffix("weight") + "bias"] = torch.randn(files.tensors[name].shape[0])
    if names and source.random() < 0.5:
        files.config["lora_bias"] = True
        return "lora_bias and its biases"
    return "biases of lora_B without lora_bias" if names else None


def add_magnitudes(source: random.Random, files: Files) -> str | None:
    names = [name for name in files.tensors if name.endswith(".lora_B.weight")]
    if not names or any("magnitude" in name for name in files.tensors):
        return None
    size = source.choice(["as many", "one more", "one row"])
    for name in names:
        rows = files.tensors[name].shape[0]
        shape = {"as many": [rows], "one more": [rows + 1], "one row": [1, rows]}[size]
        files.tensors[name.replace(".lora_B.", ".lora_magnitude_vector.")] = torch.rand(shape) + 0.5
    files.config["use_dora"] = source.random() < 0.7
    return f"magnitudes of {size} rows, use_dora {files.config['use_dora']}"


def lose_magnitudes(source: random.Random, files: Files) -> str | None:
    names = [name for name in files.tensors if "magnitude" in name]
    for name in names:
        del files.tensors[name]
    return "without magnitudes" if names and files.tensors else None


def mistype_patterns(source: random.Random, files: Files) -> str | None:
    listed = files.config.get("target_modules")
    name = source.choice(listed) if isinstance(listed, list) and listed else "q_proj"
    if "rank_pattern" not in files.config or "alpha_pattern" not in files.config:
        return None
    paths = [name.removeprefix(PREFIX).split(".lora_")[0] for name in files.tensors if ".lora_" in name]
    path = source.choice(paths) if paths else name
    key = source.choice(
        [
            *(f"{name[:-1]}x", f"{PREFIX}{path}", path, f"model.{path}", f".*{name}", f"^{path}$"),
            *(f"{path}.weight", name.upper(), f".{name}", f"{name}|foo", f"[{name}"),
            path.replace(".0.", r".\d+."),
        ]
    )
    field = source.choice(["rank_pattern", "alpha_pattern"])
    files.config[field] = {key: files.config.get("r", 4) if source.random() < 0.5 else 6}
    return f"{field} {files.config[field]}"


def save_the_ends(source: random.Random, files: Files) -> str | None:
    """Adds embeddings or heads to the file, of the base's size or with added tokens, as trainers save
    them.
    """
    tables = [
        name
        for name, value in files.base.items()
        if name.endswith(".weight") and value.dim() == 2 and value.shape[0] == 96
    ]
    added = source.choice([0, 0, 8, -8])
    names = tables if source.random() < 0.5 else source.sample(tables, min(1, len(tables)))
    for name in names:
        rows = files.base[name].shape[0] + added
        files.tensors[PREFIX + name] = torch.randn(rows, files.base[name].shape[1])
    if names and source.random() < 0.5:
        files.config["modules_to_save"] = [name.split(".")[-2] for name in names]
    if names and source.random() < 0.3:
        files.config["ensure_weight_tying"] = True
    return (
        f"{', '.join(names)} with {added} more rows, saved {files.config.get('modules_to_save')}"
        if names
        else None
    )


def save_a_tied_head(source: random.Random, files: Files) -> str | None:
    table = next((value for name, value in files.base.items() if "embed" in name or "wte" in name), None)
    if table is None or table.dim() != 2:
        return None
    files.config["modules_to_save"] = ["lm_head"]
    files.tensors[f"{PREFIX}lm_head.weight"] = torch.randn(table.shape)
    return "a head saved whole"


def ask_for_another_task(source: random.Random, files: Files) -> str | None:
    if any(name.startswith("net.") for name in files.base):
        return None  # not a model of transformers
    generating = ["CAUSAL_LM", "SEQ_2_SEQ_LM"] if files.config.get("task_type") != "SEQ_CLS" else []
    others = ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"]
    files.config["task_type"] = source.choice([*others, *generating])
    return f"task_type {files.config['task_type']}"


def start_from_the_base(source: random.Random, files: Files) -> str | None:
    """Sets an initialisation that changes the base, without the factors from before training."""
    if "init_lora_weights" not in files.config:
        return None
    files.config["init_lora_weights"] = source.choice(
        ["pissa_niter_4", "corda", "eva", "loftq", "gaussian", "orthogonal", "lora_ga", "mini_init", False]
    )
    return f"init_lora_weights {files.config['init_lora_weights']}"


def train_with_dropout(source: random.Random, files: Files) -> str | None:
    if "lora_dropout" not in files.config:
        return None
    files.config["lora_dropout"] = source.choice([0.05, 0.1])
    return f"lora_dropout {files.config['lora_dropout']}"


def mix_two_runs(source: random.Random, files: Files) -> str | None:
    """Changes the rank of factors in the file, or in half of it, so that it differs from the config's."""
    names = [name for name in files.tensors if name.endswith((".lora_A.weight", ".lora_B.weight"))]
    half = source.random() < 0.5
    done = 0
    for name in names:
        if half and ".0." not in name:
            continue
        dim = 0 if name.endswith(".lora_A.weight") else 1
        files.tensors[name] = torch.cat([files.tensors[name]] * 2, dim)
        done += 1
    return f"{done} factors of twice the rank" if done else None


TRAINER_EDITS: tuple[Mutation, ...] = (
    write_as_peft_0_5, spell_as_of_old, spell_as_of_old, leave_wrappers_inside, leave_layers_out,
    add_deeper_layers, widen, change_values, change_values, add_bias_factors, add_magnitudes, lose_magnitudes,
    mistype_patterns, mistype_patterns, save_the_ends, save_the_ends, save_a_tied_head, ask_for_another_task,
    start_from_the_base, mix_two_runs, train_with_dropout,
)  # fmt: skip
