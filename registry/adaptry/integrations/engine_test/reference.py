"""The reference: PEFT's logprobs of the next token, on the CPU in float32, with and without an adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adaptry.core.errors import CheckFailed, MissingDependency
from adaptry.integrations.engine_test.verdict import Logprobs


class ReferenceLogprobs:
    """The logprobs of every token after one prompt, each a float32 tensor of vocabulary size. (`Any`: torch
    tensors.)
    """

    def __init__(self, base: Any, trained: Any) -> None:
        self._base, self._trained = base, trained

    def base(self, tokens: Sequence[int]) -> Logprobs:
        return {token: float(self._base[token]) for token in tokens}

    def trained(self, tokens: Sequence[int]) -> Logprobs:
        return {token: float(self._trained[token]) for token in tokens}


def compute_reference(base: Path, adapter: Path, prompts: Sequence[str]) -> Iterator[ReferenceLogprobs]:
    """One result for each prompt. Raises `MissingDependency` without PEFT, `CheckFailed` if PEFT cannot load
    the adapter, or if the base lacks a token of the engine.
    """
    try:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingDependency("a probe compares with PEFT: pip install 'adaptry[probe]'") from error
    try:
        words = AutoTokenizer.from_pretrained(base, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
        peft = PeftModel.from_pretrained(model, str(adapter))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckFailed(f"PEFT does not load {adapter} on {base}: {error}") from error
    peft.eval()

    def odds(ids: Any) -> Any:
        return torch.log_softmax(peft(**ids).logits[0, -1].float(), -1)

    for prompt in prompts:
        ids = words(prompt, return_tensors="pt")
        with torch.no_grad():
            trained = odds(ids)
            with peft.disable_adapter():
                yield ReferenceLogprobs(odds(ids), trained)
