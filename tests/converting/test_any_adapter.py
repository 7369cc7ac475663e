"""Randomly generated adapters converted to LoRA: PEFT loads the result and merges it to the same weights."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from adaptry import open_dir  # noqa: E402  (needs torch and PEFT, here and below)
from adaptry.bases.fingerprinting import fingerprint  # noqa: E402
from adaptry.bases.hf_folder import open_checkpoint  # noqa: E402
from adaptry.compute.lazy_adapters.deltas import open_adapter_deltas  # noqa: E402
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter  # noqa: E402
from adaptry.core.errors import AdaptryError, CheckFailed  # noqa: E402

from ..methods import experts  # noqa: E402
from ..methods.campaign import generated  # noqa: E402
from ..methods.peft_comparison import ask_peft, ask_us, load_merged, write  # noqa: E402
from .converted import converted, distance  # noqa: E402

IN_A_BATCH = 50
CLOSE = 1e-4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.heavy
@pytest.mark.parametrize("batch", range(4))
def test_peft_merges_any_exact_conversion_to_the_originals_weights(
    batch: int, tmp_path: Path, corpus: Path
) -> None:
    wrong, compared = {}, 0
    for seed in range(batch * IN_A_BATCH, (batch + 1) * IN_A_BATCH):
        made, folder = generated(seed, corpus), tmp_path / str(seed)
        if made is None:
            continue
        adapter = write(folder / "adapter", made.files.tensors, made.files.config)
        ours = ask_us(made.base, adapter, folder / "merged")
        if ours.blocked or ours.folder is None:
            continue
        wanted = load_merged(made.family, ours.folder)
        try:
            plain = converted(adapter, made.base, folder / "plain").folder
        except AdaptryError:
            continue  # its updates are not a LoRA, or also affect other parts
        theirs, before = ask_peft(made.family, made.base, plain), made.family.load(made.base).state_dict()
        if (
            any(told.startswith("vocabulary_resized") for told in ours.told)
            and "size mismatch" in theirs.error
        ):
            continue  # reported: only a base with as many rows accepts them
        if theirs.error or theirs.unexpected or theirs.state is None:
            wrong[seed] = f"{made.label}: {theirs.error or theirs.unexpected}"
            continue
        names = [name for name in wanted if name in before and before[name].shape == wanted[name].shape]
        if distance(theirs.state, wanted, names) > CLOSE * distance(wanted, before, names):
            wrong[seed] = f"{made.label}: other weights"
        compared += 1
    assert wrong == {}
    assert compared > IN_A_BATCH // 8


@pytest.mark.parametrize("field", ["use_rslora", "alpha_pattern"])
def test_scales_of_single_experts_need_the_base_that_fuses_them(field: str, tmp_path: Path) -> None:
    base = experts.FAMILIES["qwen3_moe"].save(tmp_path / "base", torch.float32)
    files = experts.random_lora(random.Random(0), base)
    files.config[field] = True if field == "use_rslora" else {"gate_up_proj": 6}
    adapter = write(tmp_path / "adapter", files.tensors, files.config)
    parent = ParentAdapter(open_dir(adapter), "tone")

    with pytest.raises(
        CheckFailed, match="tone changes single experts or routers, and its config has rsLoRA or patterns"
    ):
        converted(adapter, None, tmp_path / "plain")
    with pytest.raises(CheckFailed, match="the base is unknown here"):
        open_adapter_deltas(parent)

    known = ParentAdapter(parent.adapter, "tone", base=fingerprint(open_checkpoint(base)))
    scales = {
        module.path.rpartition(".")[2]: module.scale
        for module in open_adapter_deltas(known).modules.values()
        if ".experts." in module.path
    }
    assert scales["gate_proj"] != scales["down_proj"]


def test_the_scale_of_a_router_needs_the_base_too(tmp_path: Path) -> None:
    base = experts.FAMILIES["mixtral"].save(tmp_path / "base", torch.float32)
    tensors = experts.factors(base, lambda path: 2 if path.endswith(".gate") else 0)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["gate"]}
    adapter = write(tmp_path / "adapter", tensors, {**config, "alpha_pattern": {"gate": 8}})

    with pytest.raises(CheckFailed, match="the base is unknown here"):
        converted(adapter, None, tmp_path / "plain")
    plain = converted(adapter, base, tmp_path / "plain").adapter

    assert {module.scale for module in plain.spec.modules} == {2.0}
