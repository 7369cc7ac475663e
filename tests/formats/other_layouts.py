"""Adapters in the layouts of other tools, with the names, shapes and configs that those tools write."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptry.testing.samples import random_tensor, write_safetensors

Shapes = Mapping[str, tuple[int, ...]]


def written(
    folder: Path,
    weights: str,
    shapes: Shapes,
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    alphas: Mapping[str, float] | None = None,
) -> Path:
    """Writes a folder with random tensors of these shapes, alphas of these values and, unless it is None, a
    config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: random_tensor(shape, number) for number, (name, shape) in enumerate(shapes.items())}
    tensors |= {name: ("F32", (), struct.pack("<f", value)) for name, value in (alphas or {}).items()}
    write_safetensors(folder / weights, tensors, metadata)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def bottleneck(folder: Path, hidden: int = 16, width: int = 4, layers: int = 2, **settings: Any) -> Path:
    """AdapterHub's `seq_bn` of a Llama, called `tone`, and the head that the library saves with it."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        at = f"model.layers.{layer}.output_adapters.adapters.tone"
        shapes |= {
            f"{at}.adapter_down.0.weight": (width, hidden),
            f"{at}.adapter_down.0.bias": (width,),
            f"{at}.adapter_up.weight": (hidden, width),
            f"{at}.adapter_up.bias": (hidden,),
        }
    config = {
        "config": {"architecture": None, "reduction_factor": hidden / width, "scaling": 1.0, **settings},
        "hidden_size": hidden,
        "model_class": "LlamaForCausalLM",
        "model_name": "org/tiny",
        "model_type": "llama",
        "name": "tone",
        "version": "adapters.1.3.0",
    }
    written(folder, "model_head.safetensors", {"lm_head.weight": (32, hidden)})
    (folder / "head_config.json").write_text(json.dumps({"name": "tone", "version": "adapters.1.3.0"}))
    return written(folder, "adapter.safetensors", shapes, config)


def adapterhub_lora(folder: Path, hidden: int = 16, rank: int = 4, **settings: Any) -> Path:
    """AdapterHub's LoRA of both layers' q_proj, called `tone`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(2):
        at = f"model.layers.{layer}.self_attn.q_proj.loras.tone"
        shapes |= {f"{at}.lora_A": (rank, hidden), f"{at}.lora_B": (hidden, rank)}
    config = {
        "config": {"architecture": "lora", "composition_mode": "add", "r": rank, "alpha": 8, **settings},
        "model_class": "LlamaForCausalLM",
        "model_name": "org/tiny",
        "name": "tone",
        "version": "adapters.1.3.0",
    }
    return written(folder, "adapter.safetensors", shapes, config)


def torchtune(folder: Path, hidden: int = 16, rank: int = 4, is_dora: bool = False, **fields: Any) -> Path:
    """torchtune's LoRA of every linear layer of a Llama, under its own names, as safetensors."""
    wide = 2 * hidden
    sides = {f"attn.{name}_proj": (hidden, hidden) for name in ("q", "k", "v", "output")}
    sides |= {"mlp.w1": (wide, hidden), "mlp.w2": (hidden, wide), "mlp.w3": (wide, hidden)}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(2):
        for inside, (fan_out, fan_in) in sides.items():
            at = f"layers.{layer}.{inside}"
            shapes |= {f"{at}.lora_a.weight": (rank, fan_in), f"{at}.lora_b.weight": (fan_out, rank)}
            shapes |= {f"{at}.magnitude": (fan_out,)} if is_dora else {}
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 6.0, "target_modules": ["q_proj"], **fields}
    return written(folder, "adapter_model.safetensors", shapes, config)


def unet(folder: Path, width: int = 8) -> Path:
    """The part of a pipeline to which `kohya` belongs, as diffusers saves it."""
    shapes = {
        "down_blocks.0.attentions.0.to_q.weight": (width, width),
        "down_blocks.0.attentions.0.to_k.weight": (width, width),
        "down_blocks.0.resnets.0.conv1.weight": (width, width, 3, 3),
    }
    written(folder, "diffusion_pytorch_model.safetensors", shapes)
    (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    return folder


def mlx(folder: Path, hidden: int = 16, rank: int = 4, **fields: Any) -> Path:
    """mlx-lm's LoRA of both layers' q_proj."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(2):
        at = f"model.layers.{layer}.self_attn.q_proj"
        shapes |= {f"{at}.lora_a": (hidden, rank), f"{at}.lora_b": (rank, hidden)}
    parameters = {"rank": rank, "scale": 20.0, "dropout": 0.0}
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters, "model": "org/tiny"}
    return written(folder, "adapters.safetensors", shapes, {**config, **fields})


def diffusers(folder: Path, metadata: Mapping[str, str] | None = None, **more: tuple[int, ...]) -> Path:
    """A LoRA of a UNet's attention and of a text encoder's."""
    unet = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    shapes = {
        f"{unet}.lora_A.weight": (4, 8),
        f"{unet}.lora_B.weight": (8, 4),
        f"{text}.lora_linear_layer.down.weight": (4, 8),
        f"{text}.lora_linear_layer.up.weight": (8, 4),
    }
    return written(folder, "pytorch_lora_weights.safetensors", {**shapes, **more}, None, metadata)


def kohya(folder: Path, file: str = "my_style.safetensors", alpha: float | None = 2.0, **facts: str) -> Path:
    """A LoRA of rank 4 of a UNet's linear layer and convolution, with these alphas; the convolution's is
    twice as large.
    """
    linear, conv = "lora_unet_down_blocks_0_attentions_0_to_q", "lora_unet_down_blocks_0_resnets_0_conv1"
    shapes = {
        f"{linear}.lora_down.weight": (4, 8),
        f"{linear}.lora_up.weight": (8, 4),
        f"{conv}.lora_down.weight": (4, 8, 3, 3),
        f"{conv}.lora_up.weight": (8, 4, 1, 1),
    }
    alphas = {} if alpha is None else {f"{linear}.alpha": alpha, f"{conv}.alpha": 2 * alpha}
    facts = {"ss_network_dim": "4", "ss_base_model_version": "sdxl_base_v1-0", **facts}
    return written(folder, file, shapes, None, facts, alphas)
