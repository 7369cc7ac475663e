"""Methods that depend on the base or have full rank: the nearest LoRA, and the reported distance."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402  (needs torch, here and below)

from adaptry.core.errors import CheckFailed  # noqa: E402

from ..methods.additive import pair_of as additive_pair  # noqa: E402
from ..methods.lora_merging import merged_by_peft, save_adapter, save_base  # noqa: E402
from ..methods.on_base import pair_of  # noqa: E402
from .converted import converted, distance, ground_of, in_place  # noqa: E402

CLOSE = 1e-6
MATRICES = ["q_proj", "v_proj", "down_proj"]
THIN = {
    "hra": {5}, "hra orthogonal": {4}, "hra of blocks": {4}, "deft": {4}, "deft by qr": {4},
    "deft of conv1d": {4}, "peanut deep": {4}, "psoft": {6}, "psoft projected": {6}, "osf": {8, 32},
}  # fmt: skip
FULL = [
    "oft", "oft of blocks", "boft", "road_4", "hira of conv1d", "glora", "glora of the bias", "frod", "ia3",
    "ia3 of conv1d", "ia3 of blocks",
]  # fmt: skip
ADDED = ["randlora", "fourierft of conv1d", "waveft", "c3a", "shira", "supertuning with lora", "miss bat"]


@pytest.mark.parametrize("name", THIN)
def test_a_low_rank_update_is_converted_at_its_own_rank(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)
    wanted, before = pair.merged_by_peft(), pair.base_weights()

    made = in_place(pair, tmp_path / "plain")
    if "blocks" in name:
        pair.configure(auto_mapping=None)

    assert set(made.adapter.spec.ranks) == THIN[name]
    assert made.outcome.error <= CLOSE
    assert distance(pair.merged_by_peft(), wanted, before) <= CLOSE * distance(wanted, before, before)


@pytest.mark.parametrize("name", FULL)
def test_keeping_all_energy_keeps_the_whole_update_with_biases(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)
    wanted, before = pair.merged_by_peft(), pair.base_weights()

    in_place(pair, tmp_path / "plain", energy=1.0)
    if "blocks" in name:
        pair.configure(auto_mapping=None)

    change = distance(wanted, before, before)
    assert distance(pair.merged_by_peft(), wanted, before) <= CLOSE * change
    assert distance(pair.merged(), wanted, before) <= CLOSE * change


@pytest.mark.parametrize("name", ADDED)
def test_the_reported_error_is_the_distance_of_the_merged_weights(tmp_path: Path, name: str) -> None:
    pair = additive_pair(tmp_path, name)
    wanted, before = pair.merged_by_peft(), pair.base_weights()

    made = in_place(pair, tmp_path / "plain", rank=4)

    assert made.adapter.spec.ranks == (4,)
    told = made.outcome.error
    assert 0.01 < told < 1
    seen = distance(pair.merged_by_peft(), wanted, before) / distance(wanted, before, before)
    assert math.isclose(told, seen, rel_tol=1e-4)


def test_an_added_update_needs_the_shapes_of_the_base_and_not_its_weights(tmp_path: Path) -> None:
    from adaptry import open_dir
    from adaptry.compute.conversion.base_shapes import ConversionBase
    from adaptry.compute.conversion.convert import convert, needs_base_values
    from adaptry.compute.conversion.options import ConvertOptions
    from adaptry.compute.lazy_adapters.folder_writer import write_adapter
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter

    pair = additive_pair(tmp_path, "fourierft")
    parent = ParentAdapter(open_dir(pair.adapter), "tone")
    assert not needs_base_values(parent, ConvertOptions())

    shapes_alone = ConversionBase(ground_of(pair.base).record)
    write_adapter(convert(parent, ConvertOptions(energy=1.0), shapes_alone), tmp_path / "by-shapes")
    converted(pair.adapter, pair.base, tmp_path / "by-weights", energy=1.0)

    first, second = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("by-shapes", "by-weights")
    )
    assert all(torch.equal(first[key], second[key]) for key in first | second)


@pytest.mark.parametrize(
    ("kind", "targets"),
    [("llama", MATRICES), ("gpt2", ["c_attn", "c_proj"]), ("layers", ["line", "plane", "point"])],
)
def test_a_dora_becomes_the_nearest_lora_that_a_full_decomposition_finds(
    tmp_path: Path, kind: str, targets: list[str]
) -> None:
    base = save_base(tmp_path / "base", kind)
    adapter = save_adapter(base, tmp_path / "tone", target_modules=targets, use_dora=True)
    wanted, before = merged_by_peft(base, adapter), load_file(base / "model.safetensors")

    made = converted(adapter, base, tmp_path / "plain", rank=3)

    told = {each.module: each.figures for each in made.outcome.modules}
    for module, figures in told.items():
        name = f"{module}.weight"
        update = wanted[name].double() - before[name].double()
        values = torch.linalg.svdvals(update.flatten(1))
        assert math.isclose(figures["energy"], float(values.square().sum()), rel_tol=1e-5)
        assert math.isclose(figures["lost"], float(values[3:].square().sum()), rel_tol=1e-4)
    assert 0.05 < made.outcome.error < 1


@pytest.mark.parametrize("variant", [{"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}])
def test_the_part_removed_by_an_initialisation_adds_its_rank(tmp_path: Path, variant: dict[str, Any]) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=MATRICES, **variant)
    wanted, before = merged_by_peft(base, adapter), load_file(base / "model.safetensors")

    made = converted(adapter, base, tmp_path / "plain")

    assert made.adapter.spec.ranks == (8,)
    assert distance(merged_by_peft(base, tmp_path / "plain"), wanted, before) <= CLOSE * distance(
        wanted, before, before
    )


@pytest.mark.parametrize("name", ["loha", "lokr", "c3a", "randlora", "gralora", "delora"])
def test_pefts_own_conversion_is_not_closer(tmp_path: Path, name: str) -> None:
    """The comparison is with PEFT's `convert_to_lora` on the same live adapter, at the same rank."""
    pair = additive_pair(tmp_path, name)
    wanted, before = pair.merged_by_peft(), pair.base_weights()
    live = transformers.AutoModelForCausalLM.from_pretrained(pair.base, dtype="auto")
    live = peft.PeftModel.from_pretrained(live, pair.adapter)
    config, state = peft.convert_to_lora(live, rank=3)
    theirs = tmp_path / "theirs"
    model = transformers.AutoModelForCausalLM.from_pretrained(pair.base, dtype="auto")
    model = peft.get_peft_model(model, config)
    peft.set_peft_model_state_dict(model, state)
    model.save_pretrained(theirs)

    made = in_place(pair, tmp_path / "ours", rank=3)

    ours = distance(pair.merged_by_peft(), wanted, before)
    pair.adapter = theirs
    assert ours <= distance(pair.merged_by_peft(), wanted, before) * (1 + 1e-5)
    assert set(made.adapter.spec.ranks) <= {2, 3}


