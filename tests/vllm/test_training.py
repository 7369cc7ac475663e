"""Train, push, serve: vLLM serves what the training callback, `adaptry.push` and Hub clients pushed, once the
base is registered.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import adaptry
from adaptry.core.refs import Ref
from adaptry.training import AdaptryCallback
from adaptry_api.testing import until

from . import models, vllm_server
from .conftest import Place
from .test_resolver import close_to, logprobs
from .vllm_server import Answer, Vllm

transformers = pytest.importorskip("transformers", reason="its trainer trains here")
pytestmark = vllm_server.PYTHON.marks


def test_a_training_run_is_pushed_and_served(place: Place, vllm: Vllm, tmp_path: Path) -> None:
    """The base is named only by the path of its folder, as trainers write it into the config."""
    import peft
    import torch

    base = transformers.AutoModelForCausalLM.from_pretrained(place.base, dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    callback = AdaptryCallback(place.registry, "acme/trained", run="first", alias="prod")
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=4, save_steps=4, learning_rate=0.05, report_to=[],
        use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    transformers.Trainer(model=model, args=arguments, train_dataset=Counting(), callbacks=[callback]).train()
    model.save_pretrained(tmp_path / "trained")

    answer = vllm.complete("acme/trained@prod", models.PROMPT)

    assert logprobs(answer) == close_to(models.said(place.base, tmp_path / "trained"))
    assert logprobs(answer) != close_to(models.said(place.base, None))
    pushed = adaptry.push(place.registry, adaptry.open_dir(tmp_path / "trained"), "acme/by-hand")
    assert logprobs(vllm.complete("acme/by-hand", models.PROMPT)) == close_to(logprobs(answer))
    assert pushed.version.base_status == "verified"


def test_an_adapter_uploaded_by_push_to_hub_is_served_once_it_is_bound(
    place: Place, vllm: Vllm, tmp_path: Path
) -> None:
    folder = models.adapter(tmp_path / "trained", seed=31, base_name=str(place.base))
    run_hub_client(place, "push_to_hub", "acme/from-hub", folder, place.base)
    version = place.registry.versions.get(Ref.parse("acme/from-hub"))
    assert version.base_status == "declared"
    assert "adaptry base bind acme/from-hub@1" in vllm.complete("acme/from-hub", models.PROMPT).reason

    base = place.registry.bases.get("org/tiny").id
    place.registry.versions.bind_base(version.name, version.digest, base)

    answer = answer_of(vllm, "acme/from-hub")
    assert logprobs(answer) == close_to(models.said(place.base, folder))


def test_a_push_of_an_uploaded_folder_is_the_same_version_and_makes_it_servable(
    place: Place, vllm: Vllm, tmp_path: Path
) -> None:
    folder = models.adapter(tmp_path / "trained", seed=32, base_name=str(place.base))
    run_hub_client(place, "upload_folder", "acme/uploaded", folder)
    uploaded = place.registry.versions.get(Ref.parse("acme/uploaded"))
    assert uploaded.base_status == "declared"

    pushed = adaptry.push(place.registry, adaptry.open_dir(folder), "acme/uploaded")

    assert (pushed.version.digest, pushed.is_new) == (uploaded.digest, False)
    answer = answer_of(vllm, "acme/uploaded")
    assert logprobs(answer) == close_to(models.said(place.base, folder))


def run_hub_client(place: Place, *arguments: object) -> None:
    """Runs `hub_client.py` against the registry's server."""
    endpoint = {"HF_ENDPOINT": place.server.url, "HF_TOKEN": place.server.admin, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, str(Path(__file__).with_name("hub_client.py")), *map(str, arguments)]
    run = subprocess.run(command, env={**os.environ, **endpoint}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]


def answer_of(vllm: Vllm, model: str) -> Answer:
    """The answer, once vLLM's plugin has forgotten its refusal, which takes some seconds."""
    return until(lambda: vllm.complete(model, models.PROMPT), lambda answer: answer.status == 200)


class Counting:
    """Rows of consecutive numbers with different starts. (`Any`: tensors.)"""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch

        row = (torch.arange(12) + index) % 250
        return {"input_ids": row, "labels": row}
