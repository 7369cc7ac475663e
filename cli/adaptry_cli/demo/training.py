"""Real LoRA training with PEFT, small enough for two cores: about half a minute for each adapter."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress
from adaptry_cli.demo.batches import ExampleBatch, Model, Tokenizer, encode
from adaptry_cli.demo.dependencies import quiet_libraries
from adaptry_cli.demo.evaluation import evaluate, load
from adaptry_cli.demo.model import BASE
from adaptry_cli.demo.tasks import DemoTask, Example

_BATCH = 8
_WARM_UP = 0.1


@dataclass(frozen=True, slots=True)
class LoraTraining:
    """The settings of a training run: the LoRA's shape, and the number of steps. A step is one batch of 8
    examples.
    """

    rank: int
    alpha: int
    targets: tuple[str, ...]
    steps: int
    layers: tuple[int, ...] = tuple(range(15, 30))  # the upper half: backward passes end there
    learning_rate: float = 2e-3
    seed: int = 0


# The adapters of the demo: two shapes of LoRA, and a second version of the first that is trained for longer.
PACKAGE_FIRST = LoraTraining(rank=8, alpha=16, targets=("q_proj", "v_proj"), steps=12)
PACKAGE_SECOND = LoraTraining(rank=8, alpha=16, targets=("q_proj", "v_proj"), steps=28, seed=1)
SUMMARY = LoraTraining(rank=16, alpha=24, targets=("q_proj", "k_proj", "v_proj", "o_proj"), steps=12)


@dataclass(frozen=True, slots=True)
class DemoAdapter:
    """A trained adapter: its folder, and the task's metric without and with it."""

    folder: Path
    base_metric: float
    adapter_metric: float
    seconds: float


def train(
    model_dir: Path,
    task: DemoTask,
    out_dir: Path,
    tuning: LoraTraining,
    label: str,
    progress: Progress,
    base_metric: float | None = None,
) -> DemoAdapter:
    """Trains an adapter, writes its folder, and evaluates it; also the base if `base_metric` is None. `label`
    is the adapter's name in progress messages.
    """
    began = time.monotonic()
    model, tokenizer = load(model_dir)
    before = evaluate(model, tokenizer, task, "the base", progress) if base_metric is None else base_metric
    with quiet_libraries():
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(tuning.seed)
            model = _with_lora(model, tuning)
        _fit(model, list(_batches(tokenizer, task.train, tuning)), tuning, progress, f"training {label}")
        # PEFT would ask the hub about the base's vocabulary to decide this.
        model.save_pretrained(str(out_dir), save_embedding_layers=False)
    after = evaluate(model.eval(), tokenizer, task, label, progress)
    return DemoAdapter(out_dir, before, after, time.monotonic() - began)


def _with_lora(model: Model, tuning: LoraTraining) -> Model:
    from peft import LoraConfig, get_peft_model

    model.name_or_path = BASE  # PEFT writes this into the config: a name, and not a folder of this machine
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        target_modules=list(tuning.targets),
        layers_to_transform=list(tuning.layers),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _fit(
    model: Model, batches: Sequence[ExampleBatch], tuning: LoraTraining, progress: Progress, text: str
) -> None:
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=tuning.learning_rate, weight_decay=0.0)
    model.train()
    for step, batch in enumerate(batches):
        done = (step + 1) / len(batches)
        optimizer.param_groups[0]["lr"] = tuning.learning_rate * min(done / _WARM_UP, 1.05 - done)
        loss = batch.losses(model).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own omission
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress(f"{text}, loss {float(loss):.2f}", step + 1, len(batches))


def _batches(
    tokenizer: Tokenizer, examples: Sequence[Example], tuning: LoraTraining
) -> Iterator[ExampleBatch]:
    """One batch per step. Each pass over the examples is in a new random order."""
    shuffle = random.Random(tuning.seed)
    batches: list[list[Example]] = []
    for _ in range(tuning.steps):
        if not batches:
            batches = list(_alike(shuffle.sample(examples, len(examples))))
            shuffle.shuffle(batches)
        yield encode(tokenizer, batches.pop(), end=True)


def _alike(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Batches of examples with similar lengths: this needs less padding and a third less time."""
    pool = 8 * _BATCH
    for start in range(0, len(examples), pool):
        by_length = sorted(examples[start : start + pool], key=lambda one: len(one.prompt + one.completion))
        yield from (by_length[at : at + _BATCH] for at in range(0, len(by_length), _BATCH))
