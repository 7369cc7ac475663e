"""Merging when the base is quantised: which copy is used is stated and never guessed, and the dequantised
copy is bit-exact.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.record import MergeRecord
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import AdaptryError, CheckFailed, Unsupported
from adaptry.testing.quantised_samples import BLOCK, quantised_copy
from adaptry.testing.samples import tiny_base, tiny_lora, write_safetensors

from .conftest import merged_by_peft, tensors_of, torch, transformers

KINDS = [("nf4", False), ("nf4", True), ("fp4", False), ("fp4", True), ("int8", False)]
TARGETS = ("q_proj", "down_proj")


def by_formula(folder: Path) -> dict[str, Any]:
    """The tensors of a quantised checkpoint, dequantised: products in float64, rounded to float32, then to
    the dtype.

    int8 as PEFT writes it: `weight * SCB.view(-1, 1) * 7.874015718698502e-3`.
    """
    stored = tensors_of(folder)
    plain = {name: tensor for name, tensor in stored.items() if "_proj" not in name}
    dtype = plain["model.norm.weight"].dtype
    for name in (name for name in stored if name.endswith("_proj.weight")):
        if (rows := stored.get(f"{name.removesuffix('.weight')}.SCB")) is not None:
            plain[name] = (stored[name] * rows.view(-1, 1) * 7.874015718698502e-3).to(dtype)
            continue
        state = next(tensor for key, tensor in stored.items() if key.startswith(f"{name}.quant_state"))
        written = json.loads(bytes(state.tolist()))
        scales = stored[f"{name}.absmax"]
        if f"{name}.nested_absmax" in stored:
            inner = stored[f"{name}.nested_quant_map"][scales.long()].double()
            scales = (inner * stored[f"{name}.nested_absmax"].double()).float() + written["nested_offset"]
        codes = torch.stack([stored[name] >> 4, stored[name] & 15], dim=-1).flatten().long()
        values = stored[f"{name}.quant_map"][codes].double()
        products = values * scales.double().repeat_interleave(BLOCK)[: len(values)]
        plain[name] = products.float().to(dtype).view(written["shape"])
    return plain


def plain_copy(folder: Path, out: Path) -> Path:
    """The same weights as a checkpoint that is not quantised."""
    out.mkdir()
    save_file(by_formula(folder), out / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (out / "config.json").write_text(json.dumps(config))
    return out


def merged(
    base: Path, *adapters: Path, known: BaseRecord | None = None, found: str = "", **recipe: Any
) -> MergeRecord:
    """Merges `adapters` into `base`, as the folder `merged` next to it."""
    inputs = tuple(RecipeInput(source=f"./{path.name}") for path in adapters)
    sources = [
        MergeSource(WeightedAdapter(open_dir(path), 1.0, f"./{path.name}", known)) for path in adapters
    ]
    asked = MergeRecipe(base="./base", inputs=inputs, **recipe)
    return merge(asked, open_checkpoint(base), sources, base.parent / "merged", base_evidence=found)


def refusal(base: Path, adapter: Path, known: BaseRecord | None = None, **recipe: Any) -> AdaptryError:
    with pytest.raises(AdaptryError) as caught:
        merged(base, adapter, known=known, **recipe)
    assert not (base.parent / "merged").exists()
    return caught.value


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize(("method", "nested"), KINDS)
def test_a_merge_into_the_dequantised_copy_is_pefts_merge_into_it_bit_for_bit(
    tmp_path: Path, method: str, nested: bool, dtype: str
) -> None:
    tiny_base(tmp_path / "original", dtype=dtype)
    base = quantised_copy(tmp_path / "original", tmp_path / "base", method, nested=nested)
    adapter = tiny_lora(tmp_path / "tone", targets=TARGETS)

    record = merged(base, adapter, base_copy="dequantised")

    wanted = merged_by_peft(plain_copy(base, tmp_path / "plain"), adapter)
    result = tensors_of(tmp_path / "merged")
    assert result.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(result[name], tensor), name
    assert record.baked == 4


def test_the_result_is_a_plain_checkpoint_that_transformers_loads(tmp_path: Path) -> None:
    tiny_base(tmp_path / "original", dtype="BF16")
    base = quantised_copy(tmp_path / "original", tmp_path / "base")
    merged(base, tiny_lora(tmp_path / "tone"), base_copy="dequantised")
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    shapes = {name: info.shape for name, info in open_checkpoint(tmp_path / "original").tensors.items()}
    assert {name: info.shape for name, info in open_checkpoint(tmp_path / "merged").tensors.items()} == shapes


def test_the_record_names_the_copy_and_the_reason(tmp_path: Path) -> None:
    base = quantised_copy(tiny_base(tmp_path / "original"), tmp_path / "base", "int8")
    record = merged(base, tiny_lora(tmp_path / "tone"), base_copy="dequantised")
    assert record.base_copy is not None
    assert record.base_copy.kind == "dequantised"
    assert record.base_copy.reason == record.notes[0]
    assert record.base_copy.reason.startswith(
        f"{base} is quantised (bitsandbytes int8, 8-bit) and was dequantised like in bitsandbytes"
    )
    assert record.base == fingerprint(open_checkpoint(base)).id
    assert MergeRecord.model_validate_json((tmp_path / "merged" / "adaptry_merge.json").read_text()) == record


def test_the_parts_of_a_weight_may_lie_in_different_files(tmp_path: Path) -> None:
    tiny_base(tmp_path / "original")
    base = quantised_copy(tmp_path / "original", tmp_path / "base")
    adapter = tiny_lora(tmp_path / "tone")
    tensors = load_file(base / "model.safetensors")
    scales = {name: tensor for name, tensor in tensors.items() if name.endswith((".absmax", ".quant_map"))}
    parts = {"a": {name: tensors[name] for name in tensors.keys() - scales.keys()}, "b": scales}
    for file, held in parts.items():
        save_file(held, base / f"model-{file}.safetensors")
    places = {name: f"model-{file}.safetensors" for file, held in parts.items() for name in held}
    (base / "model.safetensors").unlink()
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    merged(base, adapter, base_copy="dequantised")

    wanted = merged_by_peft(plain_copy(base, tmp_path / "plain"), adapter)
    result = tensors_of(tmp_path / "merged")
    assert all(torch.equal(result[name], tensor) for name, tensor in wanted.items())
    assert [path.name for path in (tmp_path / "merged").glob("*.safetensors")] == ["model-a.safetensors"]


def test_two_adapters_are_summed_before_the_one_rounding(tmp_path: Path) -> None:
    tiny_base(tmp_path / "original", dtype="BF16")
    base = quantised_copy(tmp_path / "original", tmp_path / "base")
    adapters = [tiny_lora(tmp_path / name, seed=seed) for seed, name in ((1, "tone"), (2, "facts"))]
    merged(base, *adapters, base_copy="dequantised")
    name = "model.layers.0.self_attn.q_proj"
    total = by_formula(base)[f"{name}.weight"].double()
    for adapter in adapters:
        factors = load_file(adapter / "adapter_model.safetensors")
        up, down = (factors[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "BA")
        total += 2.0 * up @ down
    assert torch.equal(tensors_of(tmp_path / "merged")[f"{name}.weight"], total.to(torch.bfloat16))


def test_a_cast_rounds_the_sum_once(tmp_path: Path) -> None:
    tiny_base(tmp_path / "original", dtype="BF16")
    base = quantised_copy(tmp_path / "original", tmp_path / "base")
    adapter = tiny_lora(tmp_path / "tone")
    merged(base, adapter, base_copy="dequantised", dtype="F32")
    plain = plain_copy(base, tmp_path / "plain")
    save_file(
        {name: t.float() for name, t in load_file(plain / "model.safetensors").items()},
        plain / "model.safetensors",
    )
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps({**config, "torch_dtype": "float32"}))
    wanted = merged_by_peft(plain, adapter)
    assert all(torch.equal(tensors_of(tmp_path / "merged")[name], tensor) for name, tensor in wanted.items())


def test_a_quantised_base_is_merged_into_only_when_the_copy_is_chosen(tmp_path: Path) -> None:
    base = quantised_copy(tiny_base(tmp_path / "original"), tmp_path / "base")
    adapter = tiny_lora(tmp_path / "tone")
    error = refusal(base, adapter)
    assert isinstance(error, CheckFailed)
    assert (
        error.message
        == f"{base} is quantised (bitsandbytes nf4, 4-bit): pass --base-copy dequantised to merge into its"
        " dequantised weights, with which a QLoRA adapter was trained (the result is not"
        " quantised), or --base-copy original to merge into the model that it was quantised from"
    )
    assert "pass that with --base" in refusal(base, adapter, base_copy="original").message


@pytest.mark.parametrize("by_content", [True, False])
def test_merging_a_copys_adapter_into_the_original_needs_an_option(tmp_path: Path, by_content: bool) -> None:
    base = tiny_base(tmp_path / "base")
    known = fingerprint(open_checkpoint(quantised_copy(base, tmp_path / "copy"))) if by_content else None
    adapter = tiny_lora(tmp_path / "tone", base_name="org/tiny" if by_content else "unsloth/tiny-bnb-4bit")
    why = (
        f"its base {known.id.brief} is bitsandbytes nf4"
        if known
        else "its config names unsloth/tiny-bnb-4bit"
    )

    for asked in (None, "dequantised"):
        error = refusal(base, adapter, known, base_copy=asked)
        assert isinstance(error, CheckFailed)
        assert why in error.message
        assert "--base-copy original" in error.message

    record = merged(base, adapter, known=known, base_copy="original")
    assert record.base_copy is not None
    assert record.base_copy.kind == "original"
    assert why in record.base_copy.reason
    assert "differs from the trained model by the rounding of that copy" in record.notes[0]


def test_an_original_that_was_found_is_named_with_its_evidence(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    found = "./copy is a quantised copy of org/tiny"
    record = merged(base, tiny_lora(tmp_path / "tone"), found=found, base_copy="original")
    assert record.base_copy is not None
    assert record.base_copy.reason == f"{found}, as --base-copy original requires"


def test_without_quantisation_the_choice_has_no_effect_and_is_reported(tmp_path: Path) -> None:
    record = merged(tiny_base(tmp_path / "base"), tiny_lora(tmp_path / "tone"), base_copy="original")
    assert record.base_copy is None
    assert record.notes == ("--base-copy original has no effect: no base is known to be quantised",)


def test_unsupported_quantisations_are_refused_with_a_remedy(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    stored = {
        name: (info.dtype, info.shape, bytes(info.size))
        for name, info in open_checkpoint(base).tensors.items()
    }
    stem = "model.layers.0.self_attn.q_proj"
    del stored[f"{stem}.weight"]
    stored |= {f"{stem}.qweight": ("I32", (2, 16), bytes(128)), f"{stem}.qzeros": ("I32", (1, 2), bytes(8))}
    stored |= {f"{stem}.scales": ("F16", (1, 16), bytes(32)), f"{stem}.g_idx": ("I32", (16,), bytes(64))}
    write_safetensors(base / "model.safetensors", stored)
    for asked in (None, "dequantised"):
        error = refusal(base, tiny_lora(tmp_path / "tone"), base_copy=asked)
        assert isinstance(error, Unsupported)
        assert (
            error.message
            == f"{base} is quantised (gptq, 4-bit), which cannot be dequantised here: serve the adapter"
            " unmerged, or merge into the original (--base ORIGINAL --base-copy original) and quantise"
            " the result"
        )


def test_four_bit_weights_of_another_dtype_than_the_configs_are_reported(tmp_path: Path) -> None:
    base = quantised_copy(tiny_base(tmp_path / "original", dtype="F16"), tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    record = merged(base, tiny_lora(tmp_path / "tone"), base_copy="dequantised")
    assert "written as F16, from which they were quantised, but config.json has BF16" in record.notes[1]


def test_eight_bit_weights_without_a_known_dtype_need_the_option(tmp_path: Path) -> None:
    base = quantised_copy(tiny_base(tmp_path / "original"), tmp_path / "base", "int8")
    config = json.loads((base / "config.json").read_text())
    del config["torch_dtype"]
    (base / "config.json").write_text(json.dumps(config))
    adapter = tiny_lora(tmp_path / "tone")
    assert "pass --dtype" in refusal(base, adapter, base_copy="dequantised").message
    merged(base, adapter, base_copy="dequantised", dtype="BF16")
    assert tensors_of(tmp_path / "merged")["model.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16
