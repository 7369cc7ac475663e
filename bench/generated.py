"""The model and adapter that benches use: real shapes, random values.

    python bench/generated.py [--folder .bench] [--layers 24]

A Llama of hidden size 2048 in bfloat16 (1.2 billion parameters at 24 layers, 2.4 GB in three files), and a
LoRA of rank 16 in fp32 on all its linear layers. Existing files are reused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HIDDEN, WIDE, KEYS, VOCABULARY, RANK, SHARDS = 2048, 5632, 512, 32_000, 16, 3
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (WIDE, HIDDEN),
    "mlp.up_proj": (WIDE, HIDDEN),
    "mlp.down_proj": (HIDDEN, WIDE),
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
ADAPTER = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": RANK,
    "lora_alpha": 2 * RANK,
    "target_modules": sorted(name.rpartition(".")[2] for name in LINEAR),
}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Generated:
    """The folders of a base and its adapter."""

    base: Path
    adapter: Path


def asked_of(doc: str, *, has_brief: bool = False) -> argparse.Namespace:
    """`folder`, which is made, `layers` and `rounds`, from the command line of a bench on this model."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument(
        "--folder", type=lambda text: Path(text).absolute(), default=Path(".bench").absolute()
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    if has_brief:
        parser.add_argument("--brief", action="store_true", help="only what `table.py` shows")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    return asked


def generated(folder: Path, layers: int, *, is_sparse: bool = False) -> Generated:
    """A base with this many layers and its adapter, created unless they exist. Sparse files have the size,
    hold zeros, and take no space.
    """
    made = Generated(folder / f"base-{layers}", folder / f"adapter-{layers}")
    if not (made.adapter / "adapter_config.json").exists():  # written last
        _write_base(made.base, layers, is_sparse=is_sparse)
        _write_adapter(made.adapter, layers, is_sparse=is_sparse)
    return made


def _write_base(folder: Path, layers: int, *, is_sparse: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.{name}.weight": shape for name, shape in LINEAR.items()}
        shapes |= {
            f"{at}.{name}.weight": (HIDDEN,) for name in ("input_layernorm", "post_attention_layernorm")
        }
    shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}
    names = list(shapes)
    places: dict[str, str] = {}
    for number in range(SHARDS):
        part = names[number * len(names) // SHARDS : (number + 1) * len(names) // SHARDS]
        file = f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"
        _write_weights(folder / file, {name: shapes[name] for name in part}, "BF16", is_sparse=is_sparse)
        places |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}, indent=2))


def _write_adapter(folder: Path, layers: int, *, is_sparse: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {
        f"base_model.model.model.layers.{layer}.{name}.{factor}.weight": shape
        for layer in range(layers)
        for name, (fan_out, fan_in) in LINEAR.items()
        for factor, shape in (("lora_A", (RANK, fan_in)), ("lora_B", (fan_out, RANK)))
    }
    _write_weights(folder / "adapter_model.safetensors", shapes, "F32", is_sparse=is_sparse)
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER, indent=2, sort_keys=True))


def _write_weights(path: Path, shapes: Shapes, dtype: str, *, is_sparse: bool) -> None:
    width = 2 if dtype == "BF16" else 4
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        size = int(np.prod(shape)) * width
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    values = _values()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if is_sparse:
            file.truncate(8 + len(text) + position)
            return
        for number, shape in enumerate(shapes.values()):
            for part in _slices(values, number, int(np.prod(shape))):
                file.write(
                    part.tobytes() if dtype == "F32" else (part.view(np.uint32) >> 16).astype("<u2").tobytes()
                )


def _values() -> NDArray[np.float32]:
    """Normal values of the magnitude of weights; each tensor begins at another position."""
    return np.random.default_rng(0).standard_normal(1 << 24, np.float32) * np.float32(0.02)


def _slices(values: NDArray[np.float32], number: int, count: int) -> Iterator[NDArray[np.float32]]:
    at = number * 1_000_003 % len(values)
    while count:
        part = values[at : at + count]
        yield part
        count -= len(part)
        at = 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=lambda text: Path(text).absolute(), default=Path(".bench").absolute()
    )
    parser.add_argument("--layers", type=int, default=24)
    asked = parser.parse_args()
    print(generated(asked.folder, asked.layers).base)
