"""Weights that an adapter both adapts and replaces (`….base_layer.weight`). PEFT computes parts of some
changes from the base's weight before it loads the file's; our merges give the same weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from safetensors.torch import load_file

from adaptry import open_dir

from ..converting.converted import converted
from .corpus import Made, cases, make
from .families import FAMILIES
from .mutations import PREFIX
from .peft_comparison import ask_peft, ask_us, differing, load_merged, verdict, write


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def with_replaced_weight(case: str, folder: Path, corpus: Path) -> tuple[Made, Path]:
    """The case, and a copy of its adapter with another weight for its first module."""
    (found,) = [one for one in cases(dtypes=["fp32"]) if str(one) == f"{case}-fp32"]
    made = make(found, corpus)
    base = load_file(made.base / "model.safetensors")
    path = open_dir(made.adapter).spec.modules[0].path
    tensors = load_file(made.adapter / "adapter_model.safetensors")
    torch.manual_seed(3)
    was = base[f"{path}.weight"]
    tensors[f"{PREFIX}{path}.base_layer.weight"] = torch.randn(was.shape) * was.std()
    config = json.loads((made.adapter / "adapter_config.json").read_text())
    return made, write(folder / "adapter", tensors, config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "frod-plain-llama",
        "frod-plain-gpt2",
        "osf-plain-bert",
        "psoft-plain-t5",
        "lora-pissa-llama",
        "lora-olora-llama",
        "lora-dora-gpt2",
        "glora-plain-bert",
    ],
)
def test_an_adapted_weight_that_the_file_replaces_is_merged_as_peft_merges_it(
    case: str, tmp_path: Path, corpus: Path
) -> None:
    made, adapter = with_replaced_weight(case, tmp_path, corpus)
    family = FAMILIES[made.case.family]

    theirs, ours = ask_peft(family, made.base, adapter), ask_us(made.base, adapter, tmp_path / "merged")

    assert theirs.takes_all and not ours.blocked
    assert verdict(family, theirs, ours) is None


@pytest.mark.slow
@pytest.mark.parametrize("case", ["osf-plain-llama", "psoft-plain-llama", "lora-pissa-llama"])
def test_a_conversion_keeps_the_replaced_weight_and_the_update_beside_it(
    case: str, tmp_path: Path, corpus: Path
) -> None:
    made, adapter = with_replaced_weight(case, tmp_path, corpus)
    family = FAMILIES[made.case.family]
    expected = ask_peft(family, made.base, adapter).state

    converted(adapter, made.base, tmp_path / "lora", energy=1.0)
    found = ask_peft(family, made.base, tmp_path / "lora").state

    assert found is not None and expected is not None
    assert differing(found, expected) == []


@pytest.mark.slow
@pytest.mark.parametrize("start", [True, "pissa", "olora"])
def test_a_head_that_peft_saved_beside_its_lora_is_merged_without_a_warning(
    start: bool | str, tmp_path: Path
) -> None:
    family, base = FAMILIES["llama"], tmp_path / "base"
    family.save(base, torch.float32)
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM", init_lora_weights=start
    )
    live = peft.get_peft_model(family.load(base), config)
    for name, parameter in live.named_parameters():
        if "lora_" in name:
            parameter.data += torch.randn_like(parameter) * 0.1
    with pytest.warns(UserWarning, match="save_embedding_layers"):
        live.save_pretrained(tmp_path / "adapter")
    assert f"{PREFIX}lm_head.base_layer.weight" in load_file(tmp_path / "adapter/adapter_model.safetensors")

    ours = ask_us(base, tmp_path / "adapter", tmp_path / "merged")

    assert not ours.blocked
    assert not any(each.startswith("base_weight_replaced") for each in ours.told)
    merged, expected = load_merged(family, tmp_path / "merged"), live.merge_and_unload().state_dict()
    assert differing(merged, dict(expected)) == []
