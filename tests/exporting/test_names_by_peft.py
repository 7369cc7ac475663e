"""Repaired adapters with names or configs that PEFT silently ignored: PEFT merges them to exactly the weights
of the intact adapter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.testing.samples import random_tensor, tiny_base, tiny_lora, write_safetensors
from adaptry_cli.main import main

pytest.importorskip("peft", reason="PEFT is the reference here: pip install 'adaptry[demo]'")

PREFIX = "base_model.model."
Weights = Mapping[str, torch.Tensor]
Rename = Callable[[str], str]


def replaced(old: str, new: str) -> Rename:
    return lambda name: name.replace(old, new, 1)


NAMES: dict[str, Rename] = {
    "a part more": replaced(f"{PREFIX}model", f"{PREFIX}foo.model"),
    "a part less": replaced(f"{PREFIX}model.", PREFIX),
    "another model's": replaced(f"{PREFIX}model.layers", "model.language_model.layers"),
    "torch.compile's": replaced(PREFIX, f"{PREFIX}_orig_mod."),
    "torch.compile's, of a block": replaced("self_attn.", "self_attn._orig_mod."),
    "a policy's": replaced(PREFIX, f"{PREFIX}policy.llm."),
    "the prefix twice": replaced(PREFIX, PREFIX * 2),
    "no prefix": replaced(PREFIX, ""),
    "no prefix, and a part less": replaced(f"{PREFIX}model.", ""),
    "another adapter's name inside": replaced(".weight", ".foo.weight"),
    "a part more, in one layer": lambda name: name.replace(
        "model.model.layers.1", "model.foo.model.layers.1"
    ),
}
WITHOUT_BASE = ("torch.compile's", "torch.compile's, of a block", "the prefix twice", "no prefix",
                "another adapter's name inside")  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "no modules": {"target_modules": None},
    "an empty list": {"target_modules": []},
    "fewer modules": {"target_modules": ["q_proj"]},
    "modules of another name": {"target_modules": ["foo"]},
    "a pattern of fewer modules": {"target_modules": r".*\.q_proj"},
    "some left out": {"exclude_modules": ["v_proj"]},
    "a layer left out": {"layers_to_transform": [0]},
    "a saved head that it has not": {"modules_to_save": ["lm_head"]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


def broken(adapter: Path, folder: Path, rename: Rename = str, **fields: Any) -> Path:
    """The same adapter under other names, or with another config."""
    folder.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **fields}))
    view = open_dir(adapter)
    tensors = {
        rename(name): (info.dtype, info.shape, view.tensor_bytes(name)) for name, info in view.tensors.items()
    }
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


def merged(base: Path, adapter: Path | None) -> Weights:
    """The base's weights once PEFT has merged the adapter into them."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is None:
        return model.state_dict()
    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()


def are_same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def judged(adapter: Path, base: Path | None) -> str:
    record = fingerprint(open_checkpoint(base)) if base else None
    return check_runtime(open_dir(adapter), parse_runtime("peft"), record).outcome


def exported(adapter: Path, to: Path, *words: str) -> None:
    found = CliRunner().invoke(main, ["export", str(adapter), "--for", "peft", "-o", str(to), *words])
    assert found.exit_code == 0, found.output


@pytest.mark.filterwarnings("ignore:Found missing adapter keys", "ignore:Already found a")
@pytest.mark.parametrize("names", NAMES)
def test_names_that_peft_drops_are_exported_with_names_it_reads(
    base: Path, tmp_path: Path, names: str
) -> None:
    right = tiny_lora(tmp_path / "right")
    wrong = broken(right, tmp_path / "wrong", NAMES[names])
    assert not are_same(merged(base, wrong), merged(base, right))
    assert judged(wrong, base) == "not_as_trained"

    exported(wrong, tmp_path / "out", "--base", str(base))

    assert are_same(merged(base, tmp_path / "out"), merged(base, right))
    assert judged(tmp_path / "out", base) == "as_trained"


@pytest.mark.parametrize("names", WITHOUT_BASE)
def test_misspelt_names_are_corrected_without_a_base(base: Path, tmp_path: Path, names: str) -> None:
    right = tiny_lora(tmp_path / "right")
    wrong = broken(right, tmp_path / "wrong", NAMES[names])

    exported(wrong, tmp_path / "out")

    assert are_same(merged(base, tmp_path / "out"), merged(base, right))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_that_excludes_modules_is_exported_with_the_files_modules(
    base: Path, tmp_path: Path, config: str
) -> None:
    right = tiny_lora(tmp_path / "right", targets=("q_proj", "v_proj", "down_proj"))
    wrong = broken(right, tmp_path / "wrong", **CONFIGS[config])
    assert judged(wrong, base) != "as_trained"

    exported(wrong, tmp_path / "out", "--base", str(base))

    assert are_same(merged(base, tmp_path / "out"), merged(base, right))
    assert judged(tmp_path / "out", base) == "as_trained"


def test_modules_of_one_layer_are_listed_by_their_whole_paths(base: Path, tmp_path: Path) -> None:
    """If they were listed by their last names, PEFT would initialise the other layer's modules with random
    numbers.
    """
    whole = tiny_lora(tmp_path / "whole")
    right = broken(whole, tmp_path / "right", layers_to_transform=[1], init_lora_weights=False)
    view = open_dir(right)
    only = {
        name: (info.dtype, info.shape, view.tensor_bytes(name))
        for name, info in view.tensors.items()
        if "layers.1" in name
    }
    write_safetensors(right / "adapter_model.safetensors", only)
    wrong = broken(right, tmp_path / "wrong", target_modules=["q_proj"])

    exported(wrong, tmp_path / "out", "--base", str(base))

    targets = open_dir(tmp_path / "out").config.fields["target_modules"]
    assert targets == ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"]
    assert are_same(merged(base, tmp_path / "out"), merged(base, right))


def test_a_scale_by_pattern_stays_with_its_module_under_its_new_name(base: Path, tmp_path: Path) -> None:
    pattern = {"model.layers.0.self_attn.q_proj": 64}
    right = tiny_lora(tmp_path / "right", config={"alpha_pattern": pattern})
    old = {f"foo.{name}": alpha for name, alpha in pattern.items()}
    wrong = broken(right, tmp_path / "wrong", NAMES["a part more"], alpha_pattern=old)

    exported(wrong, tmp_path / "out", "--base", str(base))

    assert are_same(merged(base, tmp_path / "out"), merged(base, right))


def test_an_adapter_of_a_deeper_base_is_refused_with_its_layers(base: Path, tmp_path: Path) -> None:
    deeper = broken(tiny_lora(tmp_path / "right"), tmp_path / "deeper", replaced("layers.1", "layers.7"))
    assert judged(deeper, base) == "not_as_trained"
    words = ["export", str(deeper), "--for", "peft", "--base", str(base), "-o", str(tmp_path / "out")]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 1
    assert "layer 7, but the base has 2 layers" in found.output
    assert not (tmp_path / "out").exists()


def test_factors_of_another_width_are_refused_by_peft(base: Path, tmp_path: Path) -> None:
    wide = {f"{PREFIX}lm_head.lora_A.weight": random_tensor((4, 24), 1),
            f"{PREFIX}lm_head.lora_B.weight": random_tensor((32, 4), 2)}  # fmt: skip
    adapter = tiny_lora(
        tmp_path / "wide", extra=wide, config={"target_modules": ["q_proj", "v_proj", "lm_head"]}
    )
    assert judged(adapter, base) == "refused"
    assert judged(adapter, None) == "as_trained"
