"""Conversions that are impossible, or impossible without the base, are refused with a remedy before any
weight is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")

from adaptry import open_dir  # noqa: E402  (needs torch, here and below)
from adaptry.compute.conversion.convert import convert, needs_base_values  # noqa: E402
from adaptry.compute.conversion.options import ConvertOptions  # noqa: E402
from adaptry.compute.lazy_adapters.deltas import open_adapter_deltas  # noqa: E402
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter  # noqa: E402
from adaptry.core.errors import AdaptryError, CheckFailed, Unsupported  # noqa: E402

from ..methods.additive import pair_of as additive_pair  # noqa: E402
from ..methods.lora_merging import adapted, load, save_adapter, save_base  # noqa: E402
from ..methods.on_base import pair_of  # noqa: E402
from .converted import converted, ground_of  # noqa: E402


@pytest.mark.parametrize("name", ["vera", "pvera", "miss", "fourierft"])
def test_sides_not_determined_by_tensors_come_from_the_base(tmp_path: Path, name: str) -> None:
    pair = additive_pair(tmp_path, name)
    with pytest.raises(CheckFailed, match=r"do not determine the shape of model\.layers.*--base"):
        converted(pair.adapter, None, tmp_path / "plain", rank=2)


@pytest.mark.parametrize(
    ("name", "reason"), [("oft", "is OFT, whose update depends on the base"), ("hra", "is HRA, whose update")]
)
def test_an_update_on_a_base_needs_that_base(tmp_path: Path, name: str, reason: str) -> None:
    pair = pair_of(tmp_path, name)
    with pytest.raises(CheckFailed, match=f"{reason}.*pass the base with --base"):
        converted(pair.adapter, None, tmp_path / "plain", rank=2)


def test_a_dora_has_the_trait_dora(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["q_proj"], use_dora=True)
    with pytest.raises(CheckFailed, match=r"tone is DoRA, .*pass the base with --base"):
        converted(adapter, None, tmp_path / "plain", rank=2)


def test_biases_are_never_left_out_silently(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["q_proj"], lora_bias=True)
    with pytest.raises(CheckFailed, match=r"changes biases.*--base, or --drop-bias"):
        converted(adapter, None, tmp_path / "plain")
    made = converted(adapter, None, tmp_path / "plain", drop_bias=True)
    assert "biases" in made.lazy_adapter.notes[-1]
    assert needs_base_values(ParentAdapter(open_dir(adapter), "tone"), ConvertOptions())
    assert not needs_base_values(ParentAdapter(open_dir(adapter), "tone"), ConvertOptions(drop_bias=True))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: peft.PrefixTuningConfig(num_virtual_tokens=3), "serve it unmerged"),
        (lambda: peft.PromptTuningConfig(num_virtual_tokens=3), "serve it"),
        (lambda: peft.LilyConfig(r=2, target_modules=["q_proj"]), "Lily"),
        (lambda: peft.LNTuningConfig(target_modules=["norm"]), "updates no matrix"),
        (lambda: peft.BeftConfig(target_modules=["q_proj"]), "updates no matrix"),
        (lambda: peft.LoraConfig(alora_invocation_tokens=[1, 2], target_modules=["q_proj"]), "aLoRA"),
    ],
    ids=["prefix", "prompt", "lily", "norms", "biases alone", "aLoRA"],
)
def test_methods_that_do_not_act_through_a_matrix_are_refused(tmp_path: Path, make: Any, match: str) -> None:
    base = save_base(tmp_path / "base", "llama")
    config = make()
    config.task_type = "CAUSAL_LM"
    peft.get_peft_model(load(base), config).save_pretrained(tmp_path / "tone")
    with pytest.raises(Unsupported, match=match):
        converted(tmp_path / "tone", base, tmp_path / "plain", rank=2)


def test_an_adapter_of_repeated_layers_is_not_a_plain_lora(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(
        base, tmp_path / "tone", target_modules=["q_proj"], layer_replication=[(0, 2), (1, 2)]
    )
    with pytest.raises(Unsupported, match=r"layer_replication.*merge it"):
        converted(adapter, base, tmp_path / "plain")
    with pytest.raises(Unsupported, match=r"layer_replication.*merge it instead"):
        open_adapter_deltas(ParentAdapter(open_dir(adapter), "tone"))


def test_another_base_is_detected_by_its_weights(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["q_proj"], use_dora=True)
    other = tmp_path / "other"
    model = load(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(other)
    parent = ParentAdapter(open_dir(adapter), "tone", base=ground_of(base).record)

    with pytest.raises(CheckFailed, match="--other-base"):
        convert(parent, ConvertOptions(rank=2), ground_of(other))
    allowed = convert(parent, ConvertOptions(rank=2, other_base=True), ground_of(other))
    assert "another base was allowed" in allowed.notes[0]


def test_a_base_without_the_adapters_modules_is_refused(tmp_path: Path) -> None:
    from adaptry.compute.conversion.base_shapes import ConversionBase

    pair = additive_pair(tmp_path, "vera")
    gpt2 = save_base(tmp_path / "gpt2", "gpt2")
    record = ground_of(gpt2).record
    for ground in (ground_of(gpt2), ConversionBase(record)):
        with pytest.raises(AdaptryError, match=r"not in .*is this the base it was trained on"):
            convert(ParentAdapter(open_dir(pair.adapter), "tone"), ConvertOptions(), ground)


def test_rows_beyond_the_base_are_not_converted(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", tokens=98, target_modules=["embed_tokens"], use_dora=True)
    assert adapted(base, adapter, 98) is not None
    with pytest.raises(AdaptryError, match="rows"):
        converted(adapter, base, tmp_path / "plain", rank=2)


def test_a_rank_and_an_energy_together_are_refused() -> None:
    with pytest.raises(ValueError, match="rank or energy, not both"):
        ConvertOptions(rank=2, energy=0.5)


def test_an_unverified_base_is_reported(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["q_proj"], use_dora=True)

    unknown = convert(ParentAdapter(open_dir(adapter), "tone"), ConvertOptions(rank=2), ground_of(base))
    known = convert(
        ParentAdapter(open_dir(adapter), "tone", base=ground_of(base).record),
        ConvertOptions(rank=2),
        ground_of(base),
    )

    assert "assumed, not checked: this is the base of tone" in unknown.notes[0]
    assert not known.notes
