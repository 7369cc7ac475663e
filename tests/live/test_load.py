"""`adaptry.load`: it loads the file's tensors, the model's output equals that with PEFT's own loading, and an
adapter that has no effect, or was trained on another base, is an error that leaves the model unchanged.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import adaptry
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import (
    CheckFailed,
    Conflict,
    Invalid,
    InvalidWeights,
    MissingDependency,
    NotFound,
    Unavailable,
    Unsupported,
    Withdrawn,
)
from adaptry.core.failpoints import GATE
from adaptry.integrations.serving import Cache
from adaptry.operations import base_registry
from adaptry.registry.interface import Registry
from adaptry.registry.records import StateChange
from adaptry_api.testing import until

from .conftest import MakeAdapter, answers, tiny_llama


def loaded_by_peft(base: Path, folder: Path) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    return answers(peft.PeftModel.from_pretrained(model, folder))


def test_loaded_tensors_equal_those_of_the_file(registry: Registry, make: MakeAdapter) -> None:
    folder = make()
    adaptry.push(registry, adaptry.open_dir(folder), "acme/tone")
    stored = load_file(folder / "adapter_model.safetensors")
    for tensors in (adaptry.load("acme/tone@1", registry=registry), adaptry.load(folder)):
        assert list(tensors) == list(adaptry.open_dir(folder).tensors)
        assert all(torch.equal(tensors[name], stored[name]) for name in stored)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_floats_have_the_requested_dtype(make: MakeAdapter, kind: torch.dtype) -> None:
    folder = make()
    stored = load_file(folder / "adapter_model.safetensors")
    tensors = adaptry.load(folder, dtype=kind)
    assert all(torch.equal(tensors[name], stored[name].to(kind)) for name in stored)


def test_writing_to_a_tensor_changes_no_file(make: MakeAdapter) -> None:
    folder = make()
    before = (folder / "adapter_model.safetensors").read_bytes()
    tensors = adaptry.load(folder)
    next(iter(tensors.values())).zero_()
    assert (folder / "adapter_model.safetensors").read_bytes() == before


def test_tensors_that_begin_anywhere_in_the_file_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    values = {name.format("A"): torch.randn(2, 8), name.format("B"): torch.randn(8, 2)}
    save_file(values, folder / "adapter_model.safetensors")
    data = (folder / "adapter_model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    longer = data[8 : 8 + length] + b" "
    (folder / "adapter_model.safetensors").write_bytes(
        len(longer).to_bytes(8, "little") + longer + data[8 + length :]
    )
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]})
    )
    tensors = adaptry.load(folder)
    assert all(torch.equal(tensors[key], values[key]) for key in values)


def test_loaded_tensors_outlive_their_cache(registry: Registry, make: MakeAdapter, tmp_path: Path) -> None:
    folder = make()
    adaptry.push(registry, adaptry.open_dir(folder), "acme/tone")
    cache = Cache(tmp_path / "cache")
    tensors = adaptry.load("acme/tone", registry=registry, cache=cache)
    cache.shrink(0)
    assert not cache.entries()
    stored = load_file(folder / "adapter_model.safetensors")
    assert all(torch.equal(tensors[name], stored[name]) for name in stored)


@pytest.mark.filterwarnings(
    "ignore:`past_key_values` is deprecated:FutureWarning"
)  # PEFT's prefixes in transformers 5
@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
        peft.LoraConfig(r=4, lora_alpha=8, use_rslora=True, use_dora=True, target_modules="all-linear"),
        peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        peft.LoraConfig(r=4, target_modules=["q_proj"], rank_pattern={"layers.1.self_attn.q_proj": 2}),
        peft.LoraConfig(r=4, target_modules=["embed_tokens"]),
        peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        peft.LoHaConfig(r=4, target_modules=["q_proj"]),
        peft.OFTConfig(r=0, oft_block_size=4, target_modules=["q_proj"]),
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    ],
    ids=lambda config: config.peft_type.value.lower(),
)
def test_a_model_answers_as_after_pefts_own_loading(
    registry: Registry, base: Path, model: Any, make: MakeAdapter, config: peft.PeftConfig
) -> None:
    folder = make(config=config)
    adaptry.push(registry, adaptry.open_dir(folder), "acme/tone")
    placed = adaptry.load("acme/tone", registry=registry, into=model)
    assert placed.version is not None and placed.version.number == 1
    assert torch.equal(answers(placed.model), loaded_by_peft(base, folder))


def test_a_second_adapter_joins_the_first(base: Path, model: Any, make: MakeAdapter) -> None:
    first, second = make(1), make(2)
    placed = adaptry.load(first, into=model)
    again = adaptry.load(second, into=placed.model, name="second")
    assert again.model is placed.model
    assert torch.equal(answers(placed.model), loaded_by_peft(base, first))
    placed.model.set_adapter("second")
    assert torch.equal(answers(placed.model), loaded_by_peft(base, second))
    with pytest.raises(Conflict, match="hotswap=True"):
        adaptry.load(first, into=placed.model, name="second")


PLAIN = {
    "plain": peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
    "another rank": peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"]),
    "rslora and dropout": peft.LoraConfig(
        r=4, use_rslora=True, lora_dropout=0.25, target_modules=["q_proj", "v_proj"]
    ),
    "another start": peft.LoraConfig(r=4, init_lora_weights="gaussian", target_modules=["q_proj", "v_proj"]),
    "some of the layers": peft.LoraConfig(r=4, target_modules=["layers.1.self_attn.q_proj", "v_proj"]),
}
OTHERS = {
    "more layers": peft.LoraConfig(r=4, target_modules=["q_proj", "k_proj"]),
    "dora": peft.LoraConfig(r=4, use_dora=True, target_modules=["q_proj", "v_proj"]),
    "a bias": peft.LoraConfig(r=4, lora_bias=True, target_modules=["q_proj", "v_proj"]),
    "a pattern of ranks": peft.LoraConfig(
        r=4, rank_pattern={"layers.1.self_attn.q_proj": 2}, target_modules=["q_proj", "v_proj"]
    ),
    "an expression": peft.LoraConfig(r=4, target_modules=r".*self_attn\.(q|v)_proj"),
    "a head": peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "embeddings": peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"]),
}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        *((config, torch.float32) for config in [*PLAIN.values(), *OTHERS.values()]),
        (PLAIN["plain"], torch.bfloat16),
    ],
    ids=[*PLAIN, *OTHERS, "half precision"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's warnings, equal for both models
def test_a_second_adapter_is_placed_as_by_pefts_own_loading(
    base: Path, make: MakeAdapter, config: peft.LoraConfig, kind: torch.dtype
) -> None:
    first, second = make(1), make(2, config)
    ours, theirs = (with_first(base, first, kind) for _ in range(2))

    seed = torch.get_rng_state()
    adaptry.load(second, into=ours, name="the-second")
    is_drawn = not torch.equal(torch.get_rng_state(), seed)
    theirs.load_adapter(str(second), "the-second", torch_device="cpu")

    assert state(ours) == state(theirs)
    assert is_drawn is not (config in PLAIN.values())  # no weights are drawn that are then overwritten
    ours.set_adapter("the-second")
    theirs.set_adapter("the-second")
    assert torch.equal(answers(ours), answers(theirs))
    ours.delete_adapter("the-second")
    theirs.delete_adapter("the-second")
    assert state(ours) == state(theirs)


def with_first(base: Path, first: Path, kind: torch.dtype) -> peft.PeftModel:
    """A model in training, with an adapter and a trained parameter of the base."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=kind)
    wrapped = peft.PeftModel.from_pretrained(model, first, is_trainable=True)
    wrapped.get_base_model().lm_head.weight.requires_grad_(True)
    return wrapped.train()


