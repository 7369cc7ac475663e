"""`adaptry export`: the plan, the folder, a version with its parent, and refusals before anything
is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.testing.samples import random_tensor, tiny_base, tiny_lora

from ..formats import other_layouts
from .conftest import Run

Answer = Callable[..., Any]


def test_a_dry_run_shows_the_repairs_and_writes_nothing(run: Run, answer: Answer, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "rs", config={"use_rslora": True})
    told = answer("export", "./rs", "--for", "sglang", "--dry-run")
    assert [(step["repair"], step["exact"], step["findings"]) for step in told["repairs"]] == [
        ("fold", True, ["scale"])
    ]
    said = run("export", "./rs", "--for", "sglang", "--dry-run").stdout
    assert said.startswith(
        "fold: folds each scale into lora_B (exact), because SGLang serves something other"
    )
    assert "nothing to repair" in run("export", "./rs", "--for", "vllm", "--dry-run").stdout
    assert [path.name for path in tmp_path.iterdir()] == ["rs"]


def test_a_dry_run_for_a_format_without_an_engine_shows_that_nothing_is_repaired(run, answer, out) -> None:
    shown = run("export", "./out", "--format", "peft", "--dry-run")

    assert "nothing to repair" in shown.stdout and "--for ENGINE" in shown.stdout
    assert answer("export", "./out", "--format", "peft", "--dry-run")["repairs"] == []


def test_a_version_is_exported_as_a_version_that_names_its_parent(
    run: Run, answer: Answer, tmp_path: Path
) -> None:
    tiny_lora(tmp_path / "rs", config={"use_rslora": True})
    run("base", "add", str(tiny_base(tmp_path / "base")), "--name", "org/tiny")
    parent = run("push", "./rs", "acme/tone").stdout.split()[1]
    told = answer("export", "acme/tone", "--for", "sglang", "-o", "acme/tone-sglang", "--alias", "prod")
    assert (told["output"], told["repairs"]) == ("acme/tone-sglang@1", ["fold"])
    assert (told["relative_error"], told["largest_difference"], told["compared"]) == (0.0, 0.0, 4)
    shown = answer("show", "acme/tone-sglang@prod")
    assert shown["manifest"]["parents"] == [parent]
    assert shown["manifest"]["recipe"]["runtime"] == "sglang"
    again = answer("export", "acme/tone", "--for", "sglang", "-o", "acme/tone-sglang")
    assert (again["output"], again["digest"]) == (told["output"], told["digest"])
    assert "acme/tone@1" in run("lineage", "acme/tone-sglang").stdout


def test_an_adapter_that_must_be_merged_is_exported_to_a_folder_only(run: Run, tmp_path: Path) -> None:
    run("base", "add", str(tiny_base(tmp_path / "base")), "--name", "org/tiny")
    biased = {"target_modules": ["q_proj", "v_proj"], "bias": "lora_only"}
    extra = {"base_model.model.model.layers.0.self_attn.q_proj.bias": random_tensor((16,), 3)}
    tiny_lora(tmp_path / "biased", extra=extra, config=biased)
    refused = run("export", "./biased", "--for", "vllm", "--base", "org/tiny", "-o", "acme/biased", code=1)
    assert "a model cannot be a version of an adapter" in refused.stderr


def test_a_result_that_is_not_an_adapter_is_announced(run: Run, tmp_path: Path) -> None:
    shape = open_checkpoint(tiny_base(tmp_path / "base")).tensors["lm_head.weight"].shape
    extra = {"base_model.model.lm_head.weight": random_tensor(shape, 3)}
    tiny_lora(tmp_path / "head", extra=extra, config={"modules_to_save": ["lm_head"]})
    merged = run("export", "./head", "--for", "llama.cpp", "--base", "./base", "-o", "./model").stderr
    assert (
        "note: the result is a whole model, not an adapter: llama.cpp refuses it: it replaces lm_head"
        in merged
    )
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_format_alone_is_written_from_a_folder(run: Run, answer: Answer, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "rs", config={"use_rslora": True})
    tiny_base(tmp_path / "base")
    told = answer("export", "./rs", "--format", "gguf", "--base", "./base", "-o", "./out")
    assert (told["format"], told["repairs"]) == ("gguf", ["fold_evenly"])
    assert (tmp_path / "out" / "adapter.gguf").read_bytes().startswith(b"GGUF")
    assert (
        "refuse" not in run("export", "./rs", "--format", "ollama", "--base", "./base", "-o", "./made").stderr
    )
    assert (tmp_path / "made" / "Modelfile").read_text().splitlines()[-1] == "ADAPTER ./adapter.gguf"


def test_an_export_of_an_untrained_adapter_says_that_it_answers_as_the_base(run: Run, tmp_path: Path) -> None:
    small: Any = {"layers": 1, "targets": ("q_proj",)}
    zero = ("F32", (16, 4), bytes(256))
    tiny_lora(tmp_path / "trained", **small)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    tiny_lora(tmp_path / "untrained", **small, extra={name: zero})
    options = ("--for", "vllm@0.33,max_lora_rank=64", "-o")
    assert "[untrained]" not in run("export", "./trained", *options, "./first").stderr
    assert "answers as the base does [untrained]" in run("export", "./untrained", *options, "./second").stderr


def test_contradictory_calls_get_specific_errors(run: Run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "lora")
    assert "--for ENGINE or --format" in run("export", "./lora", "-o", "./out", code=2).stderr
    assert "written ./out" in run("export", "./lora", "--for", "vllm", "-o", "out", code=2).stderr
    assert "pass a destination" in run("export", "./lora", "--for", "vllm", code=2).stderr
    assert "unknown engine" in run("export", "./lora", "--for", "nothing", "-o", "./out", code=2).stderr
    assert "one of: peft" in run("export", "./lora", "--format", "zip", "-o", "./out", code=2).stderr
    assert "--base" in run("export", "./lora", "--format", "gguf", "-o", "./out", code=1).stderr
    assert "oci://HOST" in run("export", "./lora", "--push", "oci://nowhere", code=2).stderr
    assert (
        "--rank or --energy"
        in run(
            "export", "./lora", "--for", "vllm", "--rank", "2", "--energy", "0.5", "-o", "./out", code=2
        ).stderr
    )
    assert not (tmp_path / "out").exists()


def test_the_formats_are_listed(run: Run) -> None:
    said = run("export", "--formats").stdout
    assert all(
        name in said for name in ("peft", "checkpoint", "gguf", "ollama", "mlx", "diffusers", "kohya", "oci")
    )


def test_a_file_of_kohyas_trainer_is_exported_for_diffusers(run: Run, tmp_path: Path) -> None:
    other_layouts.kohya(tmp_path / "style")
    pipeline = tmp_path / "pipeline"
    other_layouts.unet(pipeline / "unet")
    parts = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (pipeline / "model_index.json").write_text(json.dumps(parts))

    run("export", "./style", "--for", "diffusers", "--base", "./pipeline", "-o", "./out")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pytorch_lora_weights.safetensors"]


def test_an_engine_version_without_rules_is_reported(run: Run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "lora")
    said = run("export", "./lora", "--for", "vllm@0.1", "-o", "./out").stderr
    assert "0.1 was given: compare an answer with PEFT's" in said
