"""Computes mergekit's results for updates. mergekit merges whole models, so it gets each adapter's updates as
the weights of a model.

The base's weights are all 0, so that a model equals its updates and nothing is rounded. Mergekit 0.1.5 runs
in a separate environment (`make environments`); `python -m tests.combining.mergekit_library` prints the
contents of `mergekit_angles.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from adaptry.testing.samples import tiny_lora

from ..formats.other_environment import OtherEnvironment

MERGEKIT = OtherEnvironment("mergekit", "mergekit_elements.py")
HIDDEN = 8
TARGETS = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj")
ADAPTERS: dict[str, dict[str, Any]] = {
    "one": {"rank": 4, "alpha": 4000, "seed": 1},
    "two": {"rank": 2, "alpha": 3000, "seed": 2},
    "three": {"rank": 3, "alpha": 5000, "seed": 3, "targets": ("q_proj",)},
}
"""`three` has no update of v_proj."""

THREE = {"one": 1.0, "two": 0.5, "three": 2.0}
CASES: dict[str, tuple[str, dict[str, float], dict[str, Any]]] = {
    "slerp": ("slerp", {"one": 1.0, "two": 1.0}, {"t": 0.3}),
    "nuslerp": ("nuslerp", {"one": 0.4, "two": 1.2}, {}),
    "nuslerp with an absent update": ("nuslerp", {"one": 0.4, "three": 1.2}, {}),
    "nuslerp over rows": ("nuslerp", {"one": 0.4, "two": 1.2}, {"nuslerp_flatten": False}),
    "nuslerp over columns": (
        "nuslerp",
        {"one": 0.4, "three": 1.2},
        {"nuslerp_flatten": False, "nuslerp_row_wise": True},
    ),
    "multislerp": ("multislerp", THREE, {}),
    "multislerp as weighted": ("multislerp", THREE, {"normalize_weights": False}),
    "karcher": ("karcher", dict.fromkeys(THREE, 1.0), {}),
    "model_stock": ("model_stock", dict.fromkeys(THREE, 1.0), {}),
    "model_stock over rows": ("model_stock", dict.fromkeys(THREE, 1.0), {"filter_wise": True}),
}
"""mergekit's method, weights by adapter, mergekit's parameters."""


def adapters(folder: Path) -> dict[str, Path]:
    return {name: tiny_lora(folder / name, hidden=HIDDEN, layers=1, **how) for name, how in ADAPTERS.items()}


def updates(adapter: Path) -> dict[str, torch.Tensor]:
    """Δ of each module that the adapter has, by the weight's name; float32."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    fields = json.loads((adapter / "adapter_config.json").read_text())
    found = {}
    for module in TARGETS:
        key = f"base_model.model.{module}.lora"
        if f"{key}_A.weight" in tensors:
            product = tensors[f"{key}_B.weight"] @ tensors[f"{key}_A.weight"]
            found[f"{module}.weight"] = product * (fields["lora_alpha"] / fields["r"])
    return found


def answers(folder: Path, case: str) -> dict[str, torch.Tensor]:
    """The weights that mergekit makes in this case, of both modules."""
    method, weights, parameters = CASES[case]
    for number, name in enumerate(("base", *ADAPTERS)):
        _write_model(folder / f"model-{name}", number, {} if name == "base" else updates(folder / name))
    models = [
        {"model": str(folder / f"model-{name}"), "parameters": {"weight": weight}}
        for name, weight in weights.items()
    ]
    base = folder / ("model-base" if method != "slerp" else "model-one")
    recipe = {"merge_method": method, "models": models, "parameters": parameters, "dtype": "float32"}
    if method != "karcher":
        recipe["base_model"] = str(base)
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    output = folder / f"made-{case.replace(' ', '-')}"
    command = [MERGEKIT.python, "-m", "mergekit.scripts.run_yaml", str(folder / "recipe.yaml"), str(output)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    made = load_file(output / "model.safetensors")
    return {f"{module}.weight": made[f"{module}.weight"] for module in TARGETS}


def _write_model(folder: Path, seed: int, held: dict[str, torch.Tensor]) -> None:
    """A model whose targeted weights are the updates. The others differ between models, since mergekit stops
    at zeros.
    """
    wide, vocabulary = 2 * HIDDEN, 16
    block = "model.layers.0."
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, HIDDEN),
        **{f"{block}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"},
        f"{block}mlp.gate_proj.weight": (wide, HIDDEN),
        f"{block}mlp.up_proj.weight": (wide, HIDDEN),
        f"{block}mlp.down_proj.weight": (HIDDEN, wide),
        f"{block}input_layernorm.weight": (HIDDEN,),
        f"{block}post_attention_layernorm.weight": (HIDDEN,),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (vocabulary, HIDDEN),
    }
    generator = torch.Generator().manual_seed(seed)
    targeted = {f"{module}.weight" for module in TARGETS}
    tensors = {
        name: held.get(name, torch.zeros(shape))
        if name in targeted
        else torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": wide,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        adapters(folder)
        made = {
            case: {key: tensor.flatten().tolist() for key, tensor in answers(folder, case).items()}
            for case in CASES
        }
    rounded = {
        case: {key: [float(f"{value:.6g}") for value in values] for key, values in tensors.items()}
        for case, tensors in made.items()
    }
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
