"""Measures a model on a task: one number, by the same code for a base, an adapter and a merged model.

`label` is the model's name in progress messages: the base, package v1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from adaptry.core.progress import Progress, no_progress
from adaptry_cli.demo.batches import Model, Tokenizer, encode
from adaptry_cli.demo.dependencies import quiet_libraries
from adaptry_cli.demo.tasks import DemoTask, Example

_BATCH = 20
_MAX_THREADS = 8  # on matrices this small, more threads only wait for each other


def load(folder: Path, adapter: Path | None = None) -> tuple[Model, Tokenizer]:
    """A checkpoint in float32 (fastest on CPUs), with a PEFT adapter on it if one is given."""
    with quiet_libraries():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(min(torch.get_num_threads(), _MAX_THREADS))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
        return model.eval(), tokenizer


def measure(
    folder: Path, task: DemoTask, label: str, adapter: Path | None = None, progress: Progress = no_progress
) -> float:
    """The task's metric for a checkpoint on disk, alone or with an adapter."""
    return evaluate(*load(folder, adapter), task, label, progress)


def evaluate(
    model: Model, tokenizer: Tokenizer, task: DemoTask, label: str, progress: Progress = no_progress
) -> float:
    """The task's metric on its held-out examples: accuracy from 0 to 1, or perplexity per token."""
    import torch

    examples = sorted(task.held_out, key=lambda one: len(one.prompt) + len(one.completion))
    scores: list[float] = []
    with quiet_libraries(), torch.inference_mode():
        for start in range(0, len(examples), _BATCH):
            progress(f"evaluating {label} on {task.name}", start, len(examples))
            scores += _scores(model, tokenizer, task, examples[start : start + _BATCH])
    progress(f"evaluating {label} on {task.name}", len(examples), len(examples))
    mean = sum(scores) / len(scores)
    return mean if task.metric == "accuracy" else math.exp(mean)


def _scores(model: Model, tokenizer: Tokenizer, task: DemoTask, examples: Sequence[Example]) -> list[float]:
    """For each example, 1 if the answer is right and 0 if it is wrong; or the loss of each token of the
    answers.
    """
    batch = encode(tokenizer, examples)
    if not task.choices:
        return [float(loss) for loss in batch.losses(model)]
    firsts = [tokenizer(choice).input_ids[0] for choice in task.choices]
    # The first token of an answer is enough: no two choices begin with the same.
    guesses = batch.first_answer_logits(model)[:, firsts].argmax(dim=1)
    pairs = zip(guesses.tolist(), examples, strict=True)
    return [float(task.choices[guess] == one.completion) for guess, one in pairs]
