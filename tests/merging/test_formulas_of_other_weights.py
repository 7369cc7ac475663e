"""Embeddings, norms, biases and saved weights, merged by compiled code to the same bits as by torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.kernels import choose_kernels
from adaptry.compute.merging.merge import plan_recipe

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from tests.merging.one_layer import (  # noqa: E402  (needs torch)
    merged,
    recipe_of,
    save_adapter,
    save_base,
    sources_of,
    weights_of,
)

ROWS, WIDTH = 3001, 96  # several blocks


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(ROWS, WIDTH)
        self.linear = torch.nn.Linear(WIDTH, WIDTH)
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.head = torch.nn.Linear(WIDTH, ROWS, bias=False)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.embed


CASES: dict[str, Callable[[], Any]] = {
    "lora of an embedding": lambda: peft.LoraConfig(r=7, lora_alpha=5, target_modules=["embed"]),
    "loras of ends": lambda: peft.LoraConfig(r=7, target_modules=["embed", "head"]),
    "lora with a bias": lambda: peft.LoraConfig(r=7, lora_bias=True, target_modules=["linear"]),
    "saved weights": lambda: peft.LoraConfig(
        r=7, target_modules=["linear"], modules_to_save=["head", "norm"]
    ),
    "tokens": lambda: peft.LoraConfig(
        r=7, target_modules=["linear"], trainable_token_indices={"embed": [2999, 5, 3]}
    ),
    "only tokens": lambda: peft.TrainableTokensConfig(target_modules=["embed"], token_indices=[2999, 5, 3]),
    "norms": lambda: peft.LNTuningConfig(target_modules=["norm"]),
    "ia3 with a bias": lambda: peft.IA3Config(target_modules=["linear"], feedforward_modules=[]),
    "ia3 of inputs": lambda: peft.IA3Config(target_modules=["linear"], feedforward_modules=["linear"]),
    "beft": lambda: peft.BeftConfig(target_modules=["linear"]),
}  # fmt: skip


@pytest.fixture(scope="module", params=["bfloat16", "float16", "float32"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return Model().to(getattr(torch, request.param))


@pytest.mark.parametrize("case", CASES)
def test_weights_beside_matrices_are_merged_to_the_same_bits_as_by_torch(
    model: Any, case: str, tmp_path: Path
) -> None:
    base = save_base(model, tmp_path / "base")
    copy = Model().to(model.linear.weight.dtype)
    copy.load_state_dict(model.state_dict())
    adapter = save_adapter(copy, CASES[case](), tmp_path / "adapter")
    plan = plan_recipe(recipe_of([adapter]), open_checkpoint(base), sources_of([adapter]))
    assert choose_kernels().names_for(plan.changed_tensors) == ("llvm",)

    compiled = merged(base, [adapter], tmp_path / "compiled")
    reference = merged(base, [adapter], tmp_path / "torch", kernel="torch")

    assert {name: weight.view(torch.uint8).tolist() for name, weight in compiled.items()} == {
        name: weight.view(torch.uint8).tolist() for name, weight in reference.items()
    }
    before = weights_of(base)
    assert any(not torch.equal(weight, before[name]) for name, weight in compiled.items())
