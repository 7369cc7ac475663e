"""Whole weights of one input with updates of others: PEFT loads every tensor of the result, with the same
effects as in the inputs.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from adaptry import open_dir
from adaptry.compute.combining.combine import build_combined_adapter
from adaptry.compute.combining.plan import plan_combination
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.recipes.combine import CombineRecipe, ModuleOverride
from adaptry.compute.recipes.merge import RecipeInput
from adaptry.core.errors import CheckFailed

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WHOLE: Mapping[str, dict[str, Any]] = {
    "all biases": {"bias": "all"},
    "biases of adapted modules": {"bias": "lora_only"},
    "a module": {"modules_to_save": ["o_proj"]},
    "a module with others inside": {"modules_to_save": ["mlp"]},
    "a head": {"modules_to_save": ["lm_head"]},
    "norms": {"modules_to_save": ["norm"]},
    "rows of the embedding": {"trainable_token_indices": [1, 5]},
}

SAVED: Mapping[str, tuple[str, ...]] = {
    "a module": ("o_proj",),
    "a module with others inside": MODULES[4:],
    "a head": ("lm_head",),
    "rows of the embedding": ("embed_tokens",),
}
WEIGHTS = (0.7, -0.4)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "vocab_size": 20, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=2, attention_bias=True, tie_word_embeddings=False)
    return LlamaForCausalLM(config)


def trained(model: nn.Module, folder: Path, modules: Sequence[str], **told: Any) -> ParentAdapter:
    """An adapter saved by PEFT, all of whose trained parameters are random."""
    config = LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, target_modules=list(modules), **told)
    adapted = get_peft_model(copy.deepcopy(model), config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    adapted.save_pretrained(folder)
    return ParentAdapter(open_dir(folder), folder.name)


def changes(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """The change of each parameter after PEFT merged the adapter, every tensor of which it must load."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        loaded = PeftModel.from_pretrained(copy.deepcopy(model).double(), folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    assert not set_peft_model_state_dict(loaded, tensors).unexpected_keys
    before = dict(model.named_parameters())
    merged = loaded.merge_and_unload().named_parameters()
    return {name: after.detach() - before[name].double() for name, after in merged}


def combined(parents: Sequence[ParentAdapter], weights: Sequence[float], target: Path, **words: Any) -> None:
    inputs = tuple(
        RecipeInput(source=parent.label, weight=weight)
        for parent, weight in zip(parents, weights, strict=True)
    )
    recipe = CombineRecipe(inputs=inputs, **words)
    write_adapter(build_combined_adapter(plan_combination(recipe, parents)), target)


def expected(model: nn.Module, parents: Sequence[ParentAdapter], folder: Path) -> dict[str, Tensor]:
    """The weighted sum of the updates, with the unchanged whole weights of the input `whole`."""
    weight = dict(zip((parent.label for parent in parents), WEIGHTS, strict=True))
    made = {label: changes(model, folder / label) for label in weight}
    kept = {extra.target for extra in open_dir(folder / "whole").spec.extras}
    return {
        name: made["whole"][name]
        if name in kept
        else sum(weight[label] * made[label][name] for label in made)
        for name in made["whole"]
    }


def assert_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name, change in wanted.items():
        torch.testing.assert_close(
            found[name], change, rtol=1e-5, atol=1e-6, msg=lambda text, at=name: f"{at}: {text}"
        )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", WHOLE)
def test_peft_loads_every_whole_weight_beside_updates_of_other_inputs(
    model: nn.Module, tmp_path: Path, kind: str, seed: int
) -> None:
    chance = random.Random(f"{kind} {seed}")
    torch.manual_seed(seed)
    saved = SAVED.get(kind, ())
    free = [name for name in (*MODULES, "lm_head", "embed_tokens") if name not in saved]
    first = [name for name in free if name in MODULES]
    parents = [
        trained(model, tmp_path / "whole", chance.sample(first, 2), **WHOLE[kind]),
        trained(model, tmp_path / "plain", chance.sample(free, 4)),
    ]
    parents = parents if chance.random() < 0.5 else parents[::-1]

    combined(parents, WEIGHTS, tmp_path / "out", whole_weights="whole")

    assert_same(changes(model, tmp_path / "out"), expected(model, parents, tmp_path))


@pytest.mark.parametrize("kind", SAVED)
def test_an_update_of_a_module_that_is_saved_whole_is_refused_with_remedies(
    model: nn.Module, tmp_path: Path, kind: str
) -> None:
    """PEFT would silently ignore the update, or fail for trained rows."""
    torch.manual_seed(1)
    parents = [
        trained(model, tmp_path / "plain", ["q_proj", SAVED[kind][-1]]),
        trained(model, tmp_path / "whole", ["v_proj"], **WHOLE[kind]),
    ]

    with pytest.raises(
        CheckFailed, match=rf"whole has whole weights for .*{SAVED[kind][-1]}.*--whole-weights none"
    ):
        combined(parents, WEIGHTS, tmp_path / "out", whole_weights="whole")

    combined(parents, WEIGHTS, tmp_path / "without", whole_weights="none")
    found, plain = changes(model, tmp_path / "without"), changes(model, tmp_path / "plain")
    both = expected(model, parents, tmp_path)
    kept = {extra.target for extra in open_dir(tmp_path / "whole").spec.extras}
    assert_same(found, {name: WEIGHTS[0] * plain[name] if name in kept else both[name] for name in both})
    override = ModuleOverride(match=SAVED[kind][-1], weights={"plain": 0})
    combined(parents, WEIGHTS, tmp_path / "with", whole_weights="whole", modules=(override,))
    assert_same(changes(model, tmp_path / "with"), both)


def test_a_bias_stays_when_only_its_module_loses_its_update(model: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(2)
    parents = [
        trained(model, tmp_path / "plain", ["q_proj"]),
        trained(model, tmp_path / "whole", ["q_proj", "v_proj"], bias="all"),
    ]
    override = ModuleOverride(match="v_proj", weights={"whole": 0})

    combined(parents, WEIGHTS, tmp_path / "out", modules=(override,))

    found, whole = changes(model, tmp_path / "out"), changes(model, tmp_path / "whole")
    biases = {name: change for name, change in whole.items() if name.endswith("bias")}
    assert len(biases) == 8 and all(change.any() for change in biases.values())
    assert_same(found, biases)


@pytest.mark.parametrize("layers", [0, [1], []])
def test_modules_of_layers_that_no_input_changes_get_no_update(
    model: nn.Module, tmp_path: Path, layers: object
) -> None:
    """A single layer may be layer 0."""
    torch.manual_seed(3)
    parents = [
        trained(model, tmp_path / "whole", ["q_proj"], layers_to_transform=layers),
        trained(model, tmp_path / "plain", ["v_proj"]),
    ]

    combined(parents, WEIGHTS, tmp_path / "out")

    assert_same(changes(model, tmp_path / "out"), expected(model, parents, tmp_path))
