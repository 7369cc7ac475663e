"""Folders that a real Trainer and PEFT wrote: what `inspect_folder` shows, and what `import_folder` makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import load_file

import adaptry


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Sixteen rows of consecutive numbers."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = (torch.arange(12) + index) % 32
        return {"input_ids": row, "labels": row}


def test_the_output_of_a_trainer_becomes_versions_in_the_order_of_its_steps(tmp_path: Path) -> None:
    """The checkpoints at 4, 8 and 12 would be in another order by name. The best one is loaded at the end."""
    model = lora(tmp_path / "base")
    model.save_pretrained(tmp_path / "runs" / "untrained")
    trainer = train(model, tmp_path / "runs" / "tone")
    trainer.save_model(str(tmp_path / "runs" / "tone"))
    best = Path(str(trainer.state.best_model_checkpoint))

    scan = adaptry.inspect_folder(tmp_path / "runs")

    assert [(one.path.name, one.step, one.updates_are_zero) for one in scan.adapters] == [
        ("tone", None, False),
        ("checkpoint-4", 4, False),
        ("checkpoint-8", 8, False),
        ("checkpoint-12", 12, False),
        ("untrained", None, True),
    ]
    equal = [one for one in scan.adapters if one.same_weights_as is not None]
    assert [(one.path.name, one.has_same_config) for one in equal] == [(best.name, True)]
    with adaptry.connect(tmp_path / "registry") as registry:
        done = adaptry.import_folder(registry, tmp_path / "runs", to="acme")
        assert not done.failures
        (base,) = done.bases
        assert base.name == str(tmp_path / "base") and base.adapters == 4 and not base.is_registered
        made = [one for one in done.versions if one.version and one.version.name.name == "tone"]
        others = [each for each in (4, 8, 12) if best.name != f"checkpoint-{each}"]
        assert [one.planned.adapter.step for one in made] == [*others, None]
        newest = load_file(tmp_path / "runs" / "tone" / "adapter_model.safetensors")
        stored = adaptry.load("acme/tone", registry=registry)
        assert all(torch.equal(stored[name], tensor) for name, tensor in newest.items())
        logged = {(one.metric, one.step): one.value for one in adaptry.evidence(registry, "acme/tone@1")}
        (loss,) = (
            entry["eval_loss"]
            for entry in trainer.state.log_history
            if entry["step"] == others[0] and "eval_loss" in entry
        )
        assert logged["eval_loss", others[0]] == loss


def lora(base: Path) -> Any:
    """A LoRA on a tiny model that is saved in `base`. (`Any`: transformers is not typed.)"""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=32, max_position_embeddings=32,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(base)
    model = transformers.LlamaForCausalLM.from_pretrained(base)
    targets = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(model, targets)


def train(model: Any, folder: Path) -> transformers.Trainer:
    """Trains for twelve steps, saved after every fourth one. (`Any`: transformers is not typed.)"""
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=12, save_steps=4, eval_steps=4, eval_strategy="steps",
        logging_steps=4, per_device_train_batch_size=4, learning_rate=0.05, report_to=[], use_cpu=True,
        disable_tqdm=True, load_best_model_at_end=True, metric_for_best_model="eval_loss",
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=Rows(), eval_dataset=Rows()
    )  # fmt: skip
    trainer.train()
    return trainer
