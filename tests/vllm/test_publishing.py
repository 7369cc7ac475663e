"""RL training with a real vLLM: after each publication, its output equals PEFT's for the current policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adaptry.integrations.rl import Publisher
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engines import EngineClient
from adaptry.integrations.serving.engines import vllm as engines

from . import models, vllm_server
from .conftest import Place
from .vllm_server import Vllm

pytestmark = vllm_server.PYTHON.marks


def test_vllm_answers_with_each_published_version(place: Place, vllm: Vllm, tmp_path: Path) -> None:
    import peft
    import torch
    import transformers

    folder = models.adapter(tmp_path / "policy", seed=21)
    base = transformers.AutoModelForCausalLM.from_pretrained(place.base, dtype=torch.float32)
    policy: Any = peft.PeftModel.from_pretrained(base, folder, is_trainable=True)
    engine = engines.Vllm(EngineClient(vllm.url))
    publisher = Publisher(place.registry, "acme/policy", engines=[engine], cache=Cache(tmp_path / "cache"))
    for step in range(3):
        with torch.no_grad():
            for name, value in policy.named_parameters():
                if "lora_B" in name:
                    value += torch.randn(value.shape) * 0.2
        published = publisher.publish(policy, step)
        publisher.drain(timeout=60)
        policy.save_pretrained(tmp_path / f"step-{step}")
        answer = vllm.complete(published.model, models.PROMPT)
        told = answer.body["choices"][0]["logprobs"]["token_logprobs"]
        assert told == pytest.approx(models.said(place.base, tmp_path / f"step-{step}"), abs=2e-4)
        assert [name for name in vllm.names() if name.startswith("acme/policy")] == [published.model]
