"""Compares two merged models: their weights bit by bit, and their logits for the same tokens."""

from __future__ import annotations

from pathlib import Path

from adaptry.core.lazy_dataclass import dataclass
from adaptry_cli.demo.dependencies import quiet_libraries
from adaptry_cli.demo.tasks import DemoTask


@dataclass(frozen=True, slots=True)
class PeftComparison:
    """The number of elements of the weights that differ, the number of all elements, and the largest
    difference of a logit.
    """

    different: int
    weights: int
    largest: float


def compare_with_peft(
    base: Path, adapter: Path, merged: Path, task: DemoTask, prompts: int = 4
) -> PeftComparison:
    """The checkpoint in `merged` against PEFT's `merge_and_unload` of the adapter, in the base's dtype."""
    with quiet_libraries():
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        ours = AutoModelForCausalLM.from_pretrained(merged, dtype="auto", local_files_only=True)
        ours.eval()  # type: ignore[no-untyped-call]  # transformers does not annotate it
        plain = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
        theirs = PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload().eval()
        expected = theirs.state_dict()
        different = weights = 0
        for name, weight in ours.named_parameters():  # yields a tied head only once
            different += int((weight != expected[name]).sum())
            weights += weight.numel()
        largest = 0.0
        with torch.inference_mode():
            for example in task.held_out[:prompts]:
                tokens = tokenizer(example.prompt, return_tensors="pt").input_ids
                difference = (ours(tokens).logits - theirs(tokens).logits).abs().max()
                largest = max(largest, float(difference))
    return PeftComparison(different, weights, largest)
