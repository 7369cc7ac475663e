"""A model of one linear layer, its adapters as PEFT saves them, and merges of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.kernels import choose_kernels
from adaptry.compute.merging.merge import MergeOptions, MergeSource, merge, plan_recipe
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput


class OneLayer(torch.nn.Module):
    def __init__(self, fan_out: int, fan_in: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(fan_in, fan_out, bias=False)


def save_base(model: torch.nn.Module, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "tall"}))
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def model_of(base: Path) -> OneLayer:
    weight = weights_of(base)["linear.weight"]
    model = OneLayer(*weight.shape).to(weight.dtype)
    model.load_state_dict({"linear.weight": weight})
    return model


def save_adapter(model: torch.nn.Module, config: Any, folder: Path) -> Path:
    """Saves an adapter of the model with non-trivial numbers. (`Any`: PEFT is not typed.)"""
    torch.manual_seed(1)
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "magnitude" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder)
    path = folder / "adapter_config.json"  # PEFT names the test's class, which cannot be imported
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_mapping": None}))
    return folder


def sources_of(adapters: list[Path]) -> list[MergeSource]:
    return [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, adapter.name)) for adapter in adapters]


def recipe_of(adapters: list[Path], dtype: str | None = None) -> MergeRecipe:
    inputs = tuple(RecipeInput(source=adapter.name) for adapter in adapters)
    return MergeRecipe(base="base", inputs=inputs, dtype=dtype)


def merged(
    base: Path, adapters: list[Path], target: Path, *, kernel: str = "auto", dtype: str | None = None
) -> dict[str, torch.Tensor]:
    """The merged weights by name."""
    options = MergeOptions(kernel=kernel)
    merge(recipe_of(adapters, dtype), open_checkpoint(base), sources_of(adapters), target, options)
    return weights_of(target)


def kernels_of(base: Path, adapter: Path) -> tuple[str, ...]:
    """The names of the kernels that merge this adapter."""
    plan = plan_recipe(recipe_of([adapter]), open_checkpoint(base), sources_of([adapter]))
    return choose_kernels().names_for(plan.changed_tensors)
