"""Runs in vLLM's environment: the engine on the CPU, and its output with each adapter.

`vllm_engine.py BASE PROMPTS ADAPTER…` (prompts: JSON, lists of token ids) prints for the base and each
adapter, a line each, the log-probability of every token that may follow each prompt, or the error it is
refused with.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest


def odds(engine: LLM, prompts: list[list[int]], words: int, adapter: LoRARequest | None) -> list[list[float]]:
    """The log-probabilities, by prompt and token."""
    how = SamplingParams(temperature=0, max_tokens=1, logprobs=words, ignore_eos=True, detokenize=False)
    asked = [{"prompt_token_ids": prompt} for prompt in prompts]
    answers = engine.generate(asked, how, lora_request=adapter, use_tqdm=False)
    return [[answer.outputs[0].logprobs[0][word].logprob for word in range(words)] for answer in answers]


def told(
    engine: LLM, prompts: list[list[int]], words: int, number: int, adapter: str
) -> tuple[dict[str, Any], bool]:
    """The answer, and whether the engine continues: a server's engine ends if it fails at a request."""
    request = LoRARequest(str(number), number, adapter)
    try:
        engine.llm_engine.add_lora(request)
    except Exception as error:  # noqa: BLE001  whatever it is refused with is the answer
        return {"refused": f"{type(error).__name__}: {error}", "when": "load"}, True
    try:
        found = odds(engine, prompts, words, request)
    except Exception as error:  # noqa: BLE001
        return {"refused": f"{type(error).__name__}: {error}", "when": "request"}, False
    engine.llm_engine.remove_lora(number)
    return {"odds": found}, True


def main(base: str, prompts: str, *adapters: str) -> None:
    words = json.loads((Path(base) / "config.json").read_text())["vocab_size"]
    engine = LLM(
        model=base, enable_lora=True, max_loras=1, max_cpu_loras=1, max_lora_rank=16, max_model_len=32,
        max_num_seqs=4, dtype="float32", enforce_eager=True, disable_log_stats=True, max_logprobs=words,
        skip_tokenizer_init=True, enable_prefix_caching=False,
    )  # fmt: skip
    asked = json.loads(prompts)
    print(json.dumps({"odds": odds(engine, asked, words, None)}), flush=True)
    for number, adapter in enumerate(adapters, 1):
        answer, goes_on = told(engine, asked, words, number, adapter)
        print(json.dumps(answer), flush=True)
        if not goes_on:
            return


main(*sys.argv[1:])
