"""Runs in mistral.rs's environment: the engine on the CPU, and its output with each adapter.

`mistralrs_engine.py BASE PROMPTS ADAPTER…` (prompts: JSON) prints for the base and each adapter, a line each,
the log-probability of every token that may follow each prompt, or the error with which it is refused.
Adapters come and go as they do over its HTTP routes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["MISTRALRS_CPU_KV_F32"] = "1"  # its default rounds keys and values to half floats

from mistralrs import (
    ChatCompletionRequest,
    LoraAdapterError,
    ModelDType,
    Runner,
    Which,
)


def odds(runner: Runner, prompt: str, words: int, adapter: str | None) -> list[float]:
    """The log-probabilities, by token."""
    asked = ChatCompletionRequest(
        messages=prompt, model="default", max_tokens=1, temperature=0.0, logprobs=True, top_logprobs=words,
        adapter=adapter,
    )  # fmt: skip
    (first,) = runner.send_chat_completion_request(asked).choices[0].logprobs.content
    found = {one.token: one.logprob for one in first.top_logprobs}
    return [found[token] for token in range(words)]


def told(runner: Runner, prompts: list[str], words: int, adapter: str) -> dict[str, Any]:
    try:
        runner.load_lora_adapter("it", adapter)
    except LoraAdapterError as error:
        return {"refused": str(error)}
    answers = [odds(runner, prompt, words, "it") for prompt in prompts]
    runner.unload_lora_adapter("it")
    return {"odds": answers}


def main(base: str, prompts: str, *adapters: str) -> None:
    words = json.loads((Path(base) / "config.json").read_text())["vocab_size"]
    asked = json.loads(prompts)
    runner = Runner(Which.Lora(model_id=base, dtype=ModelDType.F32, adapters=[]))
    print(json.dumps({"odds": [odds(runner, prompt, words, None) for prompt in asked]}), flush=True)
    for adapter in adapters:
        print(json.dumps(told(runner, asked, words, adapter)), flush=True)


main(*sys.argv[1:])
