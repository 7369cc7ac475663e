"""Randomly generated adapters for engines: a random LoRA of the base saved by PEFT, with random mutations.

The mutations are those of the property test (`tests.methods.mutations`). An engine may still understand names
or lists that a mutation hides from PEFT, so each adapter comes with the intended one: the same tensors under
their names, selected by the config as PEFT wrote it.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file

from ...methods.mutations import MUTATIONS, Files
from ...methods.peft_comparison import write
from ..cases import ALL, ATTENTION, CASES, Base, made, saved_fields

_TARGETS: tuple[Any, ...] = (
    *[ALL] * 6, *[ATTENTION] * 2, ["q_proj", "v_proj"], ["gate_proj", "up_proj", "down_proj"],
    "all-linear", r".*\.(?:[qkvo]|gate|up|down)_proj", r"model\.layers\.1\..*_proj", [*ALL, "lm_head"],
    [*ALL, "embed_tokens"], ["embed_tokens"], ["o_proj", "down_proj"], ["model.layers.0.self_attn.q_proj"],
)  # fmt: skip
_OPTIONS: tuple[Mapping[str, Any], ...] = (
    {"use_rslora": True},
    {"use_rslora": True, "rank_pattern": {"o_proj": 3}},
    {"rank_pattern": {"q_proj": 4, r".*layers\.1\.mlp\.up_proj": 2}},
    {"alpha_pattern": {"v_proj": 3}},
    {"rank_pattern": {"o_proj": 4}, "alpha_pattern": {"o_proj": 8}},
    {"use_dora": True},
    {"bias": "lora_only"},
    {"bias": "all"},
    {"lora_bias": True},
    {"modules_to_save": ["lm_head"]},
    {"modules_to_save": ["embed_tokens", "norm"]},
    {"trainable_token_indices": [1, 5, 3]},
    {"layers_to_transform": [1]},
    {"layers_to_transform": 0, "layers_pattern": "layers"},
    {"exclude_modules": ["o_proj"]},
    {"init_lora_weights": "gaussian"},
    {"init_lora_weights": "pissa"},
    {"init_lora_weights": "olora"},
)
_OTHERS: tuple[tuple[type[Any], Mapping[str, Any]], ...] = (
    (peft.LoHaConfig, {"r": 2, "alpha": 4, "target_modules": ALL}),
    (peft.LoKrConfig, {"r": 2, "alpha": 4, "target_modules": ALL}),
    (peft.IA3Config, {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    (peft.OFTConfig, {"oft_block_size": 8, "target_modules": ["q_proj", "o_proj"]}),
    (peft.VeraConfig, {"r": 4, "target_modules": ["q_proj"]}),
)
_SELECTING = (
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias",
    "trainable_token_indices", "task_type", "peft_type", "target_parameters", "init_lora_weights",
)  # fmt: skip
"""Fields that say where the tensors go, or how they began; an engine that looks at the file needs none."""

_RANKS = ("r", "rank_pattern")
"""Fields that say what the tensors' own shapes say."""


@dataclass(frozen=True)
class Specimen:
    """One adapter. `meant`: folders of the intended adapters, nearest first; `done`: its mutations."""

    name: str
    folder: Path
    meant: tuple[Path, ...]
    done: str


def named(base: Base, folder: Path) -> list[Specimen]:
    """The variants that have a name."""
    found = []
    for name, case in CASES.items():
        made(base, case, folder / name)
        meant = (folder / case.as_of,) if case.as_of else ()
        found.append(Specimen(name, folder / name, meant, name))
    return found


def generated(
    base: Base, seed: int, folder: Path, targets: Callable[[random.Random], Any] | None = None
) -> Specimen | None:
    """None if PEFT cannot make such an adapter, or if none of its tensors is left. `targets` chooses the
    modules of a LoRA.
    """
    source = random.Random(seed)
    kind, fields = _random_config(source)
    if targets and kind is peft.LoraConfig:
        fields["target_modules"] = targets(random.Random(seed))
    options = kind, fields
    saved = _saved(base, options, seed, folder / f"{seed} saved")
    if saved is None:
        return None
    tensors = load_file(saved / "adapter_model.safetensors")
    config = saved_fields(saved)
    files = Files(dict(tensors), copy.deepcopy(config), load_file(base.folder / "model.safetensors"))
    origins = {name: name for name in files.tensors}
    done = [_described(options)]
    for _ in range(source.choice([0, 1, 1, 1, 1, 2])):
        before = {id(value): name for name, value in files.tensors.items()}
        kept = list(files.tensors.values())  # so that no id is given again
        said = source.choice(MUTATIONS)(source, files)
        origins = {
            name: origins.get(before.get(id(value), name), name) for name, value in files.tensors.items()
        }
        del kept
        done += [said] if said else []
    if not files.tensors:
        return None
    adapter = write(folder / f"{seed}", files.tensors, files.config)
    restored = {**{key: value for key, value in files.config.items() if key not in _SELECTING}}
    restored |= {key: config[key] for key in _SELECTING if key in config}
    ranked = {**restored, **{key: config[key] for key in _RANKS if key in config}}
    old_names = _under(origins, files.tensors)
    intended = [(old_names, fields) for fields in (restored, ranked, config)]
    if old_names.keys() != files.tensors.keys():
        # Factors under another module's name belong to that module if PEFT loads them there.
        intended.insert(0, (files.tensors, restored))
    meant = tuple(
        write(folder / f"{seed} meant {number}", names, fields)
        for number, (names, fields) in enumerate(intended)
    )
    return Specimen(str(seed), adapter, meant, "; ".join(done))


def _under(origins: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under their former names; if two have the same one, the second keeps its new name."""
    found: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        old = origins[name]
        found[name if old in found else old] = value
    return found


def _random_config(source: random.Random) -> tuple[type[Any], dict[str, Any]]:
    if source.random() < 0.05:
        kind, fields = source.choice(_OTHERS)
        return kind, dict(fields)
    fields = {
        "r": source.choice([1, 2, 4, 8, 8, 16, 16, 24]),
        "lora_alpha": source.choice([8, 8, 11, 16, 32, 6.5]),
        "target_modules": source.choice(_TARGETS),
        "task_type": source.choice(["CAUSAL_LM", None]),
    }
    if source.random() < 0.4:
        fields |= source.choice(_OPTIONS)
    return peft.LoraConfig, fields


def _described(options: tuple[type[Any], dict[str, Any]]) -> str:
    kind, fields = options
    said = {key: value for key, value in fields.items() if key not in ("task_type",)}
    return f"{kind.__name__.removesuffix('Config')} {said}"


def _saved(base: Base, options: tuple[type[Any], dict[str, Any]], seed: int, folder: Path) -> Path | None:
    kind, fields = options
    torch.manual_seed(seed)
    with warnings.catch_warnings(action="ignore"):
        try:
            tuned = peft.get_peft_model(copy.deepcopy(base.model), kind(**copy.deepcopy(fields)))
        except (ValueError, TypeError, LookupError, AttributeError):
            return None
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if parameter.requires_grad and "lora_magnitude" not in name:
                    parameter += torch.randn_like(parameter) * 0.1
        tuned.save_pretrained(str(folder))
    return folder
