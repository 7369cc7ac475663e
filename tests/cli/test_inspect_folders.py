"""`inspect` of a folder tree: a row for each adapter in the tree, whatever tool wrote it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from adaptry.testing.samples import random_tensor, tiny_lora, write_safetensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def test_the_adapters_below_a_folder_get_a_row_each_in_the_order_of_their_steps(run, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for step in (10, 2):
        tiny_lora(runs / "tone" / f"checkpoint-{step}", seed=step)
    shutil.copytree(runs / "tone" / "checkpoint-10", runs / "tone" / "final")
    config = json.loads((runs / "tone" / "final" / CONFIG).read_text())
    config["target_modules"].reverse()  # PEFT writes a set, whose order varies
    (runs / "tone" / "final" / CONFIG).write_text(json.dumps(config))
    tiny_lora(runs / "facts", rank=8, seed=3)
    untrained(runs / "facts" / "checkpoint-5")
    tiny_lora(runs / ".git" / "adapter")
    (runs / "facts" / "loop").symlink_to(runs)

    told = run("inspect", "./runs")

    rows = [line.split() for line in told.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == [
        "facts",
        "facts/checkpoint-5",
        "tone/checkpoint-2",
        "tone/checkpoint-10",
        "tone/final",
    ]
    assert rows[0][1:] == ["LoRA", "8", "q_proj,", "v_proj", "1,024", "4.1", "kB", "org/tiny"]
    assert told.stdout.splitlines()[2].endswith("not trained: its updates are zero")
    assert told.stdout.splitlines()[5].endswith("same as tone/checkpoint-10")
    assert "facts/loop (a link, which is not followed)" in told.stderr
    assert "5 adapters of 2 runs, 1 with the weights of another, 1 not trained" in told.stderr


def test_an_adapter_that_cannot_be_read_does_not_hide_the_others(run, answer, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "runs" / "good")
    cut = tiny_lora(tmp_path / "runs" / "cut") / WEIGHTS
    cut.write_bytes(cut.read_bytes()[:-64])
    (tiny_lora(tmp_path / "runs" / "half") / WEIGHTS).unlink()

    told = run("inspect", "./runs", code=1)

    assert "runs/cut: adapter_model.safetensors: the byte range" in told.stderr
    assert "runs/half has adapter_config.json but no adapter_model.safetensors" in told.stderr
    found = {row["path"]: row for row in answer("inspect", "./runs", code=1)["adapters"]}
    assert (found["good"]["rank"], found["good"]["targets"]) == (4, ["q_proj", "v_proj"])
    assert found["cut"]["error"]["code"] == "invalid_weights"
    assert found["half"]["error"]["code"] == "not_found"


def test_an_unfinished_checkpoint_is_not_searched_and_a_pipe_is_not_opened(run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "runs" / "tone" / "checkpoint-1")
    tiny_lora(tmp_path / "runs" / "tone" / "tmp-checkpoint-2")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "runs" / "pipe.gguf")

    told = run("inspect", "./runs")

    assert len(told.stdout.splitlines()) == 2
    assert "not searched: runs/tone/tmp-checkpoint-2 (an unfinished checkpoint)" in told.stderr


def test_other_weights_in_the_folder_of_an_adapter_are_named(run, tmp_path: Path) -> None:
    tone = tiny_lora(tmp_path / "runs" / "tone")
    shutil.copy(tone / WEIGHTS, tone / "0000100_adapters.safetensors")

    told = run("inspect", "./runs")

    assert len(told.stdout.splitlines()) == 2
    assert "not searched: runs/tone/0000100_adapters.safetensors (other weights in" in told.stderr


def test_files_of_other_tools_are_found_and_other_weights_are_not(answer, tmp_path: Path) -> None:
    kohya(tmp_path / "runs" / "style" / "style-000002.safetensors", seed=1)
    kohya(tmp_path / "runs" / "style" / "style-000010.safetensors", seed=2)
    kohya(tmp_path / "runs" / "style" / "style.safetensors", seed=3)
    weights = {f"unet.to_q.lora_{side}.weight": random_tensor((4, 4), 1) for side in "AB"}
    (tmp_path / "runs" / "pipeline").mkdir()
    write_safetensors(tmp_path / "runs" / "pipeline" / "pytorch_lora_weights.safetensors", weights)
    write_safetensors(tmp_path / "runs" / "pipeline" / "model.safetensors", {"w": random_tensor((4, 4), 1)})
    (tmp_path / "runs" / "vae").mkdir()
    write_safetensors(tmp_path / "runs" / "vae" / "vae.safetensors", {"w": random_tensor((4, 4), 1)})

    found = answer("inspect", "./runs")["adapters"]

    assert [(row["path"], row["format"], row["run"], row["step"]) for row in found] == [
        ("pipeline", "diffusers", "pipeline", None),
        ("style/style-000002.safetensors", "kohya", "style/style", 2),
        ("style/style-000010.safetensors", "kohya", "style/style", 10),
        ("style/style.safetensors", "kohya", "style/style", None),
    ]


def test_a_hugging_face_cache_is_read_through_its_links(answer, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--tone"
    (repository / "blobs").mkdir(parents=True)
    source = tiny_lora(tmp_path / "source")
    for commit in ("1" * 40, "2" * 40):
        (repository / "snapshots" / commit).mkdir(parents=True)
        for name in (CONFIG, WEIGHTS):
            blob = hashlib.sha256(name.encode()).hexdigest()
            shutil.copy(source / name, repository / "blobs" / blob)
            (repository / "snapshots" / commit / name).symlink_to(f"../../blobs/{blob}")
    (tmp_path / "hub" / "linked").mkdir()
    for name in (CONFIG, WEIGHTS):
        (tmp_path / "hub" / "linked" / name).symlink_to(source / name)

    linked, first, second = answer("inspect", "./hub", code=1)["adapters"]

    assert (first["run"], first["step"], second["same_weights_as"]) == ("org/tone", None, first["path"])
    assert "is a link to a file elsewhere" in linked["error"]["message"]


def test_adapters_that_differ_in_one_byte_are_not_the_same(answer, tmp_path: Path) -> None:
    """The byte lies between the samples that are read from every file."""
    first = tiny_lora(tmp_path / "runs" / "a", hidden=1024)
    shutil.copytree(first, tmp_path / "runs" / "b")
    shutil.copytree(first, tmp_path / "runs" / "c")
    weights = bytearray((first / WEIGHTS).read_bytes())
    weights[len(weights) // 30] ^= 1
    (tmp_path / "runs" / "b" / WEIGHTS).write_bytes(weights)

    a, b, c = answer("inspect", "./runs")["adapters"]

    assert (a["same_weights_as"], b["same_weights_as"], c["same_weights_as"]) == (None, None, "a")


def test_a_replaced_weight_may_be_trained_although_all_updates_are_zero(run, tmp_path: Path) -> None:
    untrained(tmp_path / "runs" / "head", head=("F32", (2, 16), bytes(128)))
    told = run("inspect", "./runs")
    assert told.stdout.splitlines()[1].endswith("its updates are zero, but it replaces 1 weight")
    assert "not trained" not in told.stderr


def test_a_folder_without_adapters_has_the_error_of_a_single_adapter(run, tmp_path: Path) -> None:
    (tmp_path / "runs" / "logs").mkdir(parents=True)
    assert "runs has no adapter: it lacks adapter_config.json" in run("inspect", "./runs", code=3).stderr
    (tmp_path / "runs" / CONFIG).write_text("{}")
    assert "runs has adapter_config.json but no" in run("inspect", "./runs", code=3).stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "runs" / "tone")
    (tmp_path / "runs" / "private").mkdir(mode=0)
    assert "not searched: runs/private (Permission denied)" in run("inspect", "./runs").stderr


def untrained(folder: Path, head: tuple[str, tuple[int, ...], bytes] | None = None) -> Path:
    """An adapter as PEFT creates it, before the first step: its second factors are zero. `head` is a layer
    that it saves completely.
    """
    modules = [f"layers.{layer}.self_attn.{name}" for layer in (0, 1) for name in ("q_proj", "v_proj")]
    extra = {f"base_model.model.model.{each}.lora_B.weight": ("F32", (16, 4), bytes(256)) for each in modules}
    config = {"modules_to_save": ["score"]} if head else {}
    return tiny_lora(
        folder, extra=extra | ({"base_model.model.score.weight": head} if head else {}), config=config
    )


def kohya(file: Path, seed: int) -> None:
    """A LoRA of one module of a text encoder, as sd-scripts saves it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    module = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    factors = {"lora_down.weight": (4, 16), "lora_up.weight": (16, 4)}
    write_safetensors(
        file, {f"{module}.{role}": random_tensor(shape, seed) for role, shape in factors.items()}
    )


def test_the_adapters_of_several_trees_are_rows_of_one_table(run, answer, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "runs" / "tone")
    tiny_lora(tmp_path / "more" / "facts", seed=2)
    (tmp_path / "empty").mkdir()
    tiny_lora(tmp_path / "out")

    told = run("inspect", "./runs", "./more", "./out")
    refused = run("inspect", "./runs", "./empty", code=1)

    rows = [line.split()[0] for line in told.stdout.splitlines()[1:]]
    assert rows == ["./runs/tone", "./more/facts", "./out"]
    assert "./runs/tone" in refused.stdout
    assert "error: ./empty: empty has no adapter" in refused.stderr
    trees = answer("inspect", "./runs", "./more")
    assert [[one["path"] for one in tree["adapters"]] for tree in trees] == [["tone"], ["facts"]]