def state(model: peft.PeftModel) -> dict[str, object]:
    """Everything that loading can change in a model."""
    found: dict[str, object] = {
        "configs": {name: config.to_dict() for name, config in model.peft_config.items()},
        "active": model.active_adapters,
        "targets": model.base_model.targeted_module_names,
    }
    for path, module in model.named_modules():
        values = {
            name: value
            for name, value in vars(module).items()
            if isinstance(value, bool | int | float | str | list | dict) and not name.endswith("_hooks")
        }
        skipped = {"_parameters", "_modules", "_buffers", "config", "kwargs", "lora_variant", "peft_config"}
        found[path] = repr((type(module), {name: values[name] for name in sorted(values.keys() - skipped)}))
    for name, value in model.named_parameters():
        about = (value.dtype, value.shape, value.stride(), value.requires_grad, type(value))
        found[f"{name}="] = repr((*about, value.tolist()))
    return found


@pytest.mark.parametrize("name", ["f", "q_proj"])
def test_a_second_adapters_name_may_occur_in_the_paths_of_the_first_ones_parameters(
    base: Path, model: Any, make: MakeAdapter, name: str
) -> None:
    second = make(2, peft.LoraConfig(r=4, target_modules=["k_proj", "o_proj"], use_dora=True))
    placed = adaptry.load(make(1), into=model)
    adaptry.load(second, into=placed.model, name=name)
    placed.model.set_adapter(name)
    assert torch.equal(answers(placed.model), loaded_by_peft(base, second))


