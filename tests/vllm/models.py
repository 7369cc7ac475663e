"""A model small enough to be started often, adapters for it that say something else, and what PEFT makes of
them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from adaptry.testing.samples import tiny_lora

PROMPT = "Once upon a time"
HIDDEN = 128


def model(folder: Path, *, hidden: int = HIDDEN, seed: int = 0) -> Path:
    """A Llama of random weights, large enough that it says one thing rather than another; its tokens are
    bytes.
    """
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=258, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.2,
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
    """A LoRA that changes what its model says."""
    return tiny_lora(folder, hidden=hidden, seed=seed, rank=rank, alpha=200 * rank, **options)  # type: ignore[arg-type]


def said(base: Path, adapter: Path | None, tokens: int = 12, prompt: str = PROMPT) -> list[float]:
    """The logprobs of what transformers, and PEFT, choose greedily in float32."""
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, str(adapter))
    words = PreTrainedTokenizerFast.from_pretrained(base)
    ids = words(prompt, return_tensors="pt").input_ids
    found: list[float] = []
    with torch.no_grad():
        for _ in range(tokens):
            odds = torch.log_softmax(loaded(ids).logits[0, -1], -1)
            chosen = odds.argmax()
            found.append(float(odds[chosen]))
            ids = torch.cat([ids, chosen.view(1, 1)], dim=1)
    return found
