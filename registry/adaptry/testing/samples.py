"""Small real bases and adapters, written by hand so that no test needs torch to have one.

The shapes, names and configs are those that PEFT 0.21 and transformers write for a Llama of the given size;
values are seeded. Tests that are about arithmetic use PEFT itself.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptry.adapters.header import DTYPE_BITS

Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]
"""Name → (dtype as safetensors names it, shape, little-endian bytes)."""

_MODULES = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "gate_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "down_proj": "mlp.down_proj",
}


def write_safetensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file with the tensors in the order given."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [position, position + len(data)],
        }
        position += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def random_tensor(
    shape: tuple[int, ...], seed: int, dtype: str = "F32", scale: float = 0.02
) -> tuple[str, tuple[int, ...], bytes]:
    """Seeded normal values of a given dtype (F32, F16 or BF16; BF16 by truncation)."""
    source = random.Random(seed)
    count = 1
    for dim in shape:
        count *= dim
    values = [source.gauss(0.0, scale) for _ in range(count)]
    match dtype:
        case "F32":
            data = struct.pack(f"<{count}f", *values)
        case "F16":
            data = struct.pack(f"<{count}e", *values)
        case "BF16":
            packed = struct.pack(f"<{count}f", *values)
            data = b"".join(packed[at + 2 : at + 4] for at in range(0, 4 * count, 4))
        case _:
            raise ValueError(f"no random values of {dtype}")
    assert len(data) * 8 == count * DTYPE_BITS[dtype]
    return dtype, shape, data


def tiny_base(
    folder: Path,
    *,
    hidden: int = 16,
    layers: int = 2,
    vocab: int = 32,
    dtype: str = "F32",
    seed: int = 0,
    shards: int = 1,
    tied: bool = False,
) -> Path:
    """A Llama-shaped checkpoint with `config.json`; loads in transformers. Returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    wide = 2 * hidden
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{at}.self_attn.{name}.weight"] = (hidden, hidden)
        shapes[f"{at}.mlp.gate_proj.weight"] = shapes[f"{at}.mlp.up_proj.weight"] = (wide, hidden)
        shapes[f"{at}.mlp.down_proj.weight"] = (hidden, wide)
        shapes[f"{at}.input_layernorm.weight"] = shapes[f"{at}.post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (vocab, hidden)
    tensors = {
        name: random_tensor(shape, seed * 1000 + number, dtype)
        for number, (name, shape) in enumerate(sorted(shapes.items()))
    }
    _write_shards(folder, tensors, shards)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": vocab,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "torch_dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def tiny_lora(
    folder: Path,
    *,
    hidden: int = 16,
    layers: int = 2,
    rank: int = 4,
    alpha: int = 8,
    targets: tuple[str, ...] = ("q_proj", "v_proj"),
    seed: int = 1,
    dtype: str = "F32",
    base_name: str = "org/tiny",
    config: Mapping[str, Any] | None = None,
    extra: Tensors | None = None,
) -> Path:
    """A LoRA folder as PEFT writes it for `tiny_base`; `config` adds or replaces fields, `extra` tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    wide = 2 * hidden
    widths = {"gate_proj": (hidden, wide), "up_proj": (hidden, wide), "down_proj": (wide, hidden)}
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for layer in range(layers):
        for number, target in enumerate(targets):
            fan_in, fan_out = widths.get(target, (hidden, hidden))
            key = f"base_model.model.model.layers.{layer}.{_MODULES[target]}"
            at = seed * 10_000 + layer * 100 + number * 2
            tensors[f"{key}.lora_A.weight"] = random_tensor((rank, fan_in), at, dtype)
            tensors[f"{key}.lora_B.weight"] = random_tensor((fan_out, rank), at + 1, dtype)
    write_safetensors(
        folder / "adapter_model.safetensors",
        dict(sorted({**tensors, **(extra or {})}.items())),
        {"format": "pt"},
    )
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "peft_version": "0.21.2",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": list(targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        **(config or {}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(fields, indent=2, sort_keys=True))
    return folder


def large_lora(folder: Path) -> Path:
    """An adapter of 12 MiB, so that it is uploaded file by file, in several chunks. It fits no base."""
    made = tiny_lora(folder)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    values = bytes(range(64)) * (6 << 14)  # no byte that would make a NaN
    write_safetensors(
        made / "adapter_model.safetensors",
        {
            f"{module}.lora_A.weight": ("F32", (4, 3 << 17), values),
            f"{module}.lora_B.weight": ("F32", (3 << 17, 4), values),
        },
    )
    return made


def _write_shards(folder: Path, tensors: Tensors, shards: int) -> None:
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
        return
    names = list(tensors)
    places: dict[str, str] = {}
    for number in range(shards):
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in part}, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    total = sum(len(data) for _, _, data in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2)
    )
