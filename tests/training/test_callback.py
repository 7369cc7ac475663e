"""A real training run with the callback: its checkpoints are drafts from which training can resume, its end
is a version, and failures of the registry do not stop it.
"""

from __future__ import annotations

import logging
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file

import adaptry
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import CheckFailed, Conflict, Invalid, InvalidRef, NotFound
from adaptry.core.manifest import BaseClaim
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving.compatibility import require_base_match
from adaptry.integrations.training import AdaptryCallback, checkpoints, resume
from adaptry.registry.interface import Registry
from adaptry.testing.samples import tiny_lora
from adaptry_cli.main import main

TONE = AdapterName.parse("acme/tone")
Train = Callable[..., Any]


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Sixteen rows of consecutive numbers, the same every time."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = (torch.arange(12) + index) % 32
        return {"input_ids": row, "labels": row}


def tiny_model() -> Any:
    """(`Any`: transformers is not typed.)"""
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, vocab_size=32, max_position_embeddings=32,
        )
    )  # fmt: skip


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Trains a tiny LoRA with the callback for six steps, saved after every second one; returns the
    Trainer.
    """

    def trained(callback: AdaptryCallback, model: Any = None, **options: Any) -> transformers.Trainer:
        if model is None:
            config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
            model = peft.get_peft_model(tiny_model(), config)
        said: dict[str, Any] = {
            "output_dir": str(tmp_path / "out"), "max_steps": 6, "save_steps": 2, "eval_steps": 2,
            "eval_strategy": "steps", "logging_steps": 1, "per_device_train_batch_size": 4,
            "learning_rate": 0.05, "report_to": [], "use_cpu": True, "disable_tqdm": True,
            "save_total_limit": 1,
        }  # fmt: skip
        trainer = transformers.Trainer(
            model=model, args=transformers.TrainingArguments(**(said | options)),
            train_dataset=Rows(), eval_dataset=Rows(), callbacks=[callback],
        )  # fmt: skip
        trainer.train()
        return trainer

    return trained


def test_checkpoints_are_drafts_with_metrics_and_the_result_is_a_version(
    registry: Registry, train: Train, tmp_path: Path
) -> None:
    callback = AdaptryCallback(registry, "acme/tone", run="first", alias="staging")
    trainer = train(callback)
    found = checkpoints(registry, TONE)
    assert [(each.run, each.step, each.branch) for each in found] == [
        ("first", step, f"first.step-{step}") for step in (2, 4, 6)
    ]
    logged = {
        entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry
    }
    assert {each.step: each.metrics["eval_loss"] for each in found} == logged
    assert callback.released == "acme/tone@1"
    version = registry.versions.detail(Ref.parse("acme/tone@staging"))
    assert version.version.metrics["eval_loss"] == logged[6]
    assert version.manifest.provenance["run"] == "first" and version.manifest.provenance["step"] == "6"
    trained = peft.get_peft_model_state_dict(trainer.model)
    stored = adaptry.load("acme/tone@1", registry=registry)
    assert set(stored) == set(trained)
    assert all(torch.equal(stored[name], value) for name, value in trained.items())
    assert not any(path.name.startswith("adaptry-") for path in tmp_path.iterdir())


def test_the_last_and_the_best_checkpoint_are_kept(registry: Registry, train: Train) -> None:
    train(AdaptryCallback(registry, TONE, run="kept", keep_last=1, best=("eval_loss", "max"), release=None))
    found = checkpoints(registry, TONE, "kept")
    assert [each.step for each in found] == [2, 6]
    assert found[0].metrics["eval_loss"] > found[1].metrics["eval_loss"]
    with pytest.raises(NotFound):
        registry.versions.get(Ref.parse("acme/tone@1"))


def test_the_best_checkpoint_is_released(registry: Registry, train: Train) -> None:
    callback = AdaptryCallback(registry, TONE, run="best", best=("eval_loss", "max"), release="best")
    train(callback)
    detail = registry.versions.detail(Ref.parse("acme/tone@1"))
    assert detail.manifest.provenance["step"] == "2"
    first = checkpoints(registry, TONE)[0]
    assert (detail.version.digest, detail.version.metrics["eval_loss"]) == (
        first.digest,
        first.metrics["eval_loss"],
    )


def test_the_model_that_the_trainer_went_back_to_gets_its_own_metrics(
    registry: Registry, train: Train
) -> None:
    trainer = train(
        AdaptryCallback(registry, TONE, run="back"),
        load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=True,
        save_total_limit=None,
    )  # fmt: skip
    detail = registry.versions.detail(Ref.parse("acme/tone@1"))
    logged = {
        entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry
    }
    assert detail.manifest.provenance["step"] == "2"
    assert detail.version.metrics["eval_loss"] == logged[2]


def test_a_training_run_resumes_from_a_checkpoint_and_records_it(
    registry: Registry, train: Train, tmp_path: Path
) -> None:
    train(AdaptryCallback(registry, TONE, run="first", release=None))
    middle = checkpoints(registry, TONE)[1]
    resumed = resume(registry, middle.ref, tmp_path / "resumed")
    model = peft.PeftModel.from_pretrained(tiny_model(), resumed.folder, is_trainable=True)
    train(AdaptryCallback(registry, TONE, run="second", resumed=resumed), model=model)
    assert registry.versions.detail(Ref.parse("acme/tone@1")).manifest.parents == (middle.digest,)

    again = resume(registry, "acme/tone@1", tmp_path / "again")
    assert again.digest == registry.versions.get(Ref.parse("acme/tone@1")).digest
    with pytest.raises(Conflict):
        resume(registry, "acme/tone@1", tmp_path / "resumed")
    with pytest.raises(NotFound):
        resume(registry, "acme/tone@nowhere", tmp_path / "none")


def test_a_loaded_version_can_be_trained_on(registry: Registry, train: Train) -> None:
    train(AdaptryCallback(registry, TONE, run="first"))
    placed = adaptry.load("acme/tone@1", registry=registry, into=tiny_model(), trainable=True)
    assert placed.version is not None
    train(AdaptryCallback(registry, TONE, run="second", resumed=placed), model=placed.model)
    assert registry.versions.detail(Ref.parse("acme/tone@2")).manifest.parents == (placed.version.digest,)


def test_an_unreachable_registry_does_not_stop_a_training_run(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = AdaptryCallback("http://127.0.0.1:9", "acme/tone", run="alone", timeout=0.1, retry=0.01)
    with caplog.at_level(logging.WARNING, "adaptry.integrations.training"):
        trainer = train(callback)
    assert trainer.state.global_step == 6 and callback.released is None
    left = [record.message for record in caplog.records if "its files are in" in record.message]
    assert len(left) == 4
    folder = Path(left[-1].rpartition("adaptry push ")[2].split()[0])
    assert load_file(folder / "adapter_model.safetensors")


def test_a_full_disk_does_not_stop_a_training_run(
    registry: Registry,
    train: Train,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is space for the Trainer's own checkpoints, but none for temporary files, or their folder does
    not exist.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    callback = AdaptryCallback(registry, TONE, run="full")
    with caplog.at_level(logging.WARNING, "adaptry.integrations.training"):
        assert train(callback).state.global_step == 6
    assert "there is no folder to keep it" in caplog.text

    class Unsaved(AdaptryCallback):
        def on_save(self, *args: Any, **kwargs: Any) -> None:
            monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))

    monkeypatch.setattr(tempfile, "tempdir", None)
    with caplog.at_level(logging.WARNING, "adaptry.integrations.training"):
        assert train(Unsaved(registry, TONE, run="filled")).state.global_step == 6
    assert "it could not be saved" in caplog.text


def test_refused_checkpoints_are_reported_and_kept(
    registry: Registry, train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    """The checkpoints have NaN, as after a failed training run."""
    with caplog.at_level(logging.WARNING, "adaptry.integrations.training"):
        model = peft.get_peft_model(tiny_model(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
        with torch.no_grad():
            next(value for name, value in model.named_parameters() if "lora_A" in name).fill_(torch.nan)
        train(AdaptryCallback(registry, TONE, run="wrong"), model=model)
    said = [record.message for record in caplog.records]
    assert any("was not pushed" in line and "NaN" in line for line in said)
    assert any("its files are in" in line for line in said)


def test_a_full_model_is_not_pushed(
    registry: Registry, train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "adaptry.integrations.training"):
        train(AdaptryCallback(registry, TONE), model=tiny_model())
    assert any("not a PEFT model" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"release": "best"}, Invalid),
        ({"best": ("eval_loss", "least")}, Invalid),
        ({"keep_last": 0}, Invalid),
        ({"run": "a/b"}, InvalidRef),
        ({"run": "x" * 60}, Invalid),
        ({"run": "main"}, InvalidRef),
        ({"alias": "latest"}, InvalidRef),
    ],
)
def test_impossible_settings_are_reported_before_the_training(
    registry: Registry, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        AdaptryCallback(registry, "acme/tone", **options)


def test_commits_of_other_branches_are_not_checkpoints(registry: Registry, tmp_path: Path) -> None:
    adaptry.push(registry, adaptry.open_dir(tiny_lora(tmp_path / "lora")), "acme/tone")
    registry.commits.create_branch(TONE, "draft")
    registry.commits.create_branch(TONE, "mine.step-3")
    found = checkpoints(registry, "acme/tone")
    assert [(each.run, each.step, dict(each.metrics)) for each in found] == [("mine", 3, {})]


def test_a_training_run_on_a_base_folder_is_bound_to_that_base(
    registry: Registry,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The callback, `adaptry.push` and the command line give one version; an engine's worker waits only for
    the command in the warning, which is run word for word.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTRY_HOME", str(tmp_path / "home"))
    tiny_model().save_pretrained("llama")
    served = fingerprint(open_checkpoint("llama"))
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(transformers.LlamaForCausalLM.from_pretrained("./llama"), config)
    with caplog.at_level(logging.WARNING, "adaptry.integrations.training"):
        train(AdaptryCallback(registry, TONE, run="local"), model=model)
    (said,) = (record.message for record in caplog.records if "not registered" in record.message)
    trained = registry.versions.get(Ref.parse("acme/tone@1"))
    assert trained.base_id == served.id
    assert registry.commits.tree(TONE, checkpoints(registry, TONE)[0].digest).base == BaseClaim(id=served.id)
    with pytest.raises(CheckFailed):
        require_base_match(registry, trained, served)

    checkpoint = tmp_path / "out" / "checkpoint-6"
    assert not adaptry.push(registry, adaptry.open_dir(checkpoint), TONE).is_new
    folder = str(tmp_path / "registry")
    pushed = CliRunner().invoke(main, ["push", "./out/checkpoint-6", str(TONE), "--registry", folder])
    assert pushed.stdout.split() == ["acme/tone@1", str(trained.digest)], pushed.output

    command = shlex.split(said.split("`")[1])
    assert command[:3] == ["adaptry", "base", "add"]
    assert CliRunner().invoke(main, [*command[1:], "--registry", folder]).exit_code == 0
    require_base_match(registry, registry.versions.get(Ref.parse("acme/tone@1")), served)


def test_a_training_run_claims_only_the_model_in_the_folder_that_it_loaded(
    registry: Registry,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The two models have equal shapes, so nothing else would show the difference. The trained files are
    kept.
    """
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    model.save_pretrained("llama")
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    model.save_pretrained("other")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trained = peft.get_peft_model(transformers.LlamaForCausalLM.from_pretrained("./llama"), config)
    with caplog.at_level(logging.WARNING, "adaptry.integrations.training"):
        train(AdaptryCallback(registry, TONE, run="wrong", base=tmp_path / "other"), model=trained)
    assert sum("is another model: the weights differ in" in line for line in caplog.messages) > 0
    (kept,) = (line for line in caplog.messages if line.startswith(f"{TONE} is not in the registry"))
    folder = shlex.split(kept.partition("adaptry push ")[2])[0]
    assert adaptry.push(registry, adaptry.open_dir(folder), TONE).version.number == 1

    train(AdaptryCallback(registry, TONE, run="right", base=tmp_path / "llama"), model=trained)
    newest = registry.versions.get(Ref.parse("acme/tone@2"))
    assert newest.base_id == fingerprint(open_checkpoint("llama")).id


def test_the_logged_command_pushes_what_the_training_could_not(
    registry: Registry,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The command also works from another folder."""
    monkeypatch.chdir(tmp_path)
    tiny_model().save_pretrained("llama")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(transformers.LlamaForCausalLM.from_pretrained("./llama"), config)
    callback = AdaptryCallback("http://127.0.0.1:9", TONE, run="alone", timeout=0.1, retry=0.01)
    with caplog.at_level(logging.WARNING, "adaptry.integrations.training"):
        train(callback, model=model)
    (said,) = (line for line in caplog.messages if "checkpoint" not in line and line.startswith(f"{TONE} is"))
    monkeypatch.chdir("/")
    command = shlex.split(said.partition("adaptry push ")[2])
    pushed = CliRunner().invoke(main, ["push", *command, "--registry", str(tmp_path / "registry")])
    assert pushed.exit_code == 0, pushed.output
    base = fingerprint(open_checkpoint(tmp_path / "llama"))
    assert registry.versions.get(Ref.parse("acme/tone@1")).base_id == base.id
