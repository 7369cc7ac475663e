"""Runs in a separate environment with mlx-lm: makes its adapters, and runs models with them.

python mlx_library.py make FOLDER                   each model and way to train: FOLDER/<model>[-<way>]
python mlx_library.py answers MODEL ADAPTER…        a line of JSON: each adapter's logits and scales
python mlx_library.py fused MODEL ADAPTER…          mlx_lm.fuse of each: ADAPTER/fused.safetensors
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import llama, mixtral
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2,
    "vocab_size": 64, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
}  # fmt: skip
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (llama, {**SIZES, "model_type": "llama"}),
    "mixtral": (
        mixtral,
        {**SIZES, "model_type": "mixtral", "num_local_experts": 3, "num_experts_per_tok": 2},
    ),
}
RANK = {"rank": 4, "scale": 20.0, "dropout": 0.0}
WAYS: dict[str, dict[str, Any]] = {
    "lora": {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": RANK},
    "last": {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": {**RANK, "scale": 2.0}},
    "dora": {"fine_tune_type": "dora", "num_layers": 2, "lora_parameters": RANK},
    "embedded": {
        "fine_tune_type": "lora", "num_layers": 2,
        "lora_parameters": {**RANK, "keys": ["self_attn.q_proj", "model.embed_tokens"]},
    },
}  # fmt: skip


def model_of(kind: str) -> Any:
    mx.random.seed(0)
    module, fields = MODELS[kind]
    return module.Model(module.ModelArgs.from_dict(fields))


def make(folder: Path) -> None:
    for kind, (_, fields) in MODELS.items():
        base = folder / kind
        base.mkdir()
        weights = dict(tree_flatten(model_of(kind).parameters()))
        mx.save_safetensors(str(base / "model.safetensors"), weights, {"format": "mlx"})
        (base / "config.json").write_text(json.dumps(fields))
        for way, config in WAYS.items():
            if kind == "llama" or way != "dora":  # mlx-lm has no DoRA of experts
                trained(kind, config, folder / f"{kind}-{way}")


def trained(kind: str, config: dict[str, Any], folder: Path) -> None:
    """An adapter as mlx_lm.lora writes it, with random factors."""
    model = model_of(kind)
    model.freeze()
    is_dora = config["fine_tune_type"] == "dora"
    linear_to_lora_layers(model, config["num_layers"], config["lora_parameters"], use_dora=is_dora)
    factors = [
        (name, mx.random.normal(value.shape) * 0.1 if "lora" in name else value + 0.1)
        for name, value in tree_flatten(model.trainable_parameters())
    ]
    model.update(tree_unflatten(factors))
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(factors))
    (folder / "adapter_config.json").write_text(json.dumps({**config, "model": f"org/{kind}", "iters": 1}))


def answers(kind: str, adapter: str) -> dict[str, Any]:
    """The logits and scales; if mlx-lm refuses the file, only its message."""
    try:
        model = load_adapters(model_of(kind), adapter)
    except ValueError as error:
        return {"refused": str(error)[:400]}
    model.eval()
    scales = {name: module.scale for name, module in model.named_modules() if hasattr(module, "lora_a")}
    return {"scales": scales, "logits": model(mx.arange(1, 9)[None]).tolist()}


def fused(kind: str, adapter: Path) -> None:
    """Fuses like mlx_lm.fuse."""
    model = load_adapters(model_of(kind), str(adapter))
    layers = [(name, module.fuse()) for name, module in model.named_modules() if hasattr(module, "fuse")]
    model.update_modules(tree_unflatten(layers))
    mx.save_safetensors(str(adapter / "fused.safetensors"), dict(tree_flatten(model.parameters())))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder]:
            make(Path(folder))
        case ["answers", kind, *those]:
            print(json.dumps([answers(kind, adapter) for adapter in those]))
        case ["fused", kind, *those]:
            for adapter in those:
                fused(kind, Path(adapter))