@pytest.mark.parametrize("name", ["default", "second"])
def test_a_model_that_is_wrapped_is_not_wrapped_again(
    base: Path, model: Any, make: MakeAdapter, name: str
) -> None:
    first, second = make(1), make(2)
    placed = adaptry.load(first, into=model)
    with pytest.raises(Conflict, match="around it"):
        adaptry.load(second, into=model, name=name)
    assert torch.equal(answers(placed.model), loaded_by_peft(base, first))

    again = adaptry.load(second, into=placed.model.unload(), name=name)
    assert torch.equal(answers(again.model), loaded_by_peft(base, second))


@pytest.mark.parametrize("trainable", [True, False])
def test_only_a_trainable_adapter_asks_for_gradients(model: Any, make: MakeAdapter, trainable: bool) -> None:
    placed = adaptry.load(make(), into=model, trainable=trainable)
    asking = [name for name, value in placed.model.named_parameters() if value.requires_grad]
    assert bool(asking) is trainable
    assert all("lora_" in name for name in asking)


def test_modules_that_the_model_lacks_are_refused_and_leave_it_unchanged(
    base: Path, model: Any, make: MakeAdapter, tmp_path: Path
) -> None:
    folder = make()
    before, names = answers(model), [name for name, _ in model.named_modules()]
    other = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64)
    )
    with pytest.raises(CheckFailed, match="no such module"):
        adaptry.load(folder, into=other)
    wider = make(2, model=tiny_llama(hidden=64))
    with pytest.raises(CheckFailed, match="size mismatch"):
        adaptry.load(wider, into=model)
    deeper = renamed(make(3), "model.layers.", "model.blocks.")
    with pytest.raises(CheckFailed, match=r"match nothing|no values"):
        adaptry.load(deeper, into=model)
    assert [name for name, _ in model.named_modules()] == names
    assert torch.equal(answers(model), before)
    assert torch.equal(answers(adaptry.load(folder, into=model).model), loaded_by_peft(base, folder))


def renamed(folder: Path, old: str, new: str) -> Path:
    """An adapter as saved by a trainer whose wrapper renamed its modules."""
    file = folder / "adapter_model.safetensors"
    save_file({name.replace(old, new): value for name, value in load_file(file).items()}, file)
    return folder


def test_a_file_with_half_of_its_keys_wrong_is_refused_in_a_model_with_adapters(
    model: Any, make: MakeAdapter
) -> None:
    placed = adaptry.load(make(1), into=model)
    before = answers(placed.model)
    with pytest.raises(CheckFailed, match=r"match nothing|no values"):
        adaptry.load(renamed(make(2), "layers.1.", "layers.7."), into=placed.model, name="second")
    assert set(placed.model.peft_config) == {"default"}
    assert torch.equal(answers(placed.model), before)


def test_another_base_is_refused_by_its_content(
    registry: Registry, base: Path, model: Any, make: MakeAdapter, tmp_path: Path
) -> None:
    known = base_registry.register_base(registry, open_checkpoint(base), names=("org/tiny",))
    adaptry.push(registry, make(), "acme/tone", base=known.id)
    found = adaptry.load("acme/tone", registry=registry, into=model).base
    assert found is not None and found.level in ("exact", "same_weights")

    torch.manual_seed(9)
    tiny_llama().save_pretrained(tmp_path / "other")
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "other")
    before = answers(other)
    with pytest.raises(CheckFailed, match=r"was trained on .*other_base=True"):
        adaptry.load("acme/tone", registry=registry, into=other)
    assert torch.equal(answers(other), before)
    assert adaptry.load("acme/tone", registry=registry, into=other, other_base=True).base is None


