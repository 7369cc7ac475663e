"""Adapters that vLLM does not support unchanged are served as trained after `adaptry export`: a real vLLM
compared with PEFT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import parse_runtime
from adaptry.compute.exporting.export import ExportResult, export
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter

from . import models, vllm_server
from .test_resolver import close_to
from .test_verdicts import ENGINE, WEIGHTS, outcome, plain

__all__ = ["plain"]
pytestmark = vllm_server.PYTHON.marks
WIDE = 32


def exported(base: Path, adapter: Path, to: Path, format: str | None = None, **asked: Any) -> ExportResult:
    setting = ExportOptions(fingerprint(open_checkpoint(base)), lambda: open_checkpoint(base), **asked)
    runtime = None if format else parse_runtime(ENGINE)
    return export(ParentAdapter(open_dir(adapter), "it"), to, setting, runtime=runtime, format=format)


def of_rank(folder: Path, rank: int) -> Path:
    """An adapter whose file has rank 32, and whose updates have a lower rank."""
    adapter = models.adapter(folder, rank=WIDE)
    tensors = load_file(adapter / WEIGHTS)
    mixed = torch.randn(rank, WIDE, generator=torch.Generator().manual_seed(0)) / WIDE**0.5
    for name in [name for name in tensors if "lora_B" in name]:
        tensors[name] = tensors[name][:, :rank] @ mixed
    save_file(tensors, adapter / WEIGHTS, {"format": "pt"})
    return adapter


def updates(adapter: Path) -> dict[str, torch.Tensor]:
    """ΔW of each module, by its formula."""
    tensors, config = load_file(adapter / WEIGHTS), open_dir(adapter).config.fields
    scale = config["lora_alpha"] / config["r"]
    return {
        name: scale * tensors[name.replace("lora_A", "lora_B")].double() @ factor.double()
        for name, factor in tensors.items()
        if "lora_A" in name
    }


def apart(one: Path, other: Path) -> float:
    """‖Δ − Δ'‖ / ‖Δ‖ over all modules."""
    first, second = updates(one), updates(other)
    far = sum(float((first[name] - second[name]).square().sum()) for name in first)
    return float((far / sum(float(update.square().sum()) for update in first.values())) ** 0.5)


def test_a_rank_above_the_servers_is_served_within_the_reported_error(
    plain: dict[str, str], tmp_path: Path
) -> None:
    base = models.model(tmp_path / "base")
    exact, lossy = of_rank(tmp_path / "exact", 12), models.adapter(tmp_path / "lossy", rank=WIDE)
    told = {one: exported(base, one, one.with_suffix(".out"), max_error=1) for one in (exact, lossy)}
    repaired = {one: one.with_suffix(".out") for one in told}

    _, *answers = vllm_server.offline(
        plain, base, models.PROMPT, [exact, lossy, repaired[exact], repaired[lossy]]
    )

    assert all("rank 32 is greater than max_lora_rank 16" in str(answer) for answer in answers[:2])
    assert [made.repairs for made in told.values()] == [("rank",), ("rank",)]
    assert answers[2] == close_to(models.said(base, exact))
    assert answers[3] == close_to(models.said(base, repaired[lossy]))
    assert told[exact].equality.error < 1e-6
    assert told[lossy].equality.error == pytest.approx(apart(lossy, repaired[lossy]), rel=1e-4)
    assert told[lossy].equality.error > 0.1


def trained(base: Path, folder: Path, **config: Any) -> Path:
    """An adapter saved by PEFT, with random changes of all numbers."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    options: dict[str, Any] = {"r": 4, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj"], **config}
    tuned = get_peft_model(model, LoraConfig(**options))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    tuned.save_pretrained(str(folder))
    return folder


MERGED: dict[str, dict[str, Any]] = {
    "a trained head": {"modules_to_save": ["lm_head"]},
    "rows of an embedding": {"trainable_token_indices": {"embed_tokens": [40, 41, 107]}},
}


@pytest.mark.parametrize("what", MERGED)
def test_changes_that_no_adapter_file_expresses_for_vllm_are_served_as_a_model(
    plain: dict[str, str], tmp_path: Path, what: str
) -> None:
    base = models.model(tmp_path / "base")
    adapter = trained(base, tmp_path / "adapter", **MERGED[what])
    assert outcome(base, adapter) == "refused"

    made = exported(base, adapter, tmp_path / "model")
    _, refused = vllm_server.offline(plain, base, models.PROMPT, [adapter])
    (answer,) = vllm_server.offline(plain, tmp_path / "model", models.PROMPT, [])

    assert made.format == "checkpoint"
    assert isinstance(refused, str)
    assert answer == close_to(models.said(base, adapter))
    assert answer != close_to(models.said(base, None))


def test_a_dora_is_served_merged_as_trained_and_as_the_lora_that_is_made_of_it(
    plain: dict[str, str], tmp_path: Path
) -> None:
    base = models.model(tmp_path / "base")
    dora = trained(base, tmp_path / "dora", use_dora=True)
    assert outcome(base, dora) == "refused"

    made = exported(base, dora, tmp_path / "lora", rank=16, max_error=1)
    exported(base, dora, tmp_path / "model", format="checkpoint")
    _, refused, as_lora = vllm_server.offline(plain, base, models.PROMPT, [dora, tmp_path / "lora"])
    (merged,) = vllm_server.offline(plain, tmp_path / "model", models.PROMPT, [])

    assert "DoRA" in str(refused)
    assert merged == close_to(models.said(base, dora))
    assert as_lora == close_to(models.said(base, tmp_path / "lora"))
    assert 0 < made.equality.error < 1
