"""Folders as trainers leave them: the adapter is read, other files are left out and named, and a folder
without an adapter gives a clear error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry import open_dir
from adaptry.core.errors import InvalidWeights, NotFound, Unsupported
from adaptry.operations.transfer import pull, push
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora

from .other_layouts import bottleneck, diffusers, kohya, mlx

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345678\n"
LEFTOVERS = {
    "optimizer.pt": "pickle", "scheduler.pt": "pickle", "training_args.bin": "pickle",
    "rng_state_0.pth": "pickle", "scaler.pt": "pickle", "pytorch_model.bin": "pickle",
    "trainer_state.json": "training run", "trainer_log.jsonl": "training run",
    "all_results.json": "training run", "config.json": "config of a base model",
    "zero_to_fp32.py": "a program", "latest": "training state", "debug.log": "training state",
    "model.safetensors": "whole model", "model-00001-of-00002.safetensors": "whole model",
    "adapter-f16.gguf": "another adapter",
    "axolotl_config.yaml": "not an adapter file",
}  # fmt: skip
FOLDERS = {
    "checkpoint-500": "training state",
    "runs": "training state",
    "global_step500": "training state",
    "wandb": "training state",
}


def trained(folder: Path) -> Path:
    """A folder with the files that Trainer, TRL, DeepSpeed, Unsloth and axolotl leave."""
    tiny_lora(folder)
    for name in LEFTOVERS:
        (folder / name).write_bytes(b"\x80\x02.")
    for name in FOLDERS:
        (folder / name).mkdir()
        (folder / name / "optimizer.pt").write_bytes(b"\x80\x02.")
    return folder


def test_files_of_trainers_beside_an_adapter_are_left_out_with_the_reason(tmp_path: Path) -> None:
    left_out = open_dir(trained(tmp_path / "out")).left_out
    assert left_out.keys() == {*LEFTOVERS, *FOLDERS}
    for name, reason in {**LEFTOVERS, **FOLDERS}.items():
        assert reason in left_out[name], name


def test_files_of_trainers_are_not_pulled_back(tmp_path: Path) -> None:
    registry = open_local(tmp_path / "registry")
    push(registry, open_dir(trained(tmp_path / "out")), "acme/tone")
    pull(registry, "acme/tone", tmp_path / "pulled")
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == {
        path.name for path in tiny_lora(tmp_path / "plain").iterdir()
    }


def test_an_adapter_inside_another_is_named(tmp_path: Path) -> None:
    tiny_lora(tmp_path / "out")
    tiny_lora(tmp_path / "out" / "reference")
    assert "push that folder separately" in open_dir(tmp_path / "out").left_out["reference"]


def test_the_error_for_a_folder_of_checkpoints_lists_them(tmp_path: Path) -> None:
    for step in (100, 200):
        tiny_lora(tmp_path / f"checkpoint-{step}")
    with pytest.raises(NotFound, match=r"such as .*checkpoint-200"):
        open_dir(tmp_path)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("tone.tar.gz", "unpack it"),
        ("tone.tar", "unpack it"),
        ("tone.zip", "unpack it"),
        ("tone.nemo", "convert it to PEFT"),
        ("tone.gguf", "the folder it was converted from"),
        ("adapter_0.pt", "Hugging Face checkpointer"),
        ("__0_0.distcp", "Megatron Bridge"),
        ("adapter_fusion_config.json", "push each adapter"),
    ],
)
def test_an_unsupported_form_is_refused_with_the_conversion_to_a_supported_one(
    name: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(Unsupported, match=remedy):
        open_dir(tmp_path)


def test_a_file_instead_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "tone.safetensors").write_bytes(b"anything")
    with pytest.raises(NotFound, match="is a file; pass the folder that contains it"):
        open_dir(tmp_path / "tone.safetensors")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("tone.zip", "unpack it"), ("tone.gguf", r"adaptry convert \S+tone\.gguf --base BASE")],
)
def test_a_file_of_another_tool_is_refused_with_its_conversion(
    name: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(Unsupported, match=remedy):
        open_dir(tmp_path / name)


@pytest.mark.parametrize("make", [tiny_lora, bottleneck, mlx, diffusers, kohya])
def test_a_git_lfs_pointer_instead_of_weights_has_a_remedy(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    (weights,) = (path for path in make(tmp_path).glob("*.safetensors") if "head" not in path.name)
    weights.write_bytes(POINTER)
    with pytest.raises(InvalidWeights, match="git lfs pull"):
        open_dir(tmp_path)


def test_weights_in_parts_are_named(tmp_path: Path) -> None:
    tiny_lora(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.rename(tmp_path / "adapter_model-00001-of-00002.safetensors")

    with pytest.raises(Unsupported, match=r"in parts \(adapter_model-00001-of-00002.*save_pretrained"):
        open_dir(tmp_path)


def test_the_checkpoint_to_push_is_the_one_with_the_largest_step(tmp_path: Path) -> None:
    for step in (500, 1000):
        tiny_lora(tmp_path / "out" / f"checkpoint-{step}")

    with pytest.raises(NotFound, match=r"pass one of them, such as .*checkpoint-1000"):
        open_dir(tmp_path / "out")


@pytest.mark.parametrize("ending", ["incomplete", "part", "crdownload"])
def test_an_interrupted_download_is_named(tmp_path: Path, ending: str) -> None:
    weights = tiny_lora(tmp_path / "out") / "adapter_model.safetensors"
    weights.rename(f"{weights}.{ending}")

    with pytest.raises(NotFound, match=rf"safetensors\.{ending}, which looks like an interrupted download"):
        open_dir(tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>", b"\x00\x04" + bytes(38)])
def test_a_file_that_is_not_safetensors_has_a_remedy(tmp_path: Path, content: bytes) -> None:
    (tiny_lora(tmp_path / "out") / "adapter_model.safetensors").write_bytes(content)

    with pytest.raises(InvalidWeights, match="download, copy or save it again"):
        open_dir(tmp_path / "out")