def test_a_copy_of_the_base_in_another_dtype_is_the_same_base(
    registry: Registry, base: Path, model: Any, make: MakeAdapter, tmp_path: Path
) -> None:
    known = base_registry.register_base(registry, open_checkpoint(base), names=("org/tiny",))
    adaptry.push(registry, make(), "acme/tone", base=known.id)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    half = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    found = adaptry.load("acme/tone", registry=registry, into=half).base
    assert found is not None and found.level == "cast"


def test_a_withdrawn_version_is_not_loaded(registry: Registry, model: Any, make: MakeAdapter) -> None:
    pushed = adaptry.push(registry, adaptry.open_dir(make()), "acme/tone").version
    adaptry.load("acme/tone@1", registry=registry)
    registry.versions.set_state(
        pushed.name, pushed.digest, StateChange(state="revoked", reason="it leaks"), was=0
    )
    with pytest.raises(Withdrawn, match="it leaks"):
        adaptry.load("acme/tone@1", registry=registry, into=model)


def test_a_swapped_in_adapter_answers_as_if_loaded(base: Path, model: Any, make: MakeAdapter) -> None:
    first, second = make(1), make(2, peft.LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"]))
    placed = adaptry.load(first, into=model)
    swapped = adaptry.load(second, into=placed.model, hotswap=True)
    assert swapped.model is placed.model
    assert torch.allclose(answers(placed.model), loaded_by_peft(base, second), atol=1e-6)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("rank", [2, 4, 8])
def test_saving_after_a_swap_saves_the_new_adapter(
    base: Path, model: Any, make: MakeAdapter, tmp_path: Path, rank: int, rslora: bool
) -> None:
    kinds = {"target_modules": ["q_proj", "v_proj"], "use_rslora": rslora}
    placed = adaptry.load(make(1, peft.LoraConfig(r=4, lora_alpha=8, **kinds)), into=model)
    second = make(2, peft.LoraConfig(r=rank, lora_alpha=3 * rank, **kinds))
    adaptry.load(second, into=placed.model, hotswap=True)
    placed.model.save_pretrained(tmp_path / "saved")
    expected = loaded_by_peft(base, second)
    assert torch.allclose(answers(placed.model), expected, atol=1e-6)
    assert torch.allclose(loaded_by_peft(base, tmp_path / "saved"), expected, atol=1e-6)


@pytest.mark.parametrize("kinds", [{"use_dora": True}, {"lora_bias": True}, {}], ids=str)
def test_more_than_factors_is_swapped_and_modules_that_the_new_adapter_leaves_alone_are_as_in_the_base(
    base: Path, model: Any, make: MakeAdapter, kinds: dict[str, Any]
) -> None:
    targets = ["q_proj", "v_proj"]
    placed = adaptry.load(make(1, peft.LoraConfig(r=4, target_modules=targets, **kinds)), into=model)
    fewer = targets if kinds.get("use_dora") else ["q_proj"]
    second = make(2, peft.LoraConfig(r=4, target_modules=fewer, **kinds))

    adaptry.load(second, into=placed.model, hotswap=True)

    assert torch.allclose(answers(placed.model), loaded_by_peft(base, second), atol=1e-6)


def test_only_the_adapter_of_that_name_is_swapped(base: Path, model: Any, make: MakeAdapter) -> None:
    first, second, third = make(1), make(2), make(3)
    placed = adaptry.load(first, into=model)
    adaptry.load(second, into=placed.model, name="other")

    adaptry.load(third, into=placed.model, name="other", hotswap=True)

    assert torch.allclose(answers(placed.model), loaded_by_peft(base, first), atol=1e-6)
    placed.model.set_adapter("other")
    assert torch.allclose(answers(placed.model), loaded_by_peft(base, third), atol=1e-6)


def test_a_merged_adapter_is_not_swapped(model: Any, make: MakeAdapter) -> None:
    placed = adaptry.load(make(1), into=model)
    placed.model.merge_adapter()
    before = answers(placed.model)

    with pytest.raises(Unsupported, match="unmerge_adapter"):
        adaptry.load(make(2), into=placed.model, hotswap=True)

    assert torch.equal(answers(placed.model), before)


def test_an_adapter_whose_file_ends_during_a_swap_answers_as_the_base(
    base: Path, model: Any, make: MakeAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = adaptry.load(make(1), into=model)
    second, gate = make(2), tmp_path / "gate"
    gate.mkdir()
    (gate / "place").write_text("hotswap.checked")
    monkeypatch.setenv(GATE, str(gate))

    with ThreadPoolExecutor(1) as pool:
        swapping = pool.submit(adaptry.load, second, into=placed.model, hotswap=True)
        until((gate / "here").exists, bool)
        weights = second / "adapter_model.safetensors"
        os.truncate(weights, weights.stat().st_size - 8)
        (gate / "here").unlink()
        with pytest.raises(Unavailable, match="became shorter"):
            swapping.result()

    plain = transformers.AutoModelForCausalLM.from_pretrained(base)
    assert torch.equal(answers(placed.model), answers(plain))


def test_a_file_that_is_too_short_is_refused_before_a_swap(model: Any, make: MakeAdapter) -> None:
    placed, second = adaptry.load(make(1), into=model), make(2)
    before = answers(placed.model)
    weights = second / "adapter_model.safetensors"
    os.truncate(weights, weights.stat().st_size - 8)

    with pytest.raises(InvalidWeights):
        adaptry.load(second, into=placed.model, hotswap=True)

    assert torch.equal(answers(placed.model), before)


def test_magnitudes_that_a_swap_would_leave_are_refused(model: Any, make: MakeAdapter) -> None:
    kinds = {"r": 4, "use_dora": True}
    placed = adaptry.load(make(1, peft.LoraConfig(target_modules=["q_proj", "v_proj"], **kinds)), into=model)
    before = answers(placed.model)

    with pytest.raises(Unsupported, match="magnitudes"):
        fewer = peft.LoraConfig(target_modules=["q_proj"], **kinds)
        adaptry.load(make(2, fewer), into=placed.model, hotswap=True)

    assert torch.equal(answers(placed.model), before)


def test_an_unsupported_swap_is_refused(base: Path, model: Any, make: MakeAdapter) -> None:
    placed = adaptry.load(make(1), into=model)
    before = answers(placed.model)
    more = ["q_proj", "v_proj", "k_proj"]
    for config, error in [
        (peft.LoraConfig(r=4, target_modules=more), CheckFailed),
        (peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]), Unsupported),
        (peft.LoraConfig(r=4, target_modules=["q_proj"], use_rslora=True), Unsupported),
        (peft.LoHaConfig(r=4, target_modules=["q_proj"]), Unsupported),
    ]:
        with pytest.raises(error):
            adaptry.load(make(2, config), into=placed.model, hotswap=True)
    with pytest.raises(CheckFailed, match="from 64"):
        adaptry.load(make(3, model=tiny_llama(hidden=64)), into=placed.model, hotswap=True)
    with pytest.raises(NotFound, match="no adapter 'other'"):
        adaptry.load(make(4), into=placed.model, hotswap=True, name="other")
    assert torch.equal(answers(placed.model), before)
    with pytest.raises(NotFound, match="has none"):
        adaptry.load(make(4), into=transformers.AutoModelForCausalLM.from_pretrained(base), hotswap=True)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float16"},
        {"dtype": torch.int8},
        {"device": "toaster"},
        {"device": 3.5},
        {"hotswap": True},
        {"trainable": True},
        {"into": 5},
    ],
    ids=str,
)
def test_impossible_options_are_reported_immediately(make: MakeAdapter, options: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        adaptry.load(make(), **options)


def test_a_model_whose_weights_were_not_loaded_is_refused(base: Path, make: MakeAdapter) -> None:
    config = transformers.AutoConfig.from_pretrained(base)
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(Invalid, match="no weights yet"):
        adaptry.load(make(), into=empty)


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(Invalid, match="a ref"):
        adaptry.load(None)  # type: ignore[call-overload]


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    model: Any, make: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make(1)
    for library in ("peft", "torch"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependency, match=r"needs peft: pip install 'peft>=0\.17'"):
        adaptry.load(adapter, into=model)
    with pytest.raises(MissingDependency, match=r"needs torch: pip install 'adaptry\[torch\]'"):
        adaptry.load(adapter)
