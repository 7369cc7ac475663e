"""Runs in vLLM's environment, apart from ours: an offline engine, and its output with a model's adapters.

python vllm_library.py MODEL OPTIONS PROMPT ADAPTER…     a line of JSON: the logprobs of the tokens that the
    model chooses, then the same with each adapter, or the reason why it was refused. OPTIONS are JSON: the
    engine's arguments.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest


def main(model: str, options: str, prompt: str, *adapters: str) -> None:
    engine = LLM(
        model=model, enable_lora=True, max_lora_rank=16, max_model_len=64, max_num_seqs=2, dtype="float32",
        enforce_eager=True, disable_log_stats=True, **json.loads(options),
    )  # fmt: skip
    how = SamplingParams(temperature=0, max_tokens=12, logprobs=1, ignore_eos=True)

    def said(request: LoRARequest | None) -> list[float] | str:
        if request is not None:
            try:
                engine.llm_engine.add_lora(request)
            except Exception as error:  # noqa: BLE001  whatever it is refused with is the answer
                return str(error)
        (answer,) = engine.generate([prompt], how, lora_request=request, use_tqdm=False)
        chosen = answer.outputs[0]
        return [steps[token].logprob for token, steps in zip(chosen.token_ids, chosen.logprobs, strict=True)]

    requests = [LoRARequest(f"adapter-{number}", number, path) for number, path in enumerate(adapters, 1)]
    print(json.dumps([said(None), *map(said, requests)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