def test_a_base_of_half_precision_is_converted_without_its_roundings(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama", torch.bfloat16)
    adapter = save_adapter(base, tmp_path / "tone", target_modules=MATRICES, use_dora=True)

    made = converted(adapter, base, tmp_path / "plain", energy=1.0)
    assert made.outcome.error <= CLOSE

    rounded = converted(adapter, base, tmp_path / "rounded", energy=1.0, dtype="BF16")
    assert rounded.adapter.spec.dtypes == ("BF16",)
    assert 1e-4 < rounded.outcome.error < 1e-2  # the reported error is that of the written numbers


def test_one_rank_for_all_modules_is_filled_with_zeros(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=MATRICES, use_dora=True)

    own = converted(adapter, base, tmp_path / "own", energy=0.8)
    same = converted(adapter, base, tmp_path / "same", energy=0.8, uniform=True)

    assert len(own.adapter.spec.ranks) > 1
    assert same.adapter.spec.ranks == own.adapter.spec.ranks[-1:]
    before = load_file(base / "model.safetensors")
    first, second = (merged_by_peft(base, tmp_path / name) for name in ("own", "same"))
    assert distance(first, second, before) <= CLOSE * distance(first, before, before)


def test_changed_biases_are_kept_whole_or_left_out_with_a_note(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "ia3")
    wanted = pair.merged_by_peft()

    whole = converted(pair.adapter, pair.base, tmp_path / "whole", energy=1.0)
    without = converted(pair.adapter, pair.base, tmp_path / "without", energy=1.0, drop_bias=True)

    config = json.loads((tmp_path / "whole" / "adapter_config.json").read_text())
    assert config["bias"] == "lora_only" and len(whole.adapter.spec.extras) == 4  # without those of down_proj
    assert without.adapter.spec.extras == () and "left out, as requested" in without.lazy_adapter.notes[-1]
    pair.adapter = tmp_path / "whole"
    found = pair.merged_by_peft()
    for extra in whole.adapter.spec.extras:
        assert torch.allclose(found[extra.target], wanted[extra.target], rtol=1e-6)


def test_the_same_conversion_gives_the_same_bytes(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=MATRICES, use_dora=True)

    files = [
        converted(adapter, base, tmp_path / name, rank=2).folder / "adapter_model.safetensors"
        for name in "ab"
    ]

    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_full_update_without_a_rank_is_refused_with_the_choices(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "oft")
    with pytest.raises(CheckFailed, match=r"it may have rank 32.*pass --rank N or --energy 0\.99"):
        converted(pair.adapter, pair.base, tmp_path / "plain")


def test_a_conversion_of_an_embedding_uses_the_adapters_own_rows(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["embed_tokens"], use_dora=True)
    wanted, before = merged_by_peft(base, adapter), load_file(base / "model.safetensors")

    made = converted(adapter, base, tmp_path / "plain", energy=1.0)

    assert [extra.kind for extra in made.adapter.spec.extras] == ["saved_embedding"]
    assert distance(merged_by_peft(base, tmp_path / "plain"), wanted, before) <= CLOSE * distance(
        wanted, before, before
    )
