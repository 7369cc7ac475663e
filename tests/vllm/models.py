"""A model that is small enough to be started often, adapters that change its output, and PEFT's results with
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from adaptry.testing.samples import tiny_lora

PROMPT = "Once upon a time"
HIDDEN = 128


def model(folder: Path, *, hidden: int = HIDDEN, seed: int = 0, positions: int = 64) -> Path:
    """A Llama with random weights, large enough that its choices are clear; its tokens are bytes."""
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=258, max_position_embeddings=positions, tie_word_embeddings=False, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


def adapter(folder: Path, *, hidden: int = HIDDEN, seed: int = 1, rank: int = 4, **options: object) -> Path:
    """A LoRA that changes its model's output."""
    return tiny_lora(
        folder,
        hidden=hidden,
        seed=seed,
        rank=rank,
        alpha=200 * rank,
        **options,  # type: ignore[arg-type]
    )


def saved_by_peft(base: Path, folder: Path, **options: object) -> Path:
    """An untrained LoRA as PEFT saves it."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    fields: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **options}
    config = LoraConfig(**fields)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def said(base: Path, adapter: Path | None, tokens: int = 12, prompt: str = PROMPT) -> list[float]:
    """The logprobs of the tokens that transformers and PEFT choose greedily in float32."""
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, str(adapter))
    return _chosen(loaded, base, tokens, prompt)


def said_together(base: Path, adapters: Sequence[Path], weights: Sequence[float]) -> list[float]:
    """Like `said`, with PEFT's weighted sum of the adapters' updates."""
    names = [f"adapter-{number}" for number in range(len(adapters))]
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(loaded, str(adapters[0]), adapter_name=names[0])
    for name, folder in zip(names[1:], adapters[1:], strict=True):
        model.load_adapter(str(folder), adapter_name=name)
    model.add_weighted_adapter(names, list(weights), "together", combination_type="cat")
    model.set_adapter("together")
    return _chosen(model, base, 12, PROMPT)


def _chosen(model: Any, base: Path, tokens: int, prompt: str) -> list[float]:
    """(`Any`: transformers is not typed.)"""
    words = PreTrainedTokenizerFast.from_pretrained(base)
    ids = words(prompt, return_tensors="pt").input_ids
    found: list[float] = []
    with torch.no_grad():
        for _ in range(tokens):
            odds = torch.log_softmax(model(ids).logits[0, -1], -1)
            chosen = odds.argmax()
            found.append(float(odds[chosen]))
            ids = torch.cat([ids, chosen.view(1, 1)], dim=1)
    return found
