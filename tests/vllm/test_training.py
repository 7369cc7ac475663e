"""Train, push, serve: vLLM answers with what the training's callback pushed, and with what `adaptry.push`
pushes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import adaptry
from adaptry.training import AdaptryCallback

from . import models, running
from .conftest import Place
from .running import Vllm
from .test_resolver import close_to, logprobs

transformers = pytest.importorskip("transformers", reason="its trainer trains here")
pytestmark = running.PYTHON.marks


def test_what_was_trained_here_is_pushed_and_served(place: Place, vllm: Vllm, tmp_path: Path) -> None:
    """The base is named by the path of its folder alone, as trainers write it into the config."""
    import peft
    import torch

    base = transformers.AutoModelForCausalLM.from_pretrained(place.base, dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    callback = AdaptryCallback(place.registry, "acme/trained", run="first", alias="prod")
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=4, save_steps=4, learning_rate=0.05, report_to=[],
        use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    transformers.Trainer(model=model, args=arguments, train_dataset=Counting(), callbacks=[callback]).train()
    model.save_pretrained(tmp_path / "trained")

    answer = vllm.complete("acme/trained@prod", models.PROMPT)

    assert logprobs(answer) == close_to(models.said(place.base, tmp_path / "trained"))
    assert logprobs(answer) != close_to(models.said(place.base, None))
    pushed = adaptry.push(place.registry, adaptry.open_dir(tmp_path / "trained"), "acme/by-hand")
    assert logprobs(vllm.complete("acme/by-hand", models.PROMPT)) == close_to(logprobs(answer))
    assert pushed.version.base_status == "verified"


class Counting:
    """Rows that count on from anywhere. (`Any`: tensors.)"""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch

        row = (torch.arange(12) + index) % 250
        return {"input_ids": row, "labels": row}
