"""A training that pushes its checkpoints, and a model that loads the released version.

    python training.py

Needs transformers and PEFT; the model is tiny and created here, so it runs in seconds and learns nothing
useful.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

import adaptry
from adaptry.training import AdaptryCallback, checkpoints


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("ADAPTRY_HOME", place)
        run(Path(place))


def run(place: Path) -> None:
    registry = adaptry.connect(str(place / "registry"))
    base().save_pretrained(place / "base")
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(place / "base"),
        peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )

    callback = AdaptryCallback(
        registry, "acme/tone", run="first", keep_last=2, best=("eval_loss", "min"), alias="staging"
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(place / "out"), max_steps=8, save_steps=2, eval_strategy="steps", eval_steps=2,
        learning_rate=0.05, report_to=[], use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    transformers.Trainer(
        model=model, args=arguments, train_dataset=Counting(), eval_dataset=Counting(), callbacks=[callback]
    ).train()

    for kept in checkpoints(registry, "acme/tone"):
        print(f"{kept.ref}: eval_loss {kept.metrics['eval_loss']:.3f}")
    print(f"released {callback.released}")

    fresh = transformers.AutoModelForCausalLM.from_pretrained(place / "base")
    placed = adaptry.load("acme/tone@staging", registry=registry, into=fresh)
    prompt = torch.tensor([[1, 2, 3]])
    same = torch.equal(placed.model(input_ids=prompt).logits, model.eval()(input_ids=prompt).logits)
    print(f"a fresh model with {callback.released} answers as the trained one: {same}")


class Counting(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Rows of consecutive numbers."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = (torch.arange(12) + index) % 32
        return {"input_ids": row, "labels": row}


def base() -> Any:
    """(`Any`: transformers is not typed.)"""
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, vocab_size=32,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
