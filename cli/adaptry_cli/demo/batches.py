"""Examples as tensors, padded on the left so that all answers end in the last column.

Then only the last columns need logits: the vocabulary's matrix is a fifth of this model's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adaptry.core.lazy_dataclass import dataclass
from adaptry_cli.demo.tasks import Example

if TYPE_CHECKING:
    from torch import Tensor

Model = Any  # a transformers or PEFT model; neither has a type for the called methods
Tokenizer = Any  # transformers' tokenizers are untyped


@dataclass(frozen=True, slots=True)
class ExampleBatch:
    """`ids` and `mask` are examples × tokens; `answers` is examples × the longest answer, -100 where none."""

    ids: Tensor
    mask: Tensor
    answers: Tensor

    def logits(self, model: Model) -> Tensor:
        """The model's logits at each column of `answers`: examples × longest answer × vocabulary."""
        # One more than the answer: each token is predicted at the column before it.
        keep = self.answers.shape[1] + 1
        predicted: Tensor = model(
            input_ids=self.ids, attention_mask=self.mask, logits_to_keep=keep, use_cache=False
        ).logits
        return predicted[:, :-1]

    def first_answer_logits(self, model: Model) -> Tensor:
        """The model's logits where each answer begins: examples × vocabulary."""
        begins = (self.answers != -100).int().argmax(dim=1)
        return self.logits(model)[range(len(begins)), begins]

    def losses(self, model: Model) -> Tensor:
        """The loss of each token of every answer, in one row."""
        from torch.nn.functional import cross_entropy

        is_answer = self.answers != -100
        return cross_entropy(self.logits(model)[is_answer], self.answers[is_answer], reduction="none")


def encode(tokenizer: Tokenizer, examples: Sequence[Example], end: bool = False) -> ExampleBatch:
    """Prompts and answers; with `end`, an answer includes the token that ends a text (for training)."""
    import torch

    last = [tokenizer.eos_token_id] if end else []
    prompts = [tokenizer(one.prompt).input_ids for one in examples]
    answers = [tokenizer(one.completion).input_ids + last for one in examples]
    rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    width, longest = max(map(len, rows)), max(map(len, answers))
    return ExampleBatch(
        ids=torch.tensor([_padded(row, width, tokenizer.pad_token_id) for row in rows]),
        mask=torch.tensor([_padded([1] * len(row), width, 0) for row in rows]),
        answers=torch.tensor([_padded(answer, longest, -100) for answer in answers]),
    )


def _padded(row: list[int], width: int, filler: int) -> list[int]:
    return [filler] * (width - len(row)) + row
