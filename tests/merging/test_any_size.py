"""Merges of layers of any size equal PEFT's bit by bit, even for sizes at which BLAS selects other
kernels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from tests.merging.one_layer import (  # noqa: E402  (needs torch)
    OneLayer,
    merged,
    model_of,
    save_adapter,
    save_base,
)

Draw = random.Random
LINEAR = {"target_modules": ["linear"]}
CONFIGS: dict[str, Callable[[Draw], Any]] = {
    "lora": lambda draw: peft.LoraConfig(
        r=draw.choice([1, 2, 7, 33, 192, 256]), lora_alpha=draw.choice([1, 3, 16]), **LINEAR
    ),
    "dora": lambda draw: peft.LoraConfig(r=draw.choice([1, 4, 64]), use_dora=True, **LINEAR),
    "loha": lambda draw: peft.LoHaConfig(r=draw.choice([1, 7, 64]), **LINEAR),
    "lokr": lambda draw: peft.LoKrConfig(
        r=draw.choice([1, 4, 100]), decompose_both=True, decompose_factor=draw.choice([2, 4, 8]), **LINEAR
    ),
    "vera": lambda draw: peft.VeraConfig(r=draw.choice([1, 16, 256]), **LINEAR),
    "hira": lambda draw: peft.HiraConfig(r=draw.choice([1, 7, 32]), **LINEAR),
    "delora": lambda draw: peft.DeloraConfig(r=draw.choice([1, 1, 7]), **LINEAR),
    "glora": lambda draw: peft.GloraConfig(
        r=draw.choice([1, 16]), config_A_B=draw.choice(["lora", "vector", "constant", "none"]), **LINEAR
    ),
    "gralora": lambda draw: peft.GraloraConfig(
        r=draw.choice([4, 32]), gralora_k=draw.choice([2, 4]), hybrid_r=draw.choice([0, 5]), **LINEAR
    ),
    "vblora": lambda draw: peft.VBLoRAConfig(
        r=draw.choice([1, 8]),
        topk=draw.choice([1, 2, 4]),
        vector_length=draw.choice([8, 32]),
        save_only_topk_weights=draw.random() < 0.5,
        **LINEAR,
    ),
    "ia3": lambda draw: peft.IA3Config(feedforward_modules=draw.choice([[], ["linear"]]), **LINEAR),
    "tinylora": lambda draw: peft.TinyLoraConfig(r=draw.choice([1, 2, 4]), u=draw.choice([4, 8]), **LINEAR),
}
THIN = (1, 2, 5, 7, 8, 11, 12, 15, 16)
THICK = (24, 32, 33, 64, 96, 100, 256, 384, 1024)
DTYPES = (torch.float32, torch.float32, torch.float16, torch.bfloat16)
LAYERS = 12


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Uses one thread, as in a merge: with several threads, BLAS divides products differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGS)
def test_a_merge_into_a_layer_of_any_size_equals_pefts(method: str, tmp_path: Path) -> None:
    draw, compared = random.Random(method), 0
    for number in range(20 * LAYERS):
        sides = draw.choice(THIN + THICK), draw.choice(THIN + THICK)
        folder = tmp_path / str(number)
        torch.manual_seed(number)
        base = save_base(OneLayer(*sides).to(draw.choice(DTYPES)), folder / "base")
        try:
            adapter = save_adapter(model_of(base), CONFIGS[method](draw), folder / "adapter")
            theirs = peft.PeftModel.from_pretrained(model_of(base), adapter).merge_and_unload()
        except (ValueError, RuntimeError):
            continue  # PEFT cannot make such an adapter of this layer
        if torch.equal(theirs.linear.weight, model_of(base).linear.weight):
            continue  # GLoRA without a path to the weight, which no merge accepts
        ours = merged(base, [adapter], folder / "merged")["linear.weight"]
        assert torch.equal(ours, theirs.linear.weight), (sides, ours.dtype)
        compared += 1
        if compared == LAYERS:
            break
    assert compared == LAYERS
