"""Adapters made by AdapterHub's library: described, pushed, pulled, and loaded by the library again with
equal outputs.

The library pins an older transformers, so it runs in a separate environment, which `make environments`
creates.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch")

from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.checks.weights import check_weights
from adaptry.core.errors import Unsupported
from adaptry.operations.transfer import pull, push
from adaptry.storage.connect import open_local

from .other_environment import OtherEnvironment

LIBRARY = OtherEnvironment("adapterhub", "adapterhub_library.py")
METHODS = {
    "seq_bn": "bottleneck", "double_seq_bn": "bottleneck", "par_bn": "bottleneck", "seq_bn_inv": "bottleneck",
    "leave_out": "bottleneck", "learned_scaling": "bottleneck", "gated": "bottleneck",
    "compacter": "bottleneck", "compacter++": "bottleneck",
    "lora": "lora", "lora_everywhere": "lora", "lora_gated": "lora", "dora": "lora",
    "ia3": "ia3", "loreft": "reft", "prompt": "prompt_tuning",
}  # fmt: skip
PICKLED = {"prefix": "prefix_tuning", "prefix_flat": "prefix_tuning", "mam": "union", "unipelt": "union"}

pytestmark = LIBRARY.marks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapterhub")
    LIBRARY.run("make", folder)
    return folder


CASES = [f"{model}-{config}" for model in ("bert", "llama") for config in METHODS]
CASES.remove("llama-prompt")  # the library has none for it


def of(model: str) -> list[str]:
    return [case for case in CASES if case.startswith(model)]


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_of_its_adapters_is_described_and_fits_its_base(case: str, corpus: Path) -> None:
    model, _, config = case.partition("-")
    adapter = open_dir(corpus / case)
    assert adapter.spec.method == METHODS[config]
    assert adapter.spec.modules or adapter.spec.virtual_tokens
    assert not adapter.spec.unclaimed
    assert not check(adapter, fingerprint(open_checkpoint(corpus / model))).findings


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_adapters_that_are_pulled_back_are_loaded_by_the_library_and_answer_as_before(
    model: str, corpus: Path, tmp_path: Path
) -> None:
    before = [corpus / case for case in of(model)]
    told = LIBRARY.run("answers", corpus, model, *before, *pulled(before, tmp_path))
    assert told[: len(before)] == told[len(before) :]
    each_does_something_of_its_own = {json.dumps(answer) for answer in told}
    assert len(each_does_something_of_its_own) == len(before)


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_a_pickled_head_is_refused_and_the_remedy_preserves_answers(
    model: str, corpus: Path, tmp_path: Path
) -> None:
    before, after = [corpus / f"{model}-{config}" for config in PICKLED], []
    for folder in before:
        after.append(shutil.copytree(folder, tmp_path / folder.name))
        with pytest.raises(Unsupported, match="convert it once, in that folder") as refused:
            open_dir(after[-1])
        line = refused.value.message.partition("in that folder: ")[2]
        subprocess.run(line.replace("python", LIBRARY.python, 1), shell=True, check=True, cwd=after[-1])
        spec = open_dir(after[-1]).spec
        assert spec.method == PICKLED[folder.name.partition("-")[2]]
        assert spec.virtual_tokens
        assert not spec.unclaimed
    told = LIBRARY.run("answers", corpus, model, *before, *pulled(after, tmp_path / "pulled"))
    assert told[: len(before)] == told[len(before) :]


def pulled(adapters: list[Path], folder: Path) -> list[Path]:
    """The adapters after a push to a registry and a pull."""
    registry = open_local(folder / "registry")
    for number, adapter in enumerate(adapters):
        push(registry, open_dir(adapter), f"acme/tone-{number}")
        pull(registry, f"acme/tone-{number}", folder / f"{number}")
    return [folder / f"{number}" for number in range(len(adapters))]


def edited(source: Path, folder: Path, part: str) -> Path:
    """A copy whose tensors with `part` in their names are zeros."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "adapter.safetensors")
    zeroed = {name: tensor * 0 if part in name else tensor for name, tensor in tensors.items()}
    save_file(zeroed, folder / "adapter.safetensors")
    return folder


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_a_bottleneck_whose_second_layer_is_zero_changes_nothing_and_is_found(
    model: str, corpus: Path, tmp_path: Path
) -> None:
    kinds = ("seq_bn", "par_bn", "compacter", "gated", "learned_scaling")
    idle = [edited(corpus / f"{model}-{kind}", tmp_path / kind, "adapter_up.") for kind in kinds]
    active = edited(corpus / f"{model}-seq_bn", tmp_path / "active", "adapter_up.weight")

    first, *others, changed = LIBRARY.run("answers", corpus, model, *idle, active)

    assert all(other == first for other in others)
    assert changed != first
    assert {found.code for folder in idle for found in check_weights(open_dir(folder))} == {"untrained"}
    assert check_weights(open_dir(active)) == []


def test_a_lora_with_two_ranks_is_refused_by_the_library_and_blocked(corpus: Path, tmp_path: Path) -> None:
    folder = edited(corpus / "llama-lora", tmp_path / "lora", "nothing")
    tensors = load_file(folder / "adapter.safetensors")
    name = next(name for name in tensors if name.endswith("lora_B"))
    save_file({**tensors, name: tensors[name].repeat(1, 2)}, folder / "adapter.safetensors")

    with pytest.raises(AssertionError, match="size mismatch"):
        LIBRARY.run("answers", corpus, "llama", folder)
    assert any(found.severity == "blocks" for found in check(open_dir(folder), None).findings)
